"""The metric that collects embeddings, over batches and processes, and scores all protocols at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds, check_number
from vireid_lightning.metrics.distances import check_distance
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.re_ranking import ReRanking
from vireid_lightning.metrics.results import ScoreTable
from vireid_lightning.metrics.scoring import score_protocols
from vireid_lightning.metrics.sharing import ALL, Share
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import Sample


class RetrievalMetric(Metric):
    """Scores of all trials of all protocols, from one extraction of embeddings.

    Each process updates it with the batches that it saw. :meth:`compute` gathers them, of uneven numbers, drops images
    that came twice (a padded last batch), checks that none is missing and scores on the device of the embeddings. Each
    process ranks its part of the queries, and all return the same scores, those of one process.

    Args:
        samples: The images that ``index`` points into.
        protocols: What to score, as positions in ``samples``.
        distance: ``cosine`` or ``euclidean``, in float32 also under autocast.
        block_mb: MiB that a block of distances may take.
        rerank: Whether, or with which settings, to score each protocol with k-reciprocal re-ranking too, in rows of
            their own.
        kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = RetrievalMetric(samples, protocols)  # doctest: +SKIP
        >>> metric.update(embedding, index)  # doctest: +SKIP
        >>> metric.compute()["all/single/official"].mAP  # doctest: +SKIP
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    embedding: list[Tensor]
    index: list[Tensor]

    def __init__(
        self,
        samples: Sequence[Sample],
        protocols: Sequence[Protocol],
        *,
        distance: str = "cosine",
        block_mb: int = 256,
        rerank: bool | ReRanking = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_distance(distance)
        check_number("block_mb", block_mb, 1, whole=True)
        check_kinds({"rerank": rerank}, RetrievalMetric.__init__)
        self.samples, self.protocols = samples, tuple(protocols)
        self.distance, self.block_mb, self.rerank = distance, block_mb, rerank
        # Rows are held end to end: a process that saw no image can then take part in the gathering.
        self.add_state("embedding", default=[], dist_reduce_fx="cat")
        self.add_state("index", default=[], dist_reduce_fx="cat")

    def update(self, embedding: Tensor, index: Tensor) -> None:
        """Take a batch.

        Args:
            embedding: (B, D) embeddings.
            index: (B,) positions in ``samples``.
        """
        if embedding.ndim != 2 or index.shape != embedding.shape[:1]:
            raise VIReIDError(
                f"The metric takes embeddings (B, D) and their positions (B,), not {tuple(embedding.shape)} and "
                f"{tuple(index.shape)}."
            )
        self.embedding.append(embedding.detach().float().flatten())
        self.index.append(index.detach().to(embedding.device, torch.int64))

    def gathered(self) -> Embeddings:
        """Return the embeddings of all samples, once each and in their order.

        Raises:
            VIReIDError: If an image that a protocol needs (any, without protocols) is missing, or a value not finite.
        """
        index = dim_zero_cat(self.index) if len(self.index) else torch.empty(0, dtype=torch.int64)
        positions, first = np.unique(index.cpu().numpy(), return_index=True)
        used = [protocol.samples_used() for protocol in self.protocols] or [np.arange(len(self.samples))]
        needed = np.unique(np.concatenate(used))
        missing = np.setdiff1d(needed, positions)
        if len(missing):
            raise VIReIDError(
                f"{len(missing)} of the {len(needed)} images that are needed have no embedding, the first is "
                f"'{self.samples[int(missing[0])].path}'; run the whole split, "
                "without limit_val_batches, limit_test_batches or limit_predict_batches."
            )
        if positions[-1] >= len(self.samples) or positions[0] < 0:
            raise VIReIDError(
                f"The metric got an embedding for position {positions[-1]}, but there are {len(self.samples)} samples."
            )
        kept = torch.zeros(len(index), dtype=torch.bool)
        kept[torch.from_numpy(first)] = True
        return self._in_order(kept.to(index.device))

    def _in_order(self, kept: Tensor) -> Embeddings:
        """Put the embeddings that are kept into the order of the samples."""
        parts = zip(self.index, self.embedding) if isinstance(self.index, list) else [(self.index, self.embedding)]
        rows = torch.empty(0)
        for (index, embedding), chosen in zip(parts, kept.split(self._lengths())):
            values = embedding.view(len(index), -1)
            if not len(rows):
                rows = values.new_zeros(len(self.samples), values.shape[1])
            rows.index_copy_(0, index[chosen], values[chosen])
        return Embeddings(
            rows,
            [sample.identity for sample in self.samples],
            [sample.camera for sample in self.samples],
            [sample.modality for sample in self.samples],
            [sample.path for sample in self.samples],
            origin="the model",
        )

    def _lengths(self) -> list[int]:
        """Return the numbers of images of the batches."""
        return [len(index) for index in self.index] if isinstance(self.index, list) else [len(self.index)]

    def compute(self) -> ScoreTable:
        """Return the scores of all protocols.

        Raises:
            VIReIDError: As :meth:`gathered`; or if no query of a protocol has a match.
        """
        embeddings = self.gathered()
        return ScoreTable(
            score_protocols(
                embeddings,
                embeddings,
                self.protocols,
                distance=self.distance,
                block_mb=self.block_mb,
                rerank=self.rerank,
                share=Share.of_group() if self._is_synced else ALL,
            )
        )

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        if not self.index:
            self.embedding.append(torch.empty(0, device=self.device))
            self.index.append(torch.empty(0, dtype=torch.int64, device=self.device))
        super()._sync_dist(*args, **kwargs)
