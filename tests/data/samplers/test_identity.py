from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vireid_lightning.data.samplers.evaluation import EvaluationSampler
from vireid_lightning.data.samplers.identity import IdentitySampler
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import Sample


def make_samples(counts):
    return [
        Sample(f"{identity}/{modality}/{number}", identity, modality, 1)
        for identity, by_modality in counts.items()
        for modality in (0, 1)
        for number in range(by_modality[modality])
    ]


GENERATOR = np.random.default_rng(3)
COUNTS = {10 * i: (int(GENERATOR.integers(1, 20)), int(GENERATOR.integers(1, 12))) for i in range(1, 30)}
SAMPLES = make_samples(COUNTS)


def make_sampler(samples=SAMPLES, p=6, k=3, **options):
    return IdentitySampler(samples, identities_per_batch=p, images_per_modality=k, **options)


def batches(sampler):
    draws = list(sampler)
    return [draws[start : start + sampler.batch_size] for start in range(0, len(draws), sampler.batch_size)]


def test_layout_of_a_batch():
    sampler = make_sampler()
    assert sampler.batch_size == 36
    assert len(batches(sampler)) == sampler.steps_per_epoch
    assert len(list(sampler)) == len(sampler)
    for batch in batches(sampler):
        visible, infrared = ([SAMPLES[draw.index] for draw in half] for half in (batch[:18], batch[18:]))
        assert {sample.modality for sample in visible} == {0}
        assert {sample.modality for sample in infrared} == {1}
        assert [sample.identity for sample in visible] == [sample.identity for sample in infrared]
        assert set(Counter(sample.identity for sample in visible).values()) == {3}


def test_an_image_repeats_in_a_draw_only_where_there_are_fewer_than_k():
    sampler = make_sampler(steps_per_epoch=40)
    for batch in batches(sampler):
        for half in (batch[:18], batch[18:]):
            for start in range(0, 18, 3):
                drawn = [draw.index for draw in half[start : start + 3]]
                sample = SAMPLES[drawn[0]]
                # All of an identity's images where it has at most K, each as often as any other but for one.
                assert len(set(drawn)) == min(3, COUNTS[sample.identity][sample.modality])


def test_images_of_an_identity_are_used_evenly():
    used = Counter(draw.index for draw in make_sampler(steps_per_epoch=60))
    for identity in COUNTS:
        for modality in (0, 1):
            counts = [
                used[position]
                for position, sample in enumerate(SAMPLES)
                if (sample.identity, sample.modality) == (identity, modality)
            ]
            assert max(counts) - min(counts) <= 1


def test_default_epoch_sees_the_scarcer_modality_about_once():
    sampler = make_sampler()
    scarcer = {identity: min(by_modality) for identity, by_modality in COUNTS.items()}
    assert sampler.steps_per_epoch == round(sum(scarcer.values()) / 18)
    drawn = Counter(
        SAMPLES[draw.index].identity for epoch in range(50) for batch in epochs(sampler, epoch) for draw in batch[:18]
    )
    total = 50 * sampler.steps_per_epoch * 18
    for identity, count in scarcer.items():
        expected = total * count / sum(scarcer.values())
        # In each epoch an identity's number of draws of 3 is its share rounded up or down, so its standard deviation is
        # at most 1/2: over 50 epochs 5 standard deviations are 3 * 5 * sqrt(50) / 2 = 53.
        assert abs(drawn[identity] - expected) < 53
        assert expected < 1.3 * 50 * count


def epochs(sampler, epoch):
    sampler.set_epoch(epoch)
    return batches(sampler)


def test_steps_are_at_least_one_and_may_be_set():
    assert make_sampler(make_samples({1: (1, 1), 2: (1, 1)}), p=2, k=8).steps_per_epoch == 1
    assert make_sampler(steps_per_epoch=7).steps_per_epoch == 7


def test_all_identities_in_every_step_when_p_is_their_number():
    samples = make_samples({1: (9, 9), 2: (2, 1), 3: (3, 5)})
    for batch in batches(make_sampler(samples, p=3, k=2, steps_per_epoch=5)):
        assert {samples[draw.index].identity for draw in batch} == {1, 2, 3}


def test_an_identity_with_most_images_is_not_drawn_twice_in_a_step():
    samples = make_samples({1: (1000, 1000), 2: (2, 2), 3: (2, 2), 4: (2, 2)})
    for batch in batches(make_sampler(samples, p=2, k=2, steps_per_epoch=30)):
        identities = [samples[draw.index].identity for draw in batch]
        assert len(set(identities)) == 2
        assert 1 in identities


def test_draws_follow_from_seed_and_epoch():
    first = list(make_sampler(seed=1))
    assert first == list(make_sampler(seed=1))
    assert first != list(make_sampler(seed=2))
    sampler = make_sampler(seed=1)
    sampler.set_epoch(3)
    third = list(sampler)
    assert third != first
    assert not {draw.seed for draw in third} & {draw.seed for draw in first}
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_seeds_of_an_epoch_differ():
    seeds = [draw.seed for draw in make_sampler(steps_per_epoch=50)]
    assert len(set(seeds)) == len(seeds)


def test_epoch_may_be_set_after_the_iterator_is_made():
    sampler, other = make_sampler(), make_sampler()
    iterator = iter(sampler)
    sampler.set_epoch(4)
    other.set_epoch(4)
    assert list(iterator) == list(other)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_no_identity_and_together_draw_what_one_process_draws(world):
    whole = batches(make_sampler(seed=5))
    parts = [batches(make_sampler(seed=5, num_replicas=world, rank=rank)) for rank in range(world)]
    for step, batch in enumerate(whole):
        of_ranks = [part[step] for part in parts]
        identities = [{SAMPLES[draw.index].identity for draw in part} for part in of_ranks]
        assert [len(found) for found in identities] == [6 // world] * world
        assert len(set.union(*identities)) == 6
        assert sorted(draw for part in of_ranks for draw in part) == sorted(batch)
        for part in of_ranks:
            half = len(part) // 2
            assert [SAMPLES[draw.index].identity for draw in part[:half]] == [
                SAMPLES[draw.index].identity for draw in part[half:]
            ]


def test_identities_without_a_modality_are_excluded_with_their_number():
    samples = make_samples({1: (2, 2), 2: (2, 0), 3: (0, 2), 4: (3, 3), 5: (4, 0)})
    with pytest.warns(UserWarning, match="3 of 5 training identities .* 1 have no visible and 2 no infrared image"):
        sampler = make_sampler(samples, p=2)
    assert {samples[draw.index].identity for draw in sampler} == {1, 4}


def test_unknown_identities_are_not_drawn():
    samples = make_samples({1: (2, 2), -1: (5, 5), 4: (3, 3)})
    assert {samples[draw.index].identity for draw in make_sampler(samples, p=2)} == {1, 4}


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        (COUNTS, {"p": 1}, "set 2 or more"),
        (COUNTS, {"p": 40}, "only 29 identities .* set identities_per_batch to 29 or fewer"),
        ({1: (5, 5)}, {"p": 2}, "1 identity with both"),
        ({}, {"p": 2}, "0 identities with both"),
        (COUNTS, {"p": 6, "num_replicas": 4}, "multiple of 4"),
        (COUNTS, {"k": 0}, "images_per_modality is 0"),
        (COUNTS, {"steps_per_epoch": 0}, "steps_per_epoch is 0"),
    ],
)
def test_impossible_batches_are_refused(counts, options, message):
    with pytest.raises(VIReIDError, match=message):
        make_sampler(make_samples(counts), **options)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_evaluation_deals_every_position_once(world):
    dealt = [list(EvaluationSampler(range(7), num_replicas=world, rank=rank)) for rank in range(world)]
    assert dealt[0] == list(range(0, 7, world))
    assert sorted(position for part in dealt for position in part) == list(range(7))
    for rank, part in enumerate(dealt):
        assert len(EvaluationSampler(range(7), num_replicas=world, rank=rank)) == len(part)
