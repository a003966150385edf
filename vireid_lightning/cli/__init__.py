"""The two commands. ``lightning`` trains and tests, by LightningCLI; ``vireid`` has the other tools.

A config is the constructor call of a method and of the datamodule::

    lightning fit --config experiments/quickstart.yaml
    lightning test --config experiments/quickstart.yaml --ckpt_path runs/quickstart/version_0/checkpoints/last.ckpt

From Python, a command takes a list: ``lightning(["fit", "--config", "experiments/quickstart.yaml"])``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import re
from typing import NoReturn

from vireid_lightning.cli.command import Command
from vireid_lightning.errors import VIReIDError

__all__ = ["lightning", "vireid"]


def _train_or_test(subcommand: str, args: list[str]) -> None:
    """Run a subcommand of ``lightning``."""
    from vireid_lightning.cli.training import run  # imports torch

    run([subcommand, *args])


def _hand_over(name: str, args: list[str]) -> bool:
    """Run the ``lightning`` command of the package lightning-sdk, where it is installed."""
    if name.startswith("-"):
        _train_or_test(name, args)  # an option before the subcommand
        return True
    for script in importlib.metadata.entry_points(group="console_scripts", name="lightning"):
        if script.dist is not None and script.dist.name.replace("_", "-") == "lightning-sdk":
            script.load()()
            return True
    return False


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong with the arguments in one sentence, as everything else that fails."""

    def error(self, message: str) -> NoReturn:
        """Raise what the command prints."""
        # "argument --k1: is 0; give a whole number from 1" as other errors say it.
        sentence = re.sub(r"^argument ([^:]+): is ", r"\1 is ", message)
        raise VIReIDError(f"{sentence}; see `{self.prog} --help`.")


def _run_tool(name: str, args: list[str]) -> None:
    """Run a tool: the functions ``add_arguments`` and ``run`` of its module in ``cli/tools``."""
    tool = importlib.import_module(f"vireid_lightning.cli.tools.{name.replace('-', '_')}")
    parser = _Parser(prog=f"vireid {name}", description=tool.__doc__)
    tool.add_arguments(parser)
    tool.run(parser.parse_args(args))


lightning = Command(
    usage="lightning {fit,validate,test,predict} --config FILE [--config FILE ...] [--key value ...]",
    description="Visible-infrared person re-identification with PyTorch Lightning.",
    subcommands={
        "fit": "train a method, then score its last and its best weights over the whole table",
        "validate": "score the validation protocol",
        "test": "score every protocol of the dataset",
        "predict": "write the test images' embeddings to a file that `vireid evaluate` reads",
    },
    notes=[
        "`lightning fit --help` lists the settings that most runs need, `--help all` all of them;",
        "`lightning fit --model.help METHOD` lists those of a method,",
        "`lightning fit --data.dataset.help DATASET` those of a dataset. A class of your own goes by its module:",
        "`--model my_method.MyMethod` is the class MyMethod in the file my_method.py of the current folder.",
        "`lightning test ... --allow-trial-mismatch` scores a checkpoint on another trial of its dataset and says so,",
        "`--allow-preprocessing-mismatch` on images of another size, interpolation or split than it was trained on.",
        "`--ckpt_path last` and `best` are those of the newest run of the config's name; `--allow-untrained` scores a",
        "network without a checkpoint. `--traceback` shows where an error came from.",
        "`lightning fit --config FILE --print_config` prints the whole config. `vireid --help` lists the other tools.",
    ],
    run=_train_or_test,
    hand_over=_hand_over,
    advice="Others belong to the package lightning-sdk, which is not installed: `pip install lightning-sdk`.",
)

vireid = Command(
    usage="vireid TOOL ...",
    description="Tools of vireid-lightning; the `lightning` command trains and tests.",
    subcommands={
        "synthesize": "draw a synthetic dataset in the layout of a real one",
        "check-dataset": "compare a dataset's folder with what its authors published",
        "evaluate": "score saved embeddings under a dataset's protocols",
        "embed": "embed images with a checkpoint's network",
        "threshold": 'choose the distance from which on a search says "not in the gallery"',
        "index": "build an index for searching a gallery of millions of images",
        "search": "list the gallery images nearest to query images",
        "export": "write a checkpoint's network as ONNX, TorchScript, torch.export or safetensors",
        "report": "write one HTML page of scores, curves, a map of the embeddings and rank lists",
        "figures": "write the charts and rank lists of a report as PDF and PNG for a paper",
        "overlays": "draw what a method sees in a query and a gallery image: their similarity, parts, patterns",
        "trials": "train and test each trial of a dataset with several splits, such as RegDB",
        "seeds": "train and test a method with several seeds",
        "aggregate": "compute mean and deviation of the result files of several trials or seeds",
        "compare": "put the results of several methods side by side, as a table, Markdown, LaTeX or CSV",
        "benchmark": "measure what a training step of each method costs beside its bare backbone",
        "import-checkpoint": "convert weights that a paper's authors released",
    },
    notes=["`vireid TOOL --help` lists a tool's arguments; `--traceback` shows where an error came from."],
    run=_run_tool,
)
