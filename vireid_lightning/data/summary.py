"""What a run's summary says of its data, in plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vireid_lightning.data.samplers.choice import TrainingSampler
from vireid_lightning.data.samplers.modality import ModalitySampler
from vireid_lightning.types import Sample


def count_samples(samples: Sequence[Sample]) -> dict[str, int]:
    """Return the number of identities, visible and infrared images, and cameras; unknown ones are not counted."""
    modalities = Counter(sample.modality for sample in samples)
    return {
        "identities": len({sample.identity for sample in samples if sample.identity >= 0}),
        "visible": modalities[0],
        "infrared": modalities[1],
        "cameras": len({sample.camera for sample in samples if sample.camera >= 0}),
    }


def describe_batches(
    sampler: TrainingSampler, *, identities_per_batch: int, images_per_modality: int
) -> dict[str, int]:
    """Return the number of steps in an epoch and the shape of a batch.

    Args:
        sampler: Sampler of the training batches.
        identities_per_batch: P; not returned where batches are drawn without identities and labels.
        images_per_modality: K.
    """
    if isinstance(sampler, ModalitySampler):
        return {"steps_per_epoch": sampler.steps_per_epoch, "images_per_modality": sampler.images_per_modality}
    return {
        "steps_per_epoch": sampler.steps_per_epoch,
        "images_per_modality": images_per_modality,
        "identities_per_batch": identities_per_batch,
    }
