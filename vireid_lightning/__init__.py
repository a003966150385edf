"""Visible-infrared person re-identification: the field's methods as LightningModules under one exact protocol."""

from __future__ import annotations

import importlib
import os
from typing import Any

# albumentations looks for a newer release of itself over the network when it is imported, unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"

# Public name -> module. Resolved on first use, so that `vireid --help` does not import torch.
_PUBLIC = {
    "CrossModalityDataModule": "vireid_lightning.data",
    "RetrievalMetric": "vireid_lightning.metrics",
    "RetrievalMetrics": "vireid_lightning.callbacks",
    "VIReIDError": "vireid_lightning.errors",
}

__all__ = ["CrossModalityDataModule", "RetrievalMetric", "RetrievalMetrics", "VIReIDError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
