"""The ``lightning`` command: LightningCLI over this package's methods and datasets.

A config is the constructor call of a method and of the datamodule::

    lightning fit --config experiments/quickstart.yaml
    lightning test --config experiments/quickstart.yaml --ckpt_path runs/quickstart/version_0/checkpoints/last.ckpt
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from typing import TYPE_CHECKING, Any

from vireid_lightning import __version__
from vireid_lightning.errors import VIReIDError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

_MISMATCH = "--allow-trial-mismatch"

SUBCOMMANDS = {
    "fit": "train a method, then score its last and its best weights over the whole table",
    "validate": "score the validation protocol",
    "test": "score every protocol of the dataset",
    "predict": "write the test images' embeddings to a file that `vireid evaluate` reads",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``lightning`` command; bad input ends with one sentence and exit code 2."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return
    if args[0] == "--version":
        print(f"vireid-lightning {__version__}")
        return
    if not args[0].startswith("-") and args[0] not in SUBCOMMANDS:
        _hand_over(args)
        return
    try:
        run(args)
    except VIReIDError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _help() -> str:
    lines = [
        "usage: lightning {fit,validate,test,predict} --config FILE [--config FILE ...] [--key value ...]",
        "",
        "Visible-infrared person re-identification with PyTorch Lightning.",
        "",
        "subcommands:",
        *(f"  {name:<10}{text}" for name, text in SUBCOMMANDS.items()),
        "",
        "`lightning fit --help` lists the settings; `lightning fit --model.help MPANet` those of a method,",
        "`lightning fit --data.dataset.help SYSUMM01` those of a dataset;",
        f"`lightning test ... {_MISMATCH}` scores a checkpoint on another trial of its dataset, marked as such.",
        "`lightning fit --config FILE --print_config` prints the whole config. `vireid --help` has the other tools.",
    ]
    return "\n".join(lines)


def _hand_over(args: list[str]) -> None:
    """Run lightning-sdk's own ``lightning`` command where that package is installed."""
    try:
        scripts = importlib.metadata.distribution("lightning-sdk").entry_points
    except importlib.metadata.PackageNotFoundError:
        scripts = ()
    for script in scripts:
        if script.group == "console_scripts" and script.name == "lightning":
            script.load()()
            return
    print(
        f"error: '{args[0]}' is none of {', '.join(SUBCOMMANDS)}.{did_you_mean(args[0], SUBCOMMANDS)} Other "
        "subcommands belong to the package lightning-sdk, which is not installed: `pip install lightning-sdk`.",
        file=sys.stderr,
    )
    sys.exit(2)


def _ours(error: BaseException | None) -> VIReIDError | None:
    """Return the :class:`VIReIDError` that an error is or was raised from, if any."""
    while error is not None and not isinstance(error, VIReIDError):
        error = error.__cause__ or error.__context__
    return error


def run(args: Sequence[str]) -> Any:
    """Parse, build and run one subcommand; returns the CLI object, for use from Python.

    Raises:
        VIReIDError: For a config that does not parse.
    """
    # Imported here so that help and errors of the command itself do not wait for torch.
    from vireid_lightning.cli.messages import one_sentence
    from vireid_lightning.cli.training import SECTIONS, VIReIDCLI, class_names, setting_names

    # The processes that a distributed strategy starts are given the program's own arguments.
    program = sys.argv
    sys.argv = [program[0], *("--retrieval.allow_trial_mismatch=true" if a == _MISMATCH else a for a in args)]
    try:
        return VIReIDCLI()
    except (ValueError, TypeError) as error:
        # The parser wraps what a constructor raises.
        if (ours := _ours(error)) is None or ours is error:
            raise
        raise ours from None
    except argparse.ArgumentError as error:
        raise VIReIDError(one_sentence(str(error), class_names(), setting_names(), SECTIONS)) from error
    finally:
        sys.argv = program
