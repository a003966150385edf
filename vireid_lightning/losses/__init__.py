"""Losses as functions on tensors, one a file: no batches, no modules, no settings but their arguments."""

from vireid_lightning.losses.asymmetric_mutual import (
    asymmetric_kl,
    asymmetric_similarity,
    similarity_difference,
    symmetric_kl_divergence,
)
from vireid_lightning.losses.batch_hard_triplet import batch_hard_triplet_loss
from vireid_lightning.losses.center_cluster import center_cluster_loss
from vireid_lightning.losses.circle_softmax import circle_softmax_logits
from vireid_lightning.losses.cluster_contrast import distance_difference, prototype_logits
from vireid_lightning.losses.cycle_contrastive import cycle_contrastive_loss, cycle_return_loss
from vireid_lightning.losses.dense_contrastive import dense_contrastive_loss
from vireid_lightning.losses.distances import euclidean_distances
from vireid_lightning.losses.modality_identity import modality_identity_loss
from vireid_lightning.losses.mutual_mean import mutual_mean_loss
from vireid_lightning.losses.permutation_recovery import (
    permutation_matrix,
    permutation_recovery_loss,
    recover_order,
    sinkhorn,
)
from vireid_lightning.losses.pixel_classification import continuity_loss, pixel_classification_loss
from vireid_lightning.losses.separation import separation_loss
from vireid_lightning.losses.weighted_regularized_triplet import weighted_regularized_triplet_loss

__all__ = [
    "asymmetric_kl",
    "asymmetric_similarity",
    "batch_hard_triplet_loss",
    "center_cluster_loss",
    "circle_softmax_logits",
    "continuity_loss",
    "cycle_contrastive_loss",
    "cycle_return_loss",
    "dense_contrastive_loss",
    "distance_difference",
    "euclidean_distances",
    "modality_identity_loss",
    "mutual_mean_loss",
    "permutation_matrix",
    "permutation_recovery_loss",
    "pixel_classification_loss",
    "prototype_logits",
    "recover_order",
    "separation_loss",
    "similarity_difference",
    "sinkhorn",
    "symmetric_kl_divergence",
    "weighted_regularized_triplet_loss",
]
