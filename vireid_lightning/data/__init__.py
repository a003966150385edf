"""Datasets, samples, batches and the cross-modality DataModule."""

from __future__ import annotations

from vireid_lightning.data.batch import INFRARED, MODALITIES, UNKNOWN, VISIBLE, Batch, Sample
from vireid_lightning.data.dataset import ReIDDataset, Split
from vireid_lightning.data.llcm import LLCM
from vireid_lightning.data.manifest import Manifest
from vireid_lightning.data.market1501 import Market1501
from vireid_lightning.data.msmt17 import MSMT17
from vireid_lightning.data.regdb import RegDB
from vireid_lightning.data.sysu_mm01 import SYSUMM01
from vireid_lightning.data.sysu_mm02 import SYSUMM02

__all__ = [
    "INFRARED",
    "LLCM",
    "MODALITIES",
    "MSMT17",
    "SYSUMM01",
    "SYSUMM02",
    "UNKNOWN",
    "VISIBLE",
    "Batch",
    "Manifest",
    "Market1501",
    "ReIDDataset",
    "RegDB",
    "Sample",
    "Split",
]
