"""Ranking, measures, the retrieval metric and re-ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vireid_lightning.lazy import lazily
from vireid_lightning.protocols import Protocol, Trial

if TYPE_CHECKING:
    from vireid_lightning.metrics.comparison import compare
    from vireid_lightning.metrics.embeddings import Embeddings
    from vireid_lightning.metrics.evaluation import evaluate, evaluate_file
    from vireid_lightning.metrics.re_ranking import ReRanking, re_rank
    from vireid_lightning.metrics.results import ScoreTable
    from vireid_lightning.metrics.retrieval_metric import RetrievalMetric
    from vireid_lightning.metrics.scores import ProtocolScores
    from vireid_lightning.metrics.scoring import score_protocols

__all__ = [
    "Embeddings",
    "Protocol",
    "ProtocolScores",
    "ReRanking",
    "RetrievalMetric",
    "ScoreTable",
    "Trial",
    "compare",
    "evaluate",
    "evaluate_file",
    "re_rank",
    "score_protocols",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Embeddings": "embeddings",
            "ProtocolScores": "scores",
            "ReRanking": "re_ranking",
            "RetrievalMetric": "retrieval_metric",
            "ScoreTable": "results",
            "compare": "comparison",
            "evaluate": "evaluation",
            "evaluate_file": "evaluation",
            "re_rank": "re_ranking",
            "score_protocols": "scoring",
        },
    )
