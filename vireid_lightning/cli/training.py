"""LightningCLI over :class:`ReIDModule` and :class:`CrossModalityDataModule`."""

from __future__ import annotations

from importlib import import_module

from jsonargparse import Namespace
from lightning.pytorch import Trainer, loggers
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from vireid_lightning import data, methods
from vireid_lightning.callbacks import LastAndBest, RetrievalMetrics, RunSummary, SaveEmbeddings
from vireid_lightning.cli.messages import option_names
from vireid_lightning.data import CrossModalityDataModule
from vireid_lightning.data.datasets.base import ReIDDataset
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import ReIDModule
from vireid_lightning.methods.checkpoint import BLOCK, read_checkpoint

_SUBCOMMANDS = ("fit", "validate", "test", "predict")

#: Top level of a config.
SECTIONS = (
    "model",
    "data",
    "trainer",
    "retrieval",
    "checkpoint",
    "seed_everything",
    "test_after_fit",
    "ckpt_path",
    "weights_only",
    "verbose",
    "return_predictions",
    "config",
)


def _classes() -> list[type]:
    public = [getattr(module, name) for module in (methods, data) for name in module.__all__]
    return [item for item in public if isinstance(item, type) and issubclass(item, ReIDModule | ReIDDataset)]


def class_names() -> list[str]:
    """Return the short names that a ``class_path`` may have: methods, datasets, Lightning's callbacks and loggers."""
    return [*(cls.__name__ for cls in _classes()), *lightning_callbacks.__all__, *loggers.__all__]


def setting_names() -> set[str]:
    """Return every name that a setting of a method, dataset, the datamodule, the trainer or a callback may have."""
    return option_names([*_classes(), CrossModalityDataModule, Trainer, RetrievalMetrics, LastAndBest])


class VIReIDCLI(LightningCLI):
    """The command line: ``model`` is a method, ``data`` the datamodule, ``retrieval`` and ``checkpoint`` callbacks.

    Reads ``sys.argv``, as the processes that a distributed strategy starts do.
    """

    def __init__(self) -> None:
        _classes()  # datasets are imported on first use, and a short name is found among what is imported
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
            trainer_defaults={"callbacks": [RunSummary(), SaveEmbeddings()]},
            parser_kwargs={**raising, **{name: {**raising} for name in _SUBCOMMANDS}},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has."""
        parser.add_lightning_class_args(RetrievalMetrics, "retrieval")
        parser.add_lightning_class_args(LastAndBest, "checkpoint")
        parser.set_defaults(
            {"checkpoint.monitor": "val/mAP", "checkpoint.mode": "max", "checkpoint.save_last": True}
            | {"checkpoint.filename": "best", "checkpoint.enable_version_counter": False}
        )
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="After `fit`, score the last and the best weights over the dataset's whole table.",
        )

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
            config.model.init_args.num_classes = self._count_identities(config)

    def _match_checkpoint(self, config: Namespace, path: str) -> None:
        """Build the model with the arguments that its checkpoint was trained with; refuse another method's."""
        checkpoint = read_checkpoint(path)
        wanted = config.model.class_path.split(".")[-1]
        if (found := checkpoint[BLOCK]["method"]) != wanted:
            raise VIReIDError(f"{path} holds {found}, but the config's model is {wanted}; give the config of {found}.")
        stored = checkpoint["hyper_parameters"]
        init_args = config.model.init_args
        # Resuming keeps the config's training; what shapes the networks comes from the checkpoint.
        module, _, name = config.model.class_path.rpartition(".")
        method = getattr(import_module(module), name)
        for name in set(stored) & set(vars(init_args)) - set(method.training_arguments):
            init_args[name] = stored[name]

    def _count_identities(self, config: Namespace) -> int:
        parser = self._parser(self.subcommand)
        dataset = parser.instantiate(Namespace(data=config.data.clone())).data
        return dataset.num_identities

    def after_fit(self) -> None:
        """Score the best and the last weights over the whole table and say where everything lies."""
        trainer, checkpoint = self.trainer, self.trainer.checkpoint_callback
        if not self.config.fit.test_after_fit or trainer.fast_dev_run or trainer.interrupted or checkpoint is None:
            return
        best, last = checkpoint.best_model_path, checkpoint.last_model_path
        if best and last and _step(best) == _step(last):
            rank_zero_info(f"The best weights of {checkpoint.monitor} are the last ones.")
            best = ""
        for path in (best, last):
            if path:
                trainer.test(self.model, datamodule=self.datamodule, ckpt_path=path, weights_only=True, verbose=False)
        rank_zero_info(f"Checkpoints: {checkpoint.dirpath}")
        rank_zero_info(f"Logs and config: {trainer.log_dir}")


def _step(path: str) -> int:
    return read_checkpoint(path)["global_step"]
