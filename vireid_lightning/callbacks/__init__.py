"""Callbacks that every method shares."""

from __future__ import annotations

from vireid_lightning.callbacks.last_and_best import LastAndBest
from vireid_lightning.callbacks.retrieval_metrics import RetrievalMetrics
from vireid_lightning.callbacks.run_summary import RunSummary
from vireid_lightning.callbacks.save_embeddings import SaveEmbeddings
from vireid_lightning.callbacks.write_report import WriteReport

__all__ = ["LastAndBest", "RetrievalMetrics", "RunSummary", "SaveEmbeddings", "WriteReport"]
