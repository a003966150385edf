"""Losses, one a file, as functions on tensors."""

from vireid_lightning.losses.dense_contrastive import dense_contrastive_loss
from vireid_lightning.losses.pixel_classification import continuity_loss, pixel_classification_loss
from vireid_lightning.losses.weighted_regularized_triplet import weighted_regularized_triplet_loss

__all__ = [
    "continuity_loss",
    "dense_contrastive_loss",
    "pixel_classification_loss",
    "weighted_regularized_triplet_loss",
]
