"""Ranking, protocols, the retrieval metric and re-ranking."""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module, resolved on first use: datasets import protocols, and to list files they need no torchmetrics.
_LAZY = {
    "BlockScorer": "ranking",
    "Embeddings": "embeddings",
    "Protocol": "protocols",
    "ProtocolScores": "scores",
    "ReRanking": "re_ranking",
    "RetrievalMetric": "retrieval_metric",
    "ScoreTable": "results",
    "Trial": "protocols",
    "evaluate": "evaluation",
    "evaluate_file": "evaluation",
    "re_rank": "re_ranking",
    "score_protocols": "scoring",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
