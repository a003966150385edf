"""MMGL: self-supervised pre-training on visible and infrared images (Wan et al., IEEE TIFS 2023)."""

from vireid_lightning.methods.mmgl.method import MMGL

__all__ = ["MMGL"]
