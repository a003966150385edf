from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from vireid_lightning.data.samplers.modality import ModalitySampler
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import Sample


def samples(visible: int = 40, infrared: int = 24, identity: int = -1) -> list[Sample]:
    modalities = [0] * visible + [1] * infrared
    return [Sample(f"{i}.jpg", identity, modality, 1) for i, modality in enumerate(modalities)]


def batches(sampler: ModalitySampler) -> np.ndarray:
    indices = np.array([draw.index for draw in sampler])
    return indices.reshape(sampler.steps_per_epoch, 2, -1)


def test_batches_hold_visible_then_infrared_images_in_equal_numbers():
    sampler = ModalitySampler(samples(), images_per_modality=8)
    assert isinstance(sampler, DistributedSampler)
    drawn = batches(sampler)
    assert drawn.shape == (3, 2, 8)
    assert (drawn[:, 0] < 40).all()
    assert (drawn[:, 1] >= 40).all()
    assert len(sampler) == drawn.size == 3 * sampler.batch_size


def test_an_epoch_shows_each_image_of_the_scarcer_modality_once_and_no_image_twice():
    drawn = batches(ModalitySampler(samples(), images_per_modality=8))
    assert sorted(drawn[:, 1].flat) == list(range(40, 64))
    assert len(set(drawn[:, 0].flat)) == 24


def test_longer_epochs_start_over_with_another_order():
    drawn = batches(ModalitySampler(samples(), images_per_modality=8, steps_per_epoch=6))
    first, second = drawn[:3, 1].flatten(), drawn[3:, 1].flatten()
    assert sorted(first) == sorted(second)
    assert first.tolist() != second.tolist()


def test_fewer_images_than_a_batch_are_repeated():
    drawn = batches(ModalitySampler(samples(5, 3), images_per_modality=8))
    assert drawn.shape == (1, 2, 8)


def test_draws_follow_from_seed_and_epoch_and_not_from_identities():
    first, second = (
        ModalitySampler(samples(), images_per_modality=8),
        ModalitySampler(samples(identity=7), images_per_modality=8),
    )
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)
    assert list(first) != list(ModalitySampler(samples(), images_per_modality=8, seed=1))


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_see_what_one_process_sees(ranks):
    whole = list(ModalitySampler(samples(), images_per_modality=8))
    shares = [ModalitySampler(samples(), images_per_modality=8, num_replicas=ranks, rank=rank) for rank in range(ranks)]
    assert all(len(share) == len(whole) // ranks for share in shares)
    assert sorted(draw for share in shares for draw in share) == sorted(whole)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"samples": samples(4, 0)}, "no infrared image"),
        ({"samples": samples(0, 4)}, "no visible image"),
        ({"num_replicas": 3}, "multiple of 3"),
        ({"images_per_modality": 0}, "cannot be split"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0"),
    ],
)
def test_bad_input_is_named(arguments, words):
    given = {"samples": samples(), "images_per_modality": 8} | arguments
    with pytest.raises(VIReIDError, match=words):
        ModalitySampler(given.pop("samples"), **given)
