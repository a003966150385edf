"""Visible-infrared person re-identification: the field's methods as LightningModules under one exact protocol."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vireid_lightning.lazy import lazily
from vireid_lightning.version import __version__

if TYPE_CHECKING:
    from vireid_lightning.callbacks import RetrievalMetrics
    from vireid_lightning.data import CrossModalityDataModule
    from vireid_lightning.errors import VIReIDError
    from vireid_lightning.metrics import RetrievalMetric

# albumentations looks for a newer release of itself over the network when it is imported, unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__all__ = ["CrossModalityDataModule", "RetrievalMetric", "RetrievalMetrics", "VIReIDError", "__version__"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "CrossModalityDataModule": "data",
            "RetrievalMetric": "metrics",
            "RetrievalMetrics": "callbacks",
            "VIReIDError": "errors",
        },
    )
