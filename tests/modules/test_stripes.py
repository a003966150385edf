from __future__ import annotations

import itertools

import pytest
import torch

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.stripes import (
    PartHead,
    PermutationHead,
    draw_orders,
    invert_order,
    pool_stripes,
    require_stripes,
    shuffle_stripes,
)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_each_image_is_shuffled_in_an_order_of_its_own(memory_format):
    images = torch.randn(5, 3, 12, 4)
    order = draw_orders(5, 6, (0,))
    shuffled = shuffle_stripes(images.to(memory_format=memory_format), order)
    for image, result, stripes in zip(images, shuffled, order.tolist()):
        expected = torch.cat([image[:, 2 * stripe : 2 * stripe + 2] for stripe in stripes], dim=1)
        assert torch.equal(result, expected)


def test_the_inverse_restores_the_images():
    images = torch.randint(0, 256, (7, 3, 18, 5), dtype=torch.uint8)
    order = draw_orders(7, 6, (1,))
    assert torch.equal(shuffle_stripes(shuffle_stripes(images, order), invert_order(order)), images)
    identity = torch.arange(6).expand(7, 6)
    assert torch.equal(order.gather(1, invert_order(order)), identity)
    assert torch.equal(shuffle_stripes(images, identity), images)


def test_gradients_return_to_the_stripes_they_come_from():
    images = torch.zeros(1, 1, 6, 1, requires_grad=True)
    order = torch.tensor([[4, 2, 0, 5, 3, 1]])
    (shuffle_stripes(images, order).flatten() * torch.arange(6.0)).sum().backward()
    assert images.grad.flatten()[order[0]].tolist() == [0, 1, 2, 3, 4, 5]


def test_orders_follow_from_the_seed_and_are_independent():
    assert torch.equal(draw_orders(64, 6, (3, 1, 0, 7)), draw_orders(64, 6, (3, 1, 0, 7)))
    seeds = [(3, 1, 0, 7), (3, 1, 7, 0), (3, 0, 1, 7), (0, 3, 1, 7), (3, 1, 0, 8)]
    draws = {tuple(draw_orders(64, 6, seed).flatten().tolist()) for seed in seeds}
    assert len(draws) == len(seeds)
    before = torch.get_rng_state()
    draw_orders(64, 6, (0,))
    assert torch.equal(torch.get_rng_state(), before)


def test_orders_are_uniform():
    draws = draw_orders(12_000, 3, (0,))
    counts = [int((draws == torch.tensor(order)).all(1).sum()) for order in itertools.permutations(range(3))]
    assert sum(counts) == 12_000
    # Expected 2,000 with a deviation of sqrt(12000 * 1/6 * 5/6) = 41: five of them.
    assert all(abs(count - 2000) < 205 for count in counts)


def test_pooled_stripes_are_means():
    maps = torch.randn(2, 4, 12, 3)
    expected = torch.stack([part.mean((2, 3)) for part in maps.split(2, dim=2)], dim=2)
    torch.testing.assert_close(pool_stripes(maps, 6), expected)


def test_heads():
    maps = torch.randn(2, 8, 6, 3)
    head = PermutationHead(8, 6)
    assert head(maps).shape == (2, 6, 6)
    torch.testing.assert_close(head(maps)[1, 2, 3], head.linear(maps.mean((2, 3)))[1, 2 * 6 + 3])
    parts = PartHead(8, 6, 16)
    features = parts(maps)
    assert features.shape == (2, 6, 16)
    torch.testing.assert_close(features.norm(dim=2), torch.ones(2, 6))
    changed = maps.clone()
    changed[:, :, 3] += 1
    assert [not torch.equal(a, b) for a, b in zip(parts(changed)[0], features[0])] == [i == 3 for i in range(6)]


@pytest.mark.parametrize(
    ("height", "stride", "words"),
    [
        (256, 16, "multiple of 96, such as 192 or 288"),
        (144, 16, "the 9 rows of its map of stride 16; .* such as 96 or 192"),
        (50, 16, "such as 96 or 192"),
        (100, 1, "divide it; .* multiple of 6, such as 96 or 102"),
    ],
)
def test_a_height_that_does_not_fit_is_told_which_do(height, stride, words):
    with pytest.raises(VIReIDError, match=words):
        require_stripes(height, 6, stride=stride)


@pytest.mark.parametrize("height", [96, 288, 384])
def test_heights_that_fit(height):
    require_stripes(height, 6, stride=16)
    with pytest.raises(VIReIDError, match="height of 100"):
        shuffle_stripes(torch.zeros(1, 3, 100, 4), draw_orders(1, 6, (0,)))
    with pytest.raises(VIReIDError, match="8 rows"):
        pool_stripes(torch.zeros(1, 3, 8, 4), 6)
