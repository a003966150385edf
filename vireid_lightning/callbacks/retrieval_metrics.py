"""Scores the embeddings that a method's validation and test steps return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from vireid_lightning.callbacks.run_files import (
    Provenance,
    find_results_folder,
    require_all_batches,
    require_datamodule,
)
from vireid_lightning.files import require_writable
from vireid_lightning.kinds import check_kinds, check_number
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.measures import MEASURES
from vireid_lightning.metrics.re_ranking import ReRanking
from vireid_lightning.metrics.results import ScoreTable, keep_earlier, write_details, write_results
from vireid_lightning.metrics.retrieval_metric import RetrievalMetric
from vireid_lightning.metrics.scores import ProtocolScores
from vireid_lightning.metrics.terminal import to_text


class RetrievalMetrics(Callback):
    """Logs, prints and writes retrieval scores, under the same names for every method.

    Feeds a :class:`~vireid_lightning.metrics.RetrievalMetric` with what ``validation_step`` and ``test_step`` return,
    ``{"embedding": (B, D), "index": (B,)}``. Samples and protocols come from the datamodule.

    Logged, in per cent, for every measure whose :class:`~vireid_lightning.metrics.measures.Measure` says so:
    ``val/rank1``, ``val/mAP``, ``val/mINP``; in a test ``test/<protocol>/rank1`` and so on for every protocol, and
    ``test/rank1``, ``test/mAP``, ``test/mINP`` of the dataset's default protocol.
    ``ModelCheckpoint(monitor="val/mAP", mode="max")`` works with every method.

    ``lightning validate`` and ``lightning test`` print the table and write ``results.json`` beside the checkpoint that
    was loaded, or into the run's log folder where there was none. ``results.json`` is always the newest: one that is
    there already is renamed to the next free of ``results_1.json``, ``results_2.json``, ... Of several processes each
    ranks its part of the queries, all have the scores of one, and the first prints and writes.

    Args:
        distance: Distance between embeddings, ``cosine`` or ``euclidean``; null takes the dataset's.
        block_mb: MiB that a block of distances may take.
        rerank: Whether a test also scores with k-reciprocal re-ranking, in rows of their own; settings other than the
            usual ones are given as ``{k1: 30, k2: 6, lambda_value: 0.3}``.
        allow_trial_mismatch: Whether a checkpoint may be scored on another trial of its dataset than it was trained on,
            whose test identities it may have been trained on; the result says so, and goes to
            ``results_trial_mismatch.json``.
        allow_preprocessing_mismatch: Whether a checkpoint may be loaded for images of another size, interpolation or
            normalisation than it was trained on, or for another split or other files of the same dataset; the result
            says so, and goes to ``results_preprocessing_mismatch.json`` or ``results_dataset_mismatch.json``.
        details: Whether each query's average precision and the whole CMC curves are written too, to an .npz file of
            the results' name and ``_details``; see :func:`~vireid_lightning.metrics.results.write_details`.
        console: Where the table is printed; null prints to the terminal.

    Attributes:
        table: The scores of the last validation or test.
        keep_embeddings: Whether a test's embeddings are kept, for another callback.
        embeddings: The embeddings of the last test, where they are kept.
    """

    def __init__(
        self,
        distance: Literal["cosine", "euclidean"] | None = None,
        *,
        block_mb: int = 256,
        rerank: bool | ReRanking = False,
        allow_trial_mismatch: bool = False,
        allow_preprocessing_mismatch: bool = False,
        details: bool = False,
        console: Console | None = None,
    ) -> None:
        check_kinds({"distance": distance, "rerank": rerank}, RetrievalMetrics.__init__)
        check_number("block_mb", block_mb, 1, whole=True)
        self.distance, self.block_mb, self.rerank = distance, block_mb, rerank
        self.allow_trial_mismatch, self.details = allow_trial_mismatch, details
        self.allow_preprocessing_mismatch = allow_preprocessing_mismatch
        self.console = console
        self.table: ScoreTable | None = None
        self.keep_embeddings = False
        self.embeddings: Embeddings | None = None
        self._metric: RetrievalMetric | None = None
        self._provenance = Provenance()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse limits on batches that would leave images out of the scores, and a folder that cannot be written.

        Raises:
            VIReIDError: If there is either.
        """
        require_all_batches(trainer, getattr(trainer, "datamodule", None), stage)
        if stage in ("validate", "test") and trainer.state.fn == stage:
            require_writable(find_results_folder(trainer), "the results")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what results say of the checkpoint: epochs trained, last or best, and the trial.

        Raises:
            VIReIDError: If the checkpoint was trained on another trial or other lists of the dataset that it is to be
                scored on, or on images that were prepared in another way.
        """
        self._provenance.note_checkpoint(
            trainer,
            checkpoint,
            allow_trial_mismatch=self.allow_trial_mismatch,
            allow_preprocessing_mismatch=self.allow_preprocessing_mismatch,
        )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare an empty metric."""
        self._start(trainer, pl_module, "validate")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare an empty metric."""
        self._start(trainer, pl_module, "test")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        """Add a batch's embeddings to the metric."""
        self._update(outputs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any) -> None:
        """Add a batch's embeddings to the metric."""
        self._update(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score and log; outside of training also print and write."""
        table = self._compute()
        if table is None:
            return
        pl_module.log_dict(_logged_scores("val", table[0]), prog_bar=True, sync_dist=True)
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, table, "validate")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score, log, print and write."""
        table = self._compute()
        if table is None:
            return
        default = getattr(require_datamodule(trainer).dataset, "default_protocol", None)
        scores: dict[str, float] = {}
        for row in table:
            scores |= _logged_scores(f"test/{row.name}", row)
            if row.name == default:
                scores |= _logged_scores("test", row)
        pl_module.log_dict(scores, sync_dist=True)
        self._report(trainer, pl_module, table, "test")

    def _start(self, trainer: Trainer, pl_module: LightningModule, stage: Literal["validate", "test"]) -> None:
        if trainer.sanity_checking:
            self._metric = None
            return
        datamodule = require_datamodule(trainer)
        if (weights := self._provenance.read_missed(trainer)) is not None:
            self.on_load_checkpoint(trainer, pl_module, weights)
        self._metric = RetrievalMetric(
            datamodule.eval_samples(stage),
            datamodule.protocols(stage),
            distance=self.distance or datamodule.dataset.distance,
            block_mb=self.block_mb,
            rerank=self.rerank if stage == "test" else False,
        ).to(pl_module.device)

    def _update(self, outputs: Mapping[str, Any]) -> None:
        if self._metric is not None:
            self._metric.update(outputs["embedding"], outputs["index"])

    def _compute(self) -> ScoreTable | None:
        if self._metric is None:
            return None
        self.table = self._metric.compute()
        if self.keep_embeddings:
            self._metric.sync()
            self.embeddings = self._metric.gathered()
        self._metric = None  # its embeddings may fill a good part of the device
        return self.table

    def _report(self, trainer: Trainer, pl_module: LightningModule, table: ScoreTable, stage: str) -> None:
        table.about = self._provenance.describe(trainer, pl_module, stage)
        folder = find_results_folder(trainer)
        if not trainer.is_global_zero:
            return
        path = folder / f"{name_marked('results', table.about)}.json"
        kept, details = keep_earlier(path), path.with_name(f"{path.stem}_details.npz")
        if kept is not None and details.exists():  # stays beside the results that it is of
            details.rename(kept.with_name(f"{kept.stem}_details.npz"))
        write_results(path, table.to_dict())
        if self.details:
            write_details(details, table)
        console = self.console or Console(soft_wrap=True)
        if trainer.progress_bar_callback is not None:
            console.print()  # the bar has not ended its line
        table.print(table.title, self.console)
        earlier = f" (the earlier ones: {kept.name})" if kept else ""
        console.print(to_text(f"Results: {path}{earlier}"))


def name_marked(name: str, about: Mapping[str, Any]) -> str:
    """Return the name of a result's file, which says where weights and data do not fit together."""
    marks = [mark for mark in ("trial_mismatch", "dataset_mismatch", "preprocessing_mismatch") if about[mark]]
    return "_".join([name, *marks])


def _logged_scores(prefix: str, row: ProtocolScores) -> dict[str, float]:
    return {f"{prefix}/{name}": row.mean(name) for name, measure in MEASURES.items() if measure.logged}
