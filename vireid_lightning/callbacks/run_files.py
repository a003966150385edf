"""Where a run's results go, and what they say of where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK, load_weights_file


def results_folder(trainer: Trainer) -> Path:
    """Return the folder of the checkpoint that was loaded; where there was none, :func:`log_folder`.

    To be called in all processes.
    """
    if trainer.ckpt_path is not None:
        return Path(trainer.ckpt_path).resolve().parent
    return log_folder(trainer)


def require_datamodule(trainer: Trainer) -> None:
    """Raise a :class:`VIReIDError` if what runs has dataloaders only, which know no samples and protocols."""
    if not hasattr(trainer.datamodule, "protocols"):
        raise VIReIDError(
            "Samples and protocols come from the datamodule; give the Trainer a CrossModalityDataModule "
            "(datamodule=...) instead of plain dataloaders."
        )


def log_folder(trainer: Trainer) -> Path:
    """Return the folder of the run's logs, or the trainer's default folder where nothing is logged.

    To be called in all processes: Lightning sends it from the first to the others.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


def checkpoint_label(path: str | Path | None, checkpoint: Mapping[str, Any]) -> str | None:
    """Return ``last`` or ``best`` for a checkpoint file, or None where it cannot be told.

    ``last`` by its name; ``best`` if the states of the callbacks that wrote it say that a monitored score was best
    there.
    """
    if path is None:
        return None
    name = Path(path).name
    if name.startswith("last"):
        return "last"
    for state in checkpoint.get("callbacks", {}).values():
        is_monitored = isinstance(state, Mapping) and state.get("monitor") is not None
        if is_monitored and Path(state.get("best_model_path") or "").name == name:
            return "best"
    return None


class Origin:
    """What results and saved embeddings say of the weights and the data behind them.

    Attributes:
        loaded: What the last checkpoint that was loaded says: epochs trained, last or best, the trial it was trained
            on, and whether that is another one than the data's.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}
        self._seen: tuple[Any, ...] | None = None

    def remember(self, trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
        """Take down what a checkpoint that is being loaded says of itself.

        Raises:
            VIReIDError: If there is no datamodule, only dataloaders.
        """
        require_datamodule(trainer)
        trained, dataset = checkpoint.get(BLOCK, {}).get("dataset", {}), trainer.datamodule.dataset
        same = trained.get("name") == dataset.name
        trial = trained.get("trial") if same else None  # one of another dataset has no identities of this one
        self._seen = _loading(trainer)
        self.loaded = {
            "epoch": checkpoint["epoch"] + 1,
            "checkpoint_kind": checkpoint_label(trainer.ckpt_path, checkpoint),
            "trained_on_trial": trial,
            "trial_mismatch": same and trial != dataset.trial,
        }

    def forget(self) -> None:
        """Be told again of what was refused."""
        self._seen = None

    def unseen(self, trainer: Trainer) -> dict[str, Any] | None:
        """Return a checkpoint that is loaded but was not told of: Lightning is silent about those of weights alone."""
        if not trainer.ckpt_path or _loading(trainer) == self._seen:
            return None
        return load_weights_file(trainer.ckpt_path)

    def about(self, trainer: Trainer, module: LightningModule, stage: str) -> dict[str, Any]:
        """Return what is known of what runs now."""
        datamodule, dataset = trainer.datamodule, trainer.datamodule.dataset
        about = {
            "stage": stage,
            "dataset": dataset.name,
            "fingerprint": getattr(datamodule, "fingerprint", None) or dataset.fingerprint(),
            "dataset_trial": dataset.trial,
            "method": type(module).__name__,
            "checkpoint": None if trainer.ckpt_path is None else str(Path(trainer.ckpt_path).resolve()),
            "checkpoint_kind": None,
            "epoch": trainer.current_epoch,
            "trained_on_trial": None,
            "trial_mismatch": False,
        }
        return about | (self.loaded if trainer.ckpt_path is not None else {})


def _loading(trainer: Trainer) -> tuple[Any, ...]:
    """Return what is loaded, and for which data."""
    return str(trainer.ckpt_path), trainer.datamodule.dataset.name, trainer.datamodule.dataset.trial
