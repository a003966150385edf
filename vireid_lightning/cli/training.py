"""LightningCLI over :class:`ReIDModule` and :class:`CrossModalityDataModule`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, get_loader, set_loader
from lightning.pytorch import Trainer, loggers
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info
from yaml import YAMLError

from vireid_lightning import data, methods
from vireid_lightning.callbacks import LastAndBest, RetrievalMetrics, RunSummary, SaveEmbeddings
from vireid_lightning.callbacks.preprocessing import find_mismatch
from vireid_lightning.callbacks.progress_line import ProgressLine, RemoveEmptyFolder
from vireid_lightning.cli.messages import explain_message, list_options
from vireid_lightning.cli.moved_keys import move_keys
from vireid_lightning.cli.quiet import silence_other_packages
from vireid_lightning.data import CrossModalityDataModule, ReIDDataset
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import ReIDModule
from vireid_lightning.methods.checkpoint import BLOCK, read_checkpoint
from vireid_lightning.modules.own_network import import_path
from vireid_lightning.modules.timm_creation import is_own

#: Short options for what a checkpoint may be scored on all the same.
_MISMATCHES = {
    "--allow-trial-mismatch": "--retrieval.allow_trial_mismatch=true",
    "--allow-preprocessing-mismatch": "--retrieval.allow_preprocessing_mismatch=true",
}

_load_yaml = get_loader("yaml")
set_loader("yaml", lambda text: move_keys(_load_yaml(text)), (YAMLError,))


def run(args: Sequence[str]) -> VIReIDCLI:
    """Parse, build and run one subcommand; return the CLI object, for use from Python.

    Raises:
        VIReIDError: For a config that does not parse, or that something in it refuses.
    """
    # The processes that a distributed strategy starts are given the program's own arguments.
    program, path = sys.argv, sys.path
    sys.argv = [program[0], *(_MISMATCHES.get(argument, argument) for argument in args)]
    # The user's own methods and datasets. Last, so that no file there hides an installed package.
    sys.path = [*path, str(Path.cwd())]
    try:
        with silence_other_packages():
            return VIReIDCLI()
    except (ValueError, TypeError, argparse.ArgumentError) as error:
        # The parser wraps what a constructor raises.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, VIReIDError):
            cause = cause.__cause__ or cause.__context__
        if cause is None or cause is error:
            raise
        raise cause from None
    finally:
        sys.argv, sys.path = program, path


def _list_classes() -> list[type]:
    """Return all methods and datasets: those of this package, and a user's that are imported by now."""
    for module in (methods, data):
        for name in module.__all__:
            getattr(module, name)  # datasets are imported on first use
    return [*_list_derived(ReIDModule), *_list_derived(ReIDDataset)]


def _list_derived(cls: type[object]) -> list[type[object]]:
    return [derived for child in cls.__subclasses__() for derived in (child, *_list_derived(child))]


class VIReIDCLI(LightningCLI):
    """The command line: ``model`` is a method, ``data`` the datamodule, ``retrieval`` and ``checkpoint`` callbacks.

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
        parser.set_defaults(
            {"checkpoint.monitor": "val/mAP", "checkpoint.mode": "max", "checkpoint.save_last": True}
            | {"checkpoint.filename": "best", "checkpoint.enable_version_counter": False}
        )
        text = "After `fit`, score the last and the best weights over the dataset's whole table."
        parser.add_argument("--test_after_fit", type=bool, default=True, help=text)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments; what does not parse is told in one sentence with the nearest right name."""
        try:
            super().parse_arguments(parser, args)
        except argparse.ArgumentError as error:
            classes = _list_classes()
            names = [*(cls.__name__ for cls in classes), *lightning_callbacks.__all__, *loggers.__all__]
            keys = {action.dest for parser in self._subcommand_parsers.values() for action in parser._actions}
            sections, options = {key.split(".")[0] for key in keys}, {key.split(".")[-1] for key in keys}
            raise VIReIDError(explain_message(str(error), names, options | list_options(classes), sections)) from error

    def _parse_ckpt_path(self) -> None:
        """Leave the checkpoint to :meth:`before_instantiate_classes`, which checks it and keeps the config's form."""

    def before_instantiate_classes(self) -> None:
        """Take the method from the checkpoint where one is given, and the number of identities from the data."""
        config = self.config[self.subcommand]
        if "verbose" in config:
            config.verbose = False  # Lightning's list of every logged value; the callback prints the table
        path = config.get("ckpt_path")
        if path and path not in ("best", "last", "hpc", "registry"):
            self._match_checkpoint(config, path)
        if config.model.init_args.get("num_classes", 0) is None:
            parser = self._parser(self.subcommand)
            datamodule = parser.instantiate(Namespace(data=config.data.clone())).data
            config.model.init_args.num_classes = datamodule.num_identities

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
        """Build the trainer, with our progress bar where the config has none of its own and does not turn it off."""
        settings = self.config_init[self.subcommand].trainer
        given = settings.callbacks if isinstance(settings.callbacks, list) else [settings.callbacks]
        if settings.enable_progress_bar is not False and not any(isinstance(item, ProgressBar) for item in given):
            self.trainer_defaults["callbacks"].append(ProgressLine())
        return super().instantiate_trainer(**arguments)

    def instantiate_classes(self) -> None:
        """Build everything; what saves embeddings allows the preprocessing that ``retrieval`` allows."""
        super().instantiate_classes()
        config = self.config[self.subcommand]
        allow = config.retrieval.allow_preprocessing_mismatch
        if self._checkpoint:  # now, rather than after images are checked and cached
            find_mismatch(config.ckpt_path, self._checkpoint, self.datamodule, allow=allow)
        if allow:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it from outside
                if isinstance(callback, SaveEmbeddings):
                    callback.allow_preprocessing_mismatch = True

    def after_fit(self) -> None:
        """Score the best and the last weights over the whole table and say where everything lies."""
        trainer, checkpoint = self.trainer, self.trainer.checkpoint_callback
        if not self.config.fit.test_after_fit or trainer.interrupted or not isinstance(checkpoint, ModelCheckpoint):
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it from outside of its class
            return
        best, last = checkpoint.best_model_path, checkpoint.last_model_path
        if best and last and read_checkpoint(best)["global_step"] == read_checkpoint(last)["global_step"]:
            rank_zero_info(f"The best weights of {checkpoint.monitor} are the last ones.")
            best = ""
        for path in filter(None, (best, last) if self.datamodule.eval_samples("test") else ()):
            trainer.test(self.model, datamodule=self.datamodule, ckpt_path=path, weights_only=True, verbose=False)
        rank_zero_info(f"Checkpoints: {checkpoint.dirpath}\nLogs and config: {trainer.log_dir}")
