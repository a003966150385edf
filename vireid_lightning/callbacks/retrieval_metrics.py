"""Scores the embeddings that a method's validation and test steps return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from vireid_lightning.callbacks.run_files import Origin, require_datamodule, results_folder
from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.re_ranking import ReRanking
from vireid_lightning.metrics.results import ScoreTable, keep_earlier, write_results
from vireid_lightning.metrics.retrieval_metric import RetrievalMetric


class RetrievalMetrics(Callback):
    """Logs, prints and writes retrieval scores, under the same names for every method.

    Feeds a :class:`~vireid_lightning.metrics.RetrievalMetric` with what ``validation_step`` and ``test_step`` return,
    ``{"embedding": (B, D), "index": (B,)}``. Samples and protocols come from the datamodule.

    Logged, in per cent: ``val/rank1``, ``val/mAP``, ``val/mINP``; in a test ``test/<protocol>/rank1`` and so on for
    every protocol, and ``test/rank1``, ``test/mAP``, ``test/mINP`` of the dataset's default protocol.
    ``ModelCheckpoint(monitor="val/mAP", mode="max")`` works with every method.

    ``lightning validate`` and ``lightning test`` print the table and write ``results.json`` beside the checkpoint that
    was loaded, or into the run's log folder where there was none. ``results.json`` is always the newest: one that is
    there already is renamed to the next free of ``results_1.json``, ``results_2.json``, ... Under several processes all
    compute the same scores, and the first prints and writes.

    Args:
        distance: ``cosine`` or ``euclidean``; None: the dataset's.
        block_mb: MiB that a block of distances may take.
        rerank: Whether a test also scores with k-reciprocal re-ranking, in rows of their own; settings other than the
            usual ones as ``{k1: 30, k2: 6, lambda_value: 0.3}``.
        allow_trial_mismatch: Score a checkpoint on another trial of its dataset than it was trained on; such a result
            carries both numbers and ``trial_mismatch``, and goes to ``results_trial_mismatch.json``. Otherwise refused:
            another trial tests on training identities.
        console: Where the table is printed; the terminal by default.

    Attributes:
        table: The scores of the last validation or test.
    """

    def __init__(
        self,
        distance: Literal["cosine", "euclidean"] | None = None,
        *,
        block_mb: int = 256,
        rerank: bool | ReRanking = False,
        allow_trial_mismatch: bool = False,
        console: Console | None = None,
    ) -> None:
        self.distance, self.block_mb, self.rerank = distance, block_mb, rerank
        self.allow_trial_mismatch = allow_trial_mismatch
        self.console = console
        self.table: ScoreTable | None = None
        self._metric: RetrievalMetric | None = None
        self._origin = Origin()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember what results say of the checkpoint: epochs trained, last or best, and the trial.

        Raises:
            VIReIDError: If the checkpoint was trained on another trial of the dataset that it is to be scored on.
        """
        self._origin.remember(trainer, checkpoint)
        trained, tested = self._origin.loaded["trained_on_trial"], trainer.datamodule.dataset
        if self._origin.loaded["trial_mismatch"] and not self.allow_trial_mismatch:
            self._origin.forget()
            raise VIReIDError(
                f"{trainer.ckpt_path} was trained on trial {trained} of {tested.name}, but the data is trial "
                f"{tested.trial}, with identities that it was trained on; set --data.dataset.init_args.trial "
                f"{trained}, or give --allow-trial-mismatch to score it all the same, marked as such."
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
        """Take a batch's embeddings."""
        self._update(outputs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any) -> None:
        """Take a batch's embeddings."""
        self._update(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score, and log; outside of training also print and write."""
        table = self._compute()
        if table is None:
            return
        scores = {f"val/{score}": table[0].mean(score) for score in ("rank1", "mAP", "mINP")}
        pl_module.log_dict(scores, prog_bar=True, sync_dist=True)
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, table, "validate")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score, log, print and write."""
        table = self._compute()
        if table is None:
            return
        default = getattr(trainer.datamodule.dataset, "default_protocol", None)
        scores = {}
        for row in table:
            scores.update({f"test/{row.name}/{score}": row.mean(score) for score in ("rank1", "mAP", "mINP")})
            if row.name == default:
                scores.update({f"test/{score}": row.mean(score) for score in ("rank1", "mAP", "mINP")})
        pl_module.log_dict(scores, sync_dist=True)
        self._report(trainer, pl_module, table, "test")

    def _start(self, trainer: Trainer, pl_module: LightningModule, stage: Literal["validate", "test"]) -> None:
        if trainer.sanity_checking:
            self._metric = None
            return
        datamodule = trainer.datamodule
        require_datamodule(trainer)
        if (weights := self._origin.unseen(trainer)) is not None:
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
        self._metric = None  # its embeddings may fill a good part of the device
        return self.table

    def _report(self, trainer: Trainer, pl_module: LightningModule, table: ScoreTable, stage: str) -> None:
        table.about = self._origin.about(trainer, pl_module, stage)
        folder = results_folder(trainer)
        if not trainer.is_global_zero:
            return
        path = folder / ("results_trial_mismatch.json" if table.about["trial_mismatch"] else "results.json")
        kept = keep_earlier(path)
        write_results(path, table.to_dict())
        table.print(table.title, self.console)
        console = self.console or Console(soft_wrap=True)
        console.print(f"Results: {path}" + (f" (the earlier ones: {kept.name})" if kept else ""), highlight=False)
