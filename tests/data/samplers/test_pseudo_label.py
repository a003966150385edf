"""Batches of pseudo identities: their shape, their shares, their ranks, and what they follow from."""

from __future__ import annotations

import numpy as np
import pytest

from vireid_lightning.data.samplers.pseudo_label import PseudoLabelSampler
from vireid_lightning.errors import VIReIDError

LABELS = np.array([0, 0, 0, 1, 2, 2, -1, 0, 0, 1, 1, 2, -1, 3])
MODALITY = np.array([0] * 7 + [1] * 7)


def assigned(labels=LABELS, modality=MODALITY, *, identities=2, images=2, steps=6, offset=0, **options):
    sampler = PseudoLabelSampler(steps_per_epoch=steps, **options)
    sampler.assign(labels, modality, identities_per_batch=identities, images_per_modality=images, offset=offset)
    return sampler


def test_a_batch_is_visible_then_infrared_and_image_i_of_either_half_has_the_same_label():
    batches = list(assigned())
    assert len(batches) == 6
    for batch in batches:
        rows = np.array([draw.index for draw in batch]).reshape(2, 2, 2)  # modality, label, image
        assert (MODALITY[rows[0]] == 0).all()
        assert (MODALITY[rows[1]] == 1).all()
        assert (LABELS[rows[0]] == LABELS[rows[1]]).all()
        assert (LABELS[rows[0]] == LABELS[rows[0]][:, :1]).all()
        assert len(set(LABELS[rows[0]][:, 0])) == 2


def test_outliers_and_labels_of_one_modality_are_never_drawn():
    drawn = {draw.index for batch in assigned(steps=50) for draw in batch}
    assert drawn == {row for row in range(14) if LABELS[row] in (0, 1, 2)}


def test_every_label_is_drawn_as_often_as_any_other_and_so_is_every_image_of_it():
    plan = assigned(steps=9).plan(0)  # 18 draws of 3 labels, 2 images of a modality each
    labels, counts = np.unique(LABELS[plan[:, 0, :, 0]], return_counts=True)
    assert labels.tolist() == [0, 1, 2]
    assert counts.tolist() == [6, 6, 6]
    assert np.bincount(plan[:, 0].ravel(), minlength=7)[:6].tolist() == [4, 4, 4, 12, 6, 6]


def test_labels_that_no_modality_shares_are_drawn_for_each_on_its_own():
    labels = np.where((MODALITY == 1) & (LABELS >= 0), LABELS + 10, LABELS)
    plan = assigned(labels).plan(0)
    assert set(labels[plan[:, 0]].ravel()) == {0, 1, 2}
    assert set(labels[plan[:, 1]].ravel()) == {10, 11, 12, 13}


def test_one_modality_gives_batches_of_it_alone():
    assert assigned(LABELS[:7], MODALITY[:7], identities=3).plan(0).shape == (6, 1, 3, 2)


def test_fewer_labels_than_a_batch_has_are_repeated_in_it():
    plan = assigned(LABELS[:7], MODALITY[:7], identities=4).plan(0)
    assert all(set(LABELS[step[0, :, 0]]) == {0, 1, 2} for step in plan)


def test_ranks_together_draw_what_one_process_draws():
    whole = [[*batch] for batch in assigned(identities=2, steps=4)]
    ranks = [[*assigned(identities=2, steps=4, num_replicas=2, rank=rank)] for rank in range(2)]
    for step, batch in enumerate(whole):
        assert sorted(batch) == sorted(draw for rank in ranks for draw in rank[step])
        labels = [{LABELS[draw.index] for draw in rank[step]} for rank in ranks]
        assert not labels[0] & labels[1]


def test_draws_follow_from_seed_and_epoch():
    first, again, other = assigned(seed=3), assigned(seed=3), assigned(seed=4)
    assert list(first) == list(again)
    assert list(first) != list(other)
    first.set_epoch(1)
    assert list(first) != list(again)
    again.set_epoch(1)
    assert list(first) == list(again)


@pytest.mark.parametrize("offset", [0, 100])
def test_every_draw_carries_its_label(offset):
    draws = [draw for batch in assigned(offset=offset) for draw in batch]
    assert [draw.label for draw in draws] == [LABELS[draw.index - offset] for draw in draws]


def test_positions_are_moved_by_the_offset():
    assert np.array_equal(assigned(offset=100).plan(2), assigned().plan(2) + 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identities": 1}, "at least 2 pseudo identities"),
        ({"images": 0}, "at least 1 image"),
        ({"identities": 3, "num_replicas": 2}, "cannot be drawn on 2 processes"),
        ({"labels": np.where(MODALITY == 1, -1, LABELS)}, "no image with a pseudo label"),
        ({"steps": 0}, "steps_per_epoch is 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(VIReIDError, match=message):
        assigned(**options)


def test_without_labels_nothing_is_drawn_and_the_message_says_when_that_happens():
    with pytest.raises(VIReIDError, match="resumed in the middle"):
        list(PseudoLabelSampler(steps_per_epoch=2))
