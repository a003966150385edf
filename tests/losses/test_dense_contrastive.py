"""Dense contrastive loss: against the matrix version, in parts, at low precision and in degenerate batches."""

from __future__ import annotations

import pytest
import torch
from references.dense_contrastive import dense_contrastive_reference

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses import dense_contrastive
from vireid_lightning.losses.dense_contrastive import dense_contrastive_loss

# Float32: a cosine of C products errs by a few 1e-7, divided by t = 0.05 that is 1e-5 in an exponent, and the
# logarithms and gradients inherit it. 1e-4 (of the largest gradient) is the bound that the loss promises.
TOLERANCE = 1e-4


def draw(seed=0, pairs=3, channels=16, size=(12, 6), parts=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.rand(pairs, channels, *size, generator=generator).to(dtype).requires_grad_() for _ in range(2)]
    masks = [torch.randint(0, parts + 1, (pairs, *size), generator=generator) for _ in range(2)]
    return maps, masks


def value_and_gradients(loss, maps, masks, **options):
    maps = [m.detach().clone().requires_grad_() for m in maps]
    value = loss(*maps, *masks, **options)
    value.backward()
    return value.detach(), [m.grad for m in maps]


def assert_equal_to_reference(maps, masks, **options):
    value, gradients = value_and_gradients(dense_contrastive_loss, maps, masks, **options)
    wanted, wanted_gradients = value_and_gradients(
        dense_contrastive_reference, [m.float() for m in maps], masks, **options
    )
    assert value.dtype == torch.float32
    assert abs(value - wanted) < TOLERANCE * max(1, abs(wanted))
    for gradient, wanted_gradient, m in zip(gradients, wanted_gradients, maps):
        assert gradient.dtype == m.dtype
        # bfloat16 inputs get bfloat16 gradients: 8 significant bits, so rounding errs by up to 2**-8.
        relative = 2**-8 if m.dtype == torch.bfloat16 else 0
        bound = TOLERANCE * wanted_gradient.abs().max() + relative * wanted_gradient.abs()
        assert ((gradient.float() - wanted_gradient).abs() <= bound).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.02, 0.05, 1.0])
def test_equals_the_matrix_version(seed, temperature):
    assert_equal_to_reference(*draw(seed), temperature=temperature)


@pytest.mark.slow
def test_equals_the_matrix_version_at_the_size_of_the_paper():
    assert_equal_to_reference(*draw(pairs=1, channels=256, size=(72, 36)))


@pytest.mark.parametrize("elements", [1, 100, 500])
def test_blocks_of_any_size_give_the_same(monkeypatch, elements):
    monkeypatch.setattr(dense_contrastive, "_BLOCK_ELEMENTS", elements)
    assert_equal_to_reference(*draw())


def test_analytic_gradient_in_double_precision():
    maps, masks = draw(pairs=2, channels=4, size=(3, 2), parts=2, dtype=torch.float64)
    torch.autograd.gradcheck(lambda v, i: dense_contrastive_loss(v, i, *masks, temperature=0.5), maps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_bfloat16_autocast(dtype):
    maps, masks = draw(dtype=dtype)
    wanted, wanted_gradients = value_and_gradients(dense_contrastive_loss, maps, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradients = value_and_gradients(dense_contrastive_loss, maps, masks)
    assert torch.equal(value, wanted)
    assert all(torch.equal(a, b) for a, b in zip(gradients, wanted_gradients))
    assert_equal_to_reference(maps, masks)


def test_memory_formats_and_sizes_of_the_two_sides_may_differ():
    maps, masks = draw()
    narrow, narrow_masks = draw(seed=1, size=(10, 6))
    mixed = [maps[0].detach().to(memory_format=torch.channels_last), narrow[1].detach()]
    assert_equal_to_reference(mixed, [masks[0], narrow_masks[1]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool])
def test_integer_types_of_masks(dtype):
    maps, masks = draw(parts=1 if dtype == torch.bool else 6)
    assert_equal_to_reference(maps, [mask.to(dtype) for mask in masks])


def test_the_scale_of_a_feature_and_the_order_of_pairs_do_not_matter():
    maps, masks = draw()
    value = dense_contrastive_loss(*maps, *masks)
    assert dense_contrastive_loss(maps[0] * 1000, maps[1] / 1000, *masks).item() == pytest.approx(value.item(), 1e-5)
    flipped = dense_contrastive_loss(*(m.flip(0) for m in maps), *(mask.flip(0) for mask in masks))
    assert flipped.item() == pytest.approx(value.item(), 1e-5)
    swapped = dense_contrastive_loss(*maps[::-1], *masks[::-1])
    assert swapped.item() == pytest.approx(value.item(), 1e-5)


def test_a_part_that_one_side_lacks_does_not_count_there():
    maps, masks = draw(pairs=2)
    masks[0][0] = torch.where(masks[0][0] == 3, 0, masks[0][0])
    masks[1][1] = 0
    assert_equal_to_reference(maps, masks)


@pytest.mark.parametrize("labels", [(0, 0), (1, 2), (0, 1)])
def test_without_a_positive_the_loss_and_its_gradients_are_zero(labels):
    maps, masks = draw()
    value, gradients = value_and_gradients(
        dense_contrastive_loss, maps, [torch.full_like(mask, label) for mask, label in zip(masks, labels)]
    )
    assert value == 0
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


def test_without_a_pair_the_loss_is_zero():
    maps, masks = draw()
    value, gradients = value_and_gradients(dense_contrastive_loss, [m[:0] for m in maps], [m[:0] for m in masks])
    assert value == 0
    assert gradients[0].shape == (0, 16, 12, 6)


def test_all_of_one_part_costs_nothing():
    maps, masks = draw()
    value, gradients = value_and_gradients(dense_contrastive_loss, maps, [torch.ones_like(mask) for mask in masks])
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert all(gradient.abs().max() < 1e-5 for gradient in gradients)


def test_a_pixel_without_a_feature_gets_no_gradient():
    maps, masks = draw()
    with torch.no_grad():
        maps[0][0, :, 2, 3] = 0
        masks[0][0, 2, 3] = 1
    value, gradients = value_and_gradients(dense_contrastive_loss, maps, masks)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert torch.equal(gradients[0][0, :, 2, 3], torch.zeros(16))


def test_a_few_steps_lower_the_loss():
    maps, masks = draw()
    optimizer = torch.optim.SGD(maps, lr=5.0)
    values = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = dense_contrastive_loss(*maps, *masks)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.99 * values[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, i, m, n: (v[:2], i, m[:2], n), "in pairs"),
        (lambda v, i, m, n: (v, i, m[:, 1:], n), "visible mask"),
        (lambda v, i, m, n: (v, i, m, n.float()), "infrared mask is torch.float32"),
    ],
)
def test_bad_shapes_are_named(change, message):
    maps, masks = draw()
    with pytest.raises(VIReIDError, match=message):
        dense_contrastive_loss(*change(*maps, *masks))


def test_a_temperature_that_overflows_is_refused():
    maps, masks = draw()
    with pytest.raises(VIReIDError, match="above parts, which is 1"):
        dense_contrastive_loss(*maps, *(mask.fill_(2) for mask in masks), parts=1)
    with pytest.raises(VIReIDError, match=r"0\.001"):
        dense_contrastive_loss(*maps, *masks, temperature=0.001)


def test_the_mean_of_two_parts_is_the_whole_where_each_knows_the_mean_count():
    maps, masks = draw(pairs=3)
    masks[0][0, 2:] = 0
    counts = []
    whole = dense_contrastive_loss(*maps, *masks, mean_count=lambda count: counts.append(count) or count)
    gradients = torch.autograd.grad(whole, maps)
    parts = [
        dense_contrastive_loss(*(m[rows] for m in (*maps, *masks)), mean_count=lambda _: counts[0] / 2)
        for rows in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(sum(parts) / 2, whole)
    for gradient, wanted in zip(torch.autograd.grad(sum(parts) / 2, maps), gradients):
        torch.testing.assert_close(gradient, wanted)
