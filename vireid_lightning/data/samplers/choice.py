"""The sampler of each kind of training batch that a method can ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vireid_lightning.data.samplers.identity import IdentitySampler
from vireid_lightning.data.samplers.modality import ModalitySampler
from vireid_lightning.data.samplers.pseudo_label import PseudoLabelSampler
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import Sample

#: ``identity``: P identities with K visible and K infrared images each. ``modality``: equal numbers of visible and
#: infrared images, drawn without identities. ``pseudo_label``: P pseudo labels, which the method assigns at the start
#: of every epoch, with K images of each modality.
BatchKind = Literal["identity", "modality", "pseudo_label"]

TrainingSampler = IdentitySampler | ModalitySampler | PseudoLabelSampler


def build_sampler(
    kind: BatchKind,
    samples: Sequence[Sample],
    *,
    identities_per_batch: int,
    images_per_modality: int,
    steps_per_epoch: int | None,
    num_replicas: int,
    rank: int,
    seed: int,
) -> TrainingSampler:
    """Return the sampler that draws one kind of training batch.

    Args:
        kind: The kind of batch.
        samples: The training samples.
        identities_per_batch: P, over all ranks.
        images_per_modality: K; batches without identities hold P * K images of each modality.
        steps_per_epoch: Length of an epoch; None: what the sampler makes of the number of images.
        num_replicas: Number of processes.
        rank: This process.
        seed: Seed of all draws.

    Raises:
        VIReIDError: Batches of this kind and size cannot be drawn from these samples on these processes.
    """
    if kind == "pseudo_label":
        if steps_per_epoch is None:
            raise VIReIDError("steps_per_epoch is not set: give the number of steps between two clusterings.")
        return PseudoLabelSampler(steps_per_epoch=steps_per_epoch, num_replicas=num_replicas, rank=rank, seed=seed)
    if kind == "modality":
        return ModalitySampler(
            samples,
            images_per_modality=identities_per_batch * images_per_modality,
            steps_per_epoch=steps_per_epoch,
            num_replicas=num_replicas,
            rank=rank,
            seed=seed,
        )
    return IdentitySampler(
        samples,
        identities_per_batch=identities_per_batch,
        images_per_modality=images_per_modality,
        steps_per_epoch=steps_per_epoch,
        num_replicas=num_replicas,
        rank=rank,
        seed=seed,
    )
