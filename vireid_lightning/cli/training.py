"""LightningCLI over :class:`ReIDModule` and :class:`CrossModalityDataModule`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, get_loader, set_loader
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer, loggers
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from yaml import YAMLError

from vireid_lightning import data, methods
from vireid_lightning.callbacks import LastAndBest, RetrievalMetrics, RunSummary, SaveEmbeddings, WriteReport
from vireid_lightning.callbacks.preprocessing import find_mismatch
from vireid_lightning.callbacks.progress_line import ProgressLine, RemoveEmptyFolder
from vireid_lightning.callbacks.run_files import require_all_batches
from vireid_lightning.callbacks.signals import RunStopped, stop_at_once
from vireid_lightning.callbacks.trained_on import find_other_lists
from vireid_lightning.cli.checkpoint_names import choose_checkpoint
from vireid_lightning.cli.failures import tell_how_to_go_on, tell_in_a_sentence
from vireid_lightning.cli.messages import explain_message, list_options
from vireid_lightning.cli.moved_keys import move_keys
from vireid_lightning.cli.quiet import silence_other_packages
from vireid_lightning.cli.short_help import shorten, wants_short
from vireid_lightning.cli.spawned import recall_run, settle_folders, trains_elsewhere
from vireid_lightning.cli.wandb_runs import close_wandb_run
from vireid_lightning.cli.yaml_keys import check_keys
from vireid_lightning.data import CrossModalityDataModule, ReIDDataset
from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import is_file
from vireid_lightning.methods import ReIDModule
from vireid_lightning.methods.checkpoint import BLOCK, read_checkpoint
from vireid_lightning.methods.resuming import compare_arguments
from vireid_lightning.modules.own_network import import_path
from vireid_lightning.modules.timm_creation import is_own
from vireid_lightning.modules.weights_files import find_weights
from vireid_lightning.printable import make_printable

#: Short options for what may be scored all the same.
_ALLOWED = {
    "--allow-trial-mismatch": "--retrieval.allow_trial_mismatch=true",
    "--allow-preprocessing-mismatch": "--retrieval.allow_preprocessing_mismatch=true",
    "--allow-untrained": "--allow_untrained=true",
}

_load_yaml = get_loader("yaml")


def _load(text: str) -> Any:
    """Return what a YAML text says, moved keys in their new place; refuse a key that is given twice."""
    check_keys(text)
    return move_keys(_load_yaml(text))


set_loader("yaml", _load, (YAMLError,))


def run(args: Sequence[str]) -> VIReIDCLI:
    """Parse, build and run one subcommand; return the CLI object, for use from Python.

    Raises:
        VIReIDError: For a config that does not parse, or that something in it refuses.
    """
    # The processes that a distributed strategy starts are given the program's own arguments.
    program, path = sys.argv, sys.path
    sys.argv = [program[0], *(_ALLOWED.get(argument, argument) for argument in args)]
    # The user's own methods and datasets. Last, so that no file there hides an installed package.
    sys.path = [*path, str(Path.cwd())]
    try:
        with tell_in_a_sentence(), silence_other_packages(), stop_at_once(), close_wandb_run():
            return VIReIDCLI()
    except RunStopped as stop:
        if getattr(rank_zero_only, "rank", 0) == 0:
            print(make_printable(tell_how_to_go_on(stop, args), keep="\n"), file=sys.stderr)
        raise
    finally:
        sys.argv, sys.path = program, path


def _name_undecodable(words: Sequence[str]) -> str:
    """Return the config among a command's words that is no UTF-8 text."""
    for before, word in zip(["", *words], words):
        path = word.removeprefix("--config=")
        if (path != word or before in ("--config", "-c")) and is_file(path):
            try:
                Path(path).read_bytes().decode()
            except UnicodeDecodeError:
                return f"The config {path}"
    return "A config"


def _list_classes() -> list[type]:
    """Return all methods and datasets: those of this package, and a user's that are imported by now."""
    for module in (methods, data):
        for name in module.__all__:
            getattr(module, name)  # datasets are imported on first use
    return [*_list_derived(ReIDModule), *_list_derived(ReIDDataset)]


def _list_derived(cls: type[object]) -> list[type[object]]:
    return [derived for child in cls.__subclasses__() for derived in (child, *_list_derived(child))]


class VIReIDCLI(LightningCLI):
    """The command line: a method, a datamodule, and the callbacks ``retrieval``, ``checkpoint`` and ``report``.

    Reads ``sys.argv``, as the processes that a distributed strategy starts do.
    """

    def __init__(self) -> None:
        _list_classes()  # a short name is found among what is imported
        self._checkpoint: dict[str, Any] = {}  # what the run's checkpoint says of itself, once that is read
        raising = {"exit_on_error": False}
        super().__init__(
            ReIDModule,
            CrossModalityDataModule,
            subclass_mode_model=True,
            # A method stores its own plain constructor arguments, which load with weights_only=True.
            load_from_checkpoint_support=False,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            # RunSummary says more of a method than Lightning's table of its layers, which can be turned on.
            trainer_defaults={
                "callbacks": [RunSummary(), SaveEmbeddings(), RemoveEmptyFolder()],
                "enable_model_summary": False,
            },
            parser_kwargs=raising | dict.fromkeys(self.subcommands(), raising),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has."""
        parser.add_lightning_class_args(RetrievalMetrics, "retrieval")
        parser.add_lightning_class_args(LastAndBest, "checkpoint")
        parser.add_lightning_class_args(WriteReport, "report")
        parser.set_defaults(
            {"checkpoint.monitor": "val/mAP", "checkpoint.mode": "max", "checkpoint.save_last": True}
            | {"checkpoint.filename": "best", "checkpoint.enable_version_counter": False}
        )
        text = "After `fit`, score the last and the best weights over the dataset's whole table."
        parser.add_argument("--test_after_fit", type=bool, default=True, help=text)
        text = "Score weights that no training has made, where no checkpoint is given."
        parser.add_argument("--allow_untrained", type=bool, default=False, help=text)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments; what does not parse is told in one sentence with the nearest right name."""
        if wants_short(sys.argv[1:]):
            shorten(self._subcommand_parsers)
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError as error:
            raise VIReIDError(
                f"{_name_undecodable(sys.argv[1:])} is no UTF-8 text: {error.reason} at byte {error.start}; save it as "
                "UTF-8."
            ) from error
        except RecursionError as error:
            raise VIReIDError("A config's lists or sections lie in each other too deeply; write it flatter.") from error
        except argparse.ArgumentError as error:
            classes = _list_classes()
            names = [*(cls.__name__ for cls in classes), *lightning_callbacks.__all__, *loggers.__all__]
            keys = {action.dest for parser in self._subcommand_parsers.values() for action in parser._actions}
            sections, options = {key.split(".")[0] for key in keys}, {key.split(".")[-1] for key in keys}
            raise VIReIDError(explain_message(str(error), names, options | list_options(classes), sections)) from error

    def _parse_ckpt_path(self) -> None:
        """Leave the checkpoint to :meth:`before_instantiate_classes`, which checks it and keeps the config's form."""

    def _set_seed(self) -> None:
        """Set the seed of all draws.

        Raises:
            VIReIDError: If it is none that NumPy takes.
        """
        seed = self.config[self.subcommand].get("seed_everything")
        if not isinstance(seed, bool) and isinstance(seed, int) and not 0 <= seed < 2**32:
            raise VIReIDError(f"seed_everything is {seed}; give 0 to {2**32 - 1}.")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Take the method from the checkpoint where one is given, and the number of identities from the data."""
        config = self.config[self.subcommand]
        if "verbose" in config:
            config.verbose = False  # Lightning's list of every logged value; the callback prints the table
        self._choose_checkpoint(config)
        given = config.model.init_args
        if given.get("pretrained") and given.get("weights") and not config.get("ckpt_path"):
            find_weights(given.weights, str(given.get("backbone")))  # rather than after images are drawn and cached
        if given.get("num_classes", 0) is None:
            parser = self._parser(self.subcommand)
            datamodule = parser.instantiate(Namespace(data=config.data.clone())).data
            given.num_classes = datamodule.num_identities

    def _choose_checkpoint(self, config: Namespace) -> None:
        """Put the path in place of ``last`` and ``best``, and build the model that the checkpoint holds.

        Raises:
            VIReIDError: If there is no such checkpoint, or untrained weights would be scored.
        """
        path = choose_checkpoint(config, str(self.subcommand))
        if path is not None and path != "registry":
            self._match_checkpoint(config, path)

    def _match_checkpoint(self, config: Namespace, path: str) -> None:
        """Build the model with the arguments that its checkpoint was trained with; refuse another method's.

        The class is the config's: a checkpoint never decides what is imported.
        """
        checkpoint = read_checkpoint(path)
        module, _, name = config.model.class_path.rpartition(".")
        if (found := checkpoint[BLOCK]["method"]) != name:
            raise VIReIDError(f"{path} holds {found}, but the config's model is {name}; give the config of {found}.")
        self._checkpoint = {BLOCK: checkpoint[BLOCK]}
        # Resuming keeps the config's training; what shapes the networks comes from the checkpoint.
        method, stored = getattr(import_module(module), name), checkpoint["hyper_parameters"]
        given = config.model.init_args
        if self.subcommand == "fit":
            compare_arguments(path, stored, given, set(method.training_arguments) - {"optimization"})
        for argument in set(stored) & set(vars(given)) - set(method.training_arguments):
            if argument == "backbone" and is_own(stored[argument]):
                own = import_path(given.backbone) if isinstance(given.backbone, type) else given.backbone
                if own != stored[argument]:
                    raise VIReIDError(
                        f"{path} holds the backbone '{stored[argument]}', which is none of timm's, but the config's is "
                        f"{own}; give --model.backbone {stored[argument]} if you trust that class."
                    )
            else:
                given[argument] = stored[argument]

    def instantiate_trainer(self, **arguments: Any) -> Trainer:
        """Build the trainer.

        It has our progress bar where the config has none of its own and does not turn it off, and logs the learning
        rate where there is a logger.
        """
        settings = self.config_init[self.subcommand].trainer
        given = settings.callbacks if isinstance(settings.callbacks, list) else [settings.callbacks]
        if settings.enable_progress_bar is not False and not any(isinstance(item, ProgressBar) for item in given):
            self.trainer_defaults["callbacks"].append(ProgressLine())
        trainer = super().instantiate_trainer(**arguments)
        if trainer.loggers and not any(isinstance(item, LearningRateMonitor) for item in given):
            # Lightning sets the attribute from outside of its class.
            trainer.callbacks.insert(0, LearningRateMonitor("epoch"))  # type: ignore[attr-defined]
        return trainer

    def instantiate_classes(self) -> None:
        """Build everything; what saves embeddings allows the preprocessing that ``retrieval`` allows."""
        super().instantiate_classes()
        config = self.config[self.subcommand]
        allow = config.retrieval.allow_preprocessing_mismatch
        if self._checkpoint:  # now, rather than after images are checked and cached
            data = (config.ckpt_path, self._checkpoint, self.datamodule)
            find_mismatch(*data, allow=allow)
            if self.subcommand != "fit":
                find_other_lists(*data, allow=allow)
        if allow:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it from outside
                if isinstance(callback, SaveEmbeddings):
                    callback.allow_preprocessing_mismatch = True

    def before_fit(self) -> None:
        """Refuse what the test after training would refuse, and a stray file, see :meth:`refuse_stray_file`."""
        self.refuse_stray_file()
        if self.config.fit.test_after_fit:
            require_all_batches(self.trainer, self.datamodule, "test")
        if trains_elsewhere(self.trainer):
            settle_folders(self.trainer, self.model)

    def refuse_stray_file(self) -> None:
        """Refuse a requeue file in the working folder, from which Lightning goes on in any SLURM job of any run."""
        if self.config[self.subcommand].get("ckpt_path") or not SLURMEnvironment.detect():
            return
        for path in sorted(Path(self.trainer.default_root_dir).glob("*hpc_ckpt_*")):
            raise VIReIDError(
                f"{path} is a file that Lightning would go on from in every SLURM job that starts in its folder; move "
                "it away, or give --ckpt_path."
            )

    before_validate = before_test = before_predict = refuse_stray_file

    def after_fit(self) -> None:
        """Score the best and the last weights over the whole table and say where everything lies."""
        trainer = self.trainer
        # A user's own ModelCheckpoint may stand before ours.
        checkpoint = next((each for each in trainer.checkpoint_callbacks if isinstance(each, LastAndBest)), None)
        if not self.config.fit.test_after_fit or trainer.interrupted or checkpoint is None:
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it from outside of its class
            return
        logs = trainer.log_dir
        if trains_elsewhere(trainer):
            recall_run(trainer, checkpoint)
        best, last = checkpoint.best_model_path, checkpoint.last_model_path
        if best and last and read_checkpoint(best)["global_step"] == read_checkpoint(last)["global_step"]:
            rank_zero_info(f"The best weights of {checkpoint.monitor} are the last ones.")
            best = ""
        # What averages weights in training would put others in place of those that a file holds.
        trainer.callbacks = [  # type: ignore[attr-defined]  # Lightning sets it from outside of its class
            each
            for each in trainer.callbacks  # type: ignore[attr-defined]
            if not isinstance(each, (WeightAveraging, StochasticWeightAveraging))
        ]
        try:
            for path in filter(None, (best, last) if self.datamodule.eval_samples("test") else ()):
                trainer.test(self.model, datamodule=self.datamodule, ckpt_path=path, weights_only=True, verbose=False)
        except RunStopped as stop:
            stop.checkpoint = last or None  # the same command scores the weights
            raise
        rank_zero_info(f"Checkpoints: {checkpoint.dirpath}\nLogs and config: {logs}")
