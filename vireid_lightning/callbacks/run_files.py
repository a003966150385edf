"""Where a run's results go, and what they say of the weights and the data behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import LightningModule, Trainer

from vireid_lightning.callbacks.preprocessing import find_mismatch
from vireid_lightning.callbacks.trained_on import find_other_lists
from vireid_lightning.environment import find_code_state, list_versions
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK, load_weights_file

if TYPE_CHECKING:
    from vireid_lightning.data import CrossModalityDataModule


def require_datamodule(trainer: Trainer) -> CrossModalityDataModule:
    """Return the datamodule of the running fit, test or prediction.

    Raises:
        VIReIDError: If there are dataloaders only, which know no samples and protocols.
    """
    datamodule = getattr(trainer, "datamodule", None)
    if not hasattr(datamodule, "protocols"):
        raise VIReIDError(
            "Samples and protocols come from the datamodule; give the Trainer a CrossModalityDataModule "
            "(datamodule=...) instead of plain dataloaders."
        )
    return cast("CrossModalityDataModule", datamodule)


def require_all_batches(trainer: Trainer, datamodule: Any, stage: str) -> None:
    """Refuse a limit on the batches of an evaluation: a protocol without one of its images is another protocol.

    Args:
        trainer: The trainer; a limit of 0 leaves the evaluation out, and ``fast_dev_run`` scores nothing.
        datamodule: The data; plain dataloaders are not looked at.
        stage: ``fit``, whose validation is meant, ``validate``, ``test`` or ``predict``.

    Raises:
        VIReIDError: If fewer batches would be run than there are.
    """
    if getattr(trainer, "fast_dev_run", False) or not hasattr(datamodule, "eval_batch_size"):
        return
    name = "val" if stage in ("fit", "validate") else "test" if stage == "test" else "predict"
    limit: int | float = getattr(trainer, f"limit_{name}_batches")
    images = len(datamodule.eval_samples("validate" if name == "val" else "test"))
    batches = math.ceil(math.ceil(images / trainer.world_size) / datamodule.eval_batch_size)
    if 0 < (limit if isinstance(limit, int) else int(batches * limit)) < batches or 0 < limit * batches < 1:
        raise VIReIDError(
            f"trainer.limit_{name}_batches is {limit}, but scores need all {batches} batches of the split; leave it "
            f"out, or set {'it to 0 to leave validation out' if stage == 'fit' else 'a larger data.eval_batch_size'}."
        )


def find_results_folder(trainer: Trainer) -> Path:
    """Return the folder of the checkpoint that was loaded; where there was none, :func:`find_log_folder`.

    To be called in all processes.
    """
    if trainer.ckpt_path is not None:
        return Path(trainer.ckpt_path).resolve().parent
    return find_log_folder(trainer)


def find_log_folder(trainer: Trainer) -> Path:
    """Return the folder of the run's logs, or the trainer's default folder where nothing is logged.

    To be called in all processes: Lightning sends it from the first to the others.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


def label_checkpoint(path: str | Path | None, checkpoint: Mapping[str, Any]) -> str | None:
    """Return ``last`` or ``best`` for a checkpoint file, or None where it cannot be told.

    A checkpoint is ``last`` by its name, and ``best`` if the states of the callbacks that wrote it say that a monitored
    score was best there.
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


class Provenance:
    """What results and saved embeddings say of the weights and the data that they come from.

    Attributes:
        loaded: What the last checkpoint that was loaded says: epochs trained, last or best, the trial it was trained
            on, and whether that, or how its images were prepared, is another one than the data's.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}
        self._noted: tuple[str, ...] | None = None

    def note_checkpoint(
        self,
        trainer: Trainer,
        checkpoint: Mapping[str, Any],
        *,
        allow_trial_mismatch: bool = True,
        allow_preprocessing_mismatch: bool = False,
    ) -> None:
        """Note what a checkpoint that is being loaded says of itself.

        Args:
            trainer: The trainer that loads it.
            checkpoint: Content of the file.
            allow_trial_mismatch: Whether the checkpoint may be of another trial of the dataset than the data.
            allow_preprocessing_mismatch: Whether its images may have been prepared in another way than the data's, or
                be other ones of the same dataset.

        Raises:
            VIReIDError: If there is no datamodule, only dataloaders, or the trial, the lists of images or their
                preparation are others and may not be. Nothing is noted then.
        """
        dataset, trained = require_datamodule(trainer).dataset, checkpoint.get(BLOCK, {}).get("dataset", {})
        is_same = trained.get("name") == dataset.name
        trial = trained.get("trial") if is_same else None  # a trial of another dataset has no identities of this one
        is_mismatch = is_same and trial != dataset.trial
        if is_mismatch and not allow_trial_mismatch:
            raise VIReIDError(
                f"{trainer.ckpt_path} was trained on trial {trial} of {dataset.name}, but the data is trial "
                f"{dataset.trial}, with identities that it was trained on; set --data.dataset.init_args.trial "
                f"{trial}, or give --allow-trial-mismatch to score it all the same, marked as such."
            )
        data = (trainer.ckpt_path, checkpoint, require_datamodule(trainer))
        other_images = find_mismatch(*data, allow=allow_preprocessing_mismatch)
        # A training that goes on has its own check, see :func:`~vireid_lightning.methods.resuming.check_resumed`.
        resumed = trainer.state.fn == "fit"
        other_lists = not resumed and find_other_lists(*data, allow=allow_preprocessing_mismatch)
        self._noted = _identify_loading(trainer)
        self.loaded = {
            "epoch": checkpoint["epoch"] + 1,
            "checkpoint_kind": label_checkpoint(trainer.ckpt_path, checkpoint),
            "trained_on_dataset": trained.get("name"),
            "trained_on_trial": trial,
            "training": checkpoint.get(BLOCK, {}).get("training"),
            "trial_mismatch": is_mismatch,
            "dataset_mismatch": other_lists,
            "preprocessing_mismatch": other_images,
        }

    def read_missed(self, trainer: Trainer) -> dict[str, Any] | None:
        """Return a checkpoint that the trainer has loaded and :meth:`note_checkpoint` has not seen, or None.

        Lightning does not announce checkpoints that hold weights alone.
        """
        if not trainer.ckpt_path or _identify_loading(trainer) == self._noted:
            return None
        return cast("dict[str, Any]", load_weights_file(trainer.ckpt_path))

    def describe(self, trainer: Trainer, module: LightningModule, stage: str) -> dict[str, Any]:
        """Return what results say of the running test: data, method, checkpoint and trial."""
        datamodule = require_datamodule(trainer)
        dataset, preprocessing = datamodule.dataset, getattr(datamodule, "preprocessing", {})
        about = {
            "stage": stage,
            "dataset": dataset.name,
            "fingerprint": getattr(datamodule, "fingerprint", None) or dataset.fingerprint(),
            "dataset_trial": dataset.trial,
            "synthetic": bool(getattr(dataset, "synthetic", False)),
            "method": type(module).__name__,
            "backbone": getattr(getattr(module, "backbone", None), "name", None),
            **{key: preprocessing.get(key) for key in ("image_size", "interpolation")},
            "checkpoint": None if trainer.ckpt_path is None else str(Path(trainer.ckpt_path).resolve()),
            "checkpoint_kind": None,
            "epoch": trainer.current_epoch,
            "training": None,
            "versions": list_versions(),
            "code": find_code_state(),
            "trained_on_dataset": None,
            "trained_on_trial": None,
            "trial_mismatch": False,
            "dataset_mismatch": False,
            "preprocessing_mismatch": False,
        }
        return about | (self.loaded if trainer.ckpt_path is not None else {})


def _identify_loading(trainer: Trainer) -> tuple[str, ...]:
    """Return which file is loaded, for which dataset and trial, and how the data prepares images."""
    datamodule = require_datamodule(trainer)
    preprocessing = getattr(datamodule, "preprocessing", None)
    return str(trainer.ckpt_path), datamodule.dataset.name, str(datamodule.dataset.trial), str(preprocessing)
