"""A test's report: as a page beside its results, and as images in its loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from vireid_lightning.callbacks.retrieval_metrics import RetrievalMetrics, name_marked
from vireid_lightning.callbacks.run_files import find_results_folder, require_datamodule
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.results import ScoreTable
from vireid_lightning.metrics.terminal import to_text
from vireid_lightning.report import ReportContent, collect, write_report
from vireid_lightning.report.logging import log_report
from vireid_lightning.report.requirements import require_packages


class WriteReport(Callback):
    """Shows what a test found: its scores, curves, a map of the embeddings and rank lists with their images.

    Does nothing unless told to. Needs the extra ``report``, and :class:`RetrievalMetrics` among the callbacks.

    Args:
        html: Whether a test writes ``report.html`` beside its ``results.json``, with the images of its rank lists in
            it; one that is there already is renamed to the next free of ``report_1.html``, ``report_2.html``, ...
        log: Whether a test sends curves, map and rank lists to the loggers that take images, W&B and TensorBoard.
        lists: Number of rank lists in each direction.
        max_mb: MiB that the page may take, images and all.
        console: Where the path of the page is printed; null prints to the terminal.
    """

    def __init__(
        self,
        html: bool = False,
        *,
        log: bool = False,
        lists: int = 100,
        max_mb: float = 16,
        console: Console | None = None,
    ) -> None:
        check_number("report.lists", lists, 1, whole=True)
        check_number("report.max_mb", max_mb, 0, above=True)
        # Lightning puts a function of its own into an attribute `log` of every callback.
        self.html, self.sends, self.lists, self.max_mb, self.console = html, log, lists, max_mb, console
        self._metrics: RetrievalMetrics | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for a test's embeddings, before it begins.

        Raises:
            VIReIDError: If a package of the extra ``report`` is missing, or nothing scores the test.
        """
        if stage not in ("fit", "test") or not (self.html or self.sends):
            return
        require_packages("jinja2", "matplotlib")  # before training, rather than after it
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it from outside of its class
        found = [callback for callback in callbacks if isinstance(callback, RetrievalMetrics)]
        if not found:
            raise VIReIDError("WriteReport shows what RetrievalMetrics scores; add RetrievalMetrics to the callbacks.")
        self._metrics = found[0] if stage == "test" else None
        found[0].keep_embeddings = stage == "test"

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and log, in the first process."""
        metrics = self._metrics
        folder = find_results_folder(trainer)
        if metrics is None or metrics.embeddings is None or metrics.table is None:
            return
        embeddings, metrics.embeddings = metrics.embeddings, None  # they may fill a good part of the device
        if not trainer.is_global_zero:
            return
        content = self._collect(trainer, embeddings, metrics.table)
        if self.html:
            path = folder / f"{name_marked('report', metrics.table.about)}.html"
            kept = write_report(path, content, max_mb=self.max_mb)
            earlier = f" (the earlier one: {kept.name})" if kept else ""
            (self.console or Console(soft_wrap=True)).print(to_text(f"Report: {path}{earlier}"))
        if self.sends:
            log_report(trainer.loggers, content, trainer.global_step)

    def _collect(self, trainer: Trainer, embeddings: Embeddings, table: ScoreTable) -> ReportContent:
        dataset = require_datamodule(trainer).dataset
        root: Any = getattr(dataset, "root", None)
        return collect(
            embeddings,
            table,
            default=getattr(dataset, "default_protocol", None),
            root=None if root is None else Path(root),
            outside=bool(getattr(dataset, "allow_outside", False)),
            names=getattr(dataset, "identity_names", None),
            training=_find_curves(trainer),
            lists=self.lists,
        )


def _find_curves(trainer: Trainer) -> Path | None:
    """Return the ``metrics.csv`` of the run that trained the weights, where it can be found."""
    places = [Path(logger.log_dir) for logger in trainer.loggers if isinstance(logger, CSVLogger)]
    if trainer.ckpt_path is not None:
        places.insert(0, Path(trainer.ckpt_path).resolve().parent.parent)
    return next((place / "metrics.csv" for place in places if (place / "metrics.csv").is_file()), None)
