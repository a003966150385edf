"""Pixel classification and continuity: against loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses.pixel_classification import continuity_loss, pixel_classification_loss


def draw():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 8, 5, 4, generator=generator, requires_grad=True)
    return logits, torch.randint(0, 7, (2, 5, 4), generator=generator)


def cross_entropy(values, label):
    return torch.log(torch.exp(values.double()).sum()) - values[label].double()


def test_equals_loops_over_pixels():
    logits, mask = draw()
    ground, parts = [], []
    for image in range(2):
        for row in range(5):
            for column in range(4):
                label, values = mask[image, row, column].item(), logits[image, :, row, column]
                ground.append(cross_entropy(values[:2], int(label > 0)))
                if label:
                    parts.append(cross_entropy(values[2:], label - 1))
    wanted = torch.stack(ground).mean() + torch.stack(parts).mean()
    value = pixel_classification_loss(logits, mask)
    # Float32 rounding of logarithms near 1, averaged over 40 pixels.
    torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(value, logits), torch.autograd.grad(wanted, logits))


def test_background_alone_has_no_part_term():
    logits = torch.zeros(1, 8, 3, 3, requires_grad=True)
    value = pixel_classification_loss(logits, torch.zeros(1, 3, 3, dtype=torch.long))
    value.backward()
    assert value.item() == pytest.approx(math.log(2))
    assert torch.equal(logits.grad[:, 2:], torch.zeros(1, 6, 3, 3))


def test_a_mask_of_another_size_is_named():
    with pytest.raises(VIReIDError, match=r"\(1, 8, 3, 3\) and \(1, 3, 4\)"):
        pixel_classification_loss(torch.zeros(1, 8, 3, 3), torch.zeros(1, 3, 4, dtype=torch.long))


def test_continuity_equals_loops_over_neighbours():
    logits, _ = draw()
    vertical = [(logits[:, :, row + 1] - logits[:, :, row]).abs() for row in range(4)]
    horizontal = [(logits[..., column + 1] - logits[..., column]).abs() for column in range(3)]
    wanted = 0.5 * (torch.stack(vertical).mean() + torch.stack(horizontal).mean())
    torch.testing.assert_close(continuity_loss(logits), wanted)


def test_continuity_of_one_value_is_zero_and_of_a_single_row_counts_columns_only():
    assert continuity_loss(torch.full((2, 8, 5, 4), 3.0)) == 0
    row = torch.arange(4.0).view(1, 1, 1, 4)
    assert continuity_loss(row) == 0.5


@pytest.mark.parametrize("loss", [lambda x, m: pixel_classification_loss(x, m), lambda x, m: continuity_loss(x)])
def test_autocast_does_not_change_the_losses(loss):
    logits, mask = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss(logits, mask)
    assert torch.equal(low, loss(logits, mask))


def test_the_mean_of_two_halves_is_the_whole_where_each_knows_the_mean_count():
    logits, mask = draw()
    mask[0, 1:] = 0  # few pixels of the first image are foreground
    mean = (mask > 0).sum() / 2
    halves = [pixel_classification_loss(logits[i : i + 1], mask[i : i + 1], mean_count=lambda _: mean) for i in (0, 1)]
    torch.testing.assert_close(sum(halves) / 2, pixel_classification_loss(logits, mask))
    none = pixel_classification_loss(logits, torch.zeros_like(mask), mean_count=lambda count: count / 2)
    torch.testing.assert_close(none, pixel_classification_loss(logits, torch.zeros_like(mask)))
