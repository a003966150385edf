"""Writes the embeddings of the test images for later scoring, searching and drawing."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from vireid_lightning.callbacks.run_files import (
    Provenance,
    find_log_folder,
    require_all_batches,
    require_datamodule,
)
from vireid_lightning.files import require_writable
from vireid_lightning.methods.checkpoint import fingerprint_weights
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.results import keep_earlier
from vireid_lightning.metrics.retrieval_metric import RetrievalMetric
from vireid_lightning.metrics.terminal import to_text


class SaveEmbeddings(Callback):
    """Lets ``lightning predict`` write ``embeddings.npz`` into the run's log folder.

    The file holds ``embedding`` (N, D) float32, ``identity``, ``camera``, ``modality`` (0 visible, 1 infrared) and
    ``path`` (relative to the dataset's root) of all images of the test split in the order of its samples, gathered over
    processes and once each, and ``about``, a JSON text that says of which dataset, trial, method and checkpoint they
    come from. ``vireid evaluate`` scores it, and ``vireid search`` searches it. A file that is there already is
    renamed to the next free of ``embeddings_1.npz``, ``embeddings_2.npz``, ...

    Args:
        filename: Name of the file.
        allow_preprocessing_mismatch: Whether a checkpoint may be loaded for images of another size, interpolation or
            normalisation than it was trained on, or for another split or other files of the same dataset; the file says
            so.
        console: Where the path of the file is printed; null prints to the terminal.
    """

    def __init__(
        self,
        filename: str = "embeddings.npz",
        *,
        allow_preprocessing_mismatch: bool = False,
        console: Console | None = None,
    ) -> None:
        self.filename, self.console = filename, console
        self.allow_preprocessing_mismatch = allow_preprocessing_mismatch
        self._metric: RetrievalMetric | None = None
        self._provenance = Provenance()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a limit on batches that would leave images out of the file, and a folder that cannot be written.

        Raises:
            VIReIDError: If there is either.
        """
        if stage == "predict":
            require_all_batches(trainer, getattr(trainer, "datamodule", None), stage)
            require_writable(find_log_folder(trainer), "the embeddings")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what the file says of the checkpoint.

        Raises:
            VIReIDError: If the checkpoint was trained on images that were prepared in another way.
        """
        self._provenance.note_checkpoint(
            trainer, checkpoint, allow_preprocessing_mismatch=self.allow_preprocessing_mismatch
        )

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare an empty collection of embeddings."""
        samples = require_datamodule(trainer).eval_samples("test")
        if (weights := self._provenance.read_missed(trainer)) is not None:
            self.on_load_checkpoint(trainer, pl_module, weights)
        self._metric = RetrievalMetric(samples, []).to(pl_module.device)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        """Add a batch's embeddings."""
        if self._metric is not None:
            self._metric.update(outputs["embedding"], outputs["index"])

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the embeddings of all processes and write them."""
        if self._metric is None:
            return
        self._metric.sync()
        embeddings: Embeddings = self._metric.gathered()
        self._metric = None
        dataset = require_datamodule(trainer).dataset
        embeddings.about = self._provenance.describe(trainer, pl_module, "predict") | {
            "weights": fingerprint_weights(pl_module),
            "distance": dataset.distance,
        }
        if (root := getattr(dataset, "root", None)) is not None:
            embeddings.about["root"] = str(root.resolve())
        path = find_log_folder(trainer) / self.filename
        if trainer.is_global_zero:
            keep_earlier(path)
            embeddings.save(path)
            console = self.console or Console(soft_wrap=True)
            console.print(to_text(f"Embeddings of {len(embeddings):,} images: {path}"))
