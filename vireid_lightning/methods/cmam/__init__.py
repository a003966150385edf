"""CMAM: asymmetric mutual learning, then cross-modality self-training (Wu et al., IEEE TCSVT 2024)."""

from vireid_lightning.methods.cmam.method import CMAM
from vireid_lightning.methods.cmam.schedule import SourceStage, TargetStage

__all__ = ["CMAM", "SourceStage", "TargetStage"]
