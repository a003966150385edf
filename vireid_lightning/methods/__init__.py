"""The field's methods, one LightningModule a file."""

from vireid_lightning.methods.agw import AGW
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.baseline import Baseline
from vireid_lightning.methods.cmam import CMAM, SourceStage, TargetStage
from vireid_lightning.methods.dclnet import DCLNet
from vireid_lightning.methods.loading import load_method
from vireid_lightning.methods.mmgl import MMGL
from vireid_lightning.methods.mpanet import MPANet
from vireid_lightning.methods.optimization import Optimization

__all__ = [
    "AGW",
    "CMAM",
    "MMGL",
    "Baseline",
    "DCLNet",
    "MPANet",
    "Optimization",
    "ReIDModule",
    "SourceStage",
    "TargetStage",
    "load_method",
]
