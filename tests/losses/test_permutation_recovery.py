from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from references.sinkhorn import permutation_recovery_reference, sinkhorn_reference

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses.permutation_recovery import (
    permutation_matrix,
    permutation_recovery_loss,
    recover_order,
    sinkhorn,
)

ORDERS = torch.tensor([[2, 0, 1, 5, 4, 3], [0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]])


def scores(count: int = 3, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(count, 6, 6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_sinkhorn_agrees_with_a_float64_reference(scale):
    logits = scores(8, scale)
    expected = np.stack([sinkhorn_reference(matrix) for matrix in logits.numpy()])
    # 40 log-softmaxes of values up to about 10 * scale, each rounded to 2**-24 of them: an entry of at most 1 has a
    # logarithm, and hence a relative error, of 40 * 2**-24 * 10 * scale in the worst case.
    bound = 40 * 2**-24 * 10 * max(scale, 1.0)
    np.testing.assert_allclose(sinkhorn(logits).numpy(), expected, atol=bound, rtol=0)
    # In float64 the same argument gives 2**-53.
    np.testing.assert_allclose(sinkhorn(logits.double()).numpy(), expected, atol=bound * 2**-29, rtol=0)


def test_sinkhorn_is_doubly_stochastic():
    soft = sinkhorn(scores(64))
    for dim in (1, 2):
        torch.testing.assert_close(soft.sum(dim), torch.ones(64, 6), atol=1e-4, rtol=0)
    assert soft.min() >= 0


def test_sinkhorn_needs_only_more_rounds_for_larger_scores():
    logits = scores(8, 5.0)
    assert (sinkhorn(logits).sum(2) - 1).abs().max() > (sinkhorn(logits, rounds=200).sum(2) - 1).abs().max()


def test_sinkhorn_at_logits_of_100_has_finite_values_and_gradients():
    logits = (100 * torch.randn(16, 6, 6).sign()).requires_grad_()
    order = torch.stack([torch.randperm(6) for _ in range(16)])
    loss = permutation_recovery_loss(logits, order)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_sinkhorn_does_not_change_with_offsets_of_rows_and_columns():
    logits = scores(4)
    shifted = logits + torch.randn(4, 6, 1) + torch.randn(4, 1, 6)
    # 20 rounds leave a small rest of the starting point; 200 leave rounding alone (see above, 400 log-softmaxes).
    torch.testing.assert_close(
        sinkhorn(logits, rounds=200), sinkhorn(shifted, rounds=200), atol=400 * 2**-24 * 10, rtol=0
    )


def test_a_lower_temperature_is_a_larger_score():
    logits = scores(4)
    torch.testing.assert_close(sinkhorn(logits, temperature=0.5), sinkhorn(2 * logits))


def test_the_loss_agrees_with_the_reference():
    logits = scores()
    expected = permutation_recovery_reference(logits.numpy(), ORDERS.numpy())
    assert permutation_recovery_loss(logits, ORDERS).item() == pytest.approx(expected, abs=40 * 2**-24 * 10)


def test_the_gradient_agrees_with_differences_of_the_reference():
    logits = scores(2).double().requires_grad_()
    permutation_recovery_loss(logits, ORDERS[:2]).backward()
    step = 1e-5
    for place in ((0, 0, 0), (0, 3, 5), (1, 5, 2)):
        values = []
        for sign in (1, -1):
            moved = logits.detach().clone()
            moved[place] += sign * step
            values.append(permutation_recovery_reference(moved.numpy(), ORDERS[:2].numpy()))
        # Central differences: step**2 times the third derivative (below 1), and 2**-53 / step of rounding.
        assert logits.grad[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-9)


def test_the_true_permutation_gives_the_smallest_loss():
    logits = 3 * permutation_matrix(ORDERS[:1]).float() + 0.1 * torch.randn(1, 6, 6)
    losses = {
        order: permutation_recovery_loss(logits, torch.tensor([order])).item()
        for order in itertools.permutations(range(6))
    }
    assert min(losses, key=losses.get) == tuple(ORDERS[0].tolist())


def test_the_bounds_of_the_loss():
    certain = 200 * permutation_matrix(ORDERS).float()
    assert permutation_recovery_loss(certain, ORDERS).item() == pytest.approx(0, abs=1e-10)
    assert permutation_recovery_loss(torch.zeros(3, 6, 6), ORDERS).item() == pytest.approx(5 / 36)
    assert permutation_recovery_loss(certain, ORDERS.roll(1, 1)).item() == pytest.approx(2 / 6)


def test_each_image_has_an_order_of_its_own():
    logits = scores()
    each = [permutation_recovery_loss(logits[i : i + 1], ORDERS[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(permutation_recovery_loss(logits, ORDERS), torch.stack(each).mean())


def test_an_empty_batch_costs_nothing():
    logits = torch.zeros(0, 6, 6, requires_grad=True)
    loss = permutation_recovery_loss(logits, torch.zeros(0, 6, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert recover_order(logits).shape == (0, 6)


def test_half_precision_is_computed_in_float32():
    logits = scores().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        soft = sinkhorn(logits)
    assert soft.dtype == torch.float32
    torch.testing.assert_close(soft, sinkhorn(logits.float()), rtol=0, atol=0)


def test_a_few_steps_lower_the_loss():
    logits = scores().requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=20.0)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = permutation_recovery_loss(logits, ORDERS)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(recover_order(sinkhorn(logits)), ORDERS)


def test_recovery_is_the_exact_assignment():
    soft = sinkhorn(scores(5, 2.0))
    for matrix, found in zip(soft, recover_order(soft)):
        sums = {
            order: sum(matrix[i, s].item() for i, s in enumerate(order)) for order in itertools.permutations(range(6))
        }
        assert tuple(found.tolist()) == max(sums, key=sums.get)


def test_the_row_is_the_place_and_the_column_the_stripe():
    assert permutation_matrix(torch.tensor([[1, 2, 0]])).tolist() == [[[0, 1, 0], [0, 0, 1], [1, 0, 0]]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sinkhorn(torch.zeros(2, 3, 4)), "square"),
        (lambda: sinkhorn(torch.zeros(3, 3), rounds=0), "rounds is 0; give a whole number from 1"),
        (lambda: sinkhorn(torch.zeros(3, 3), temperature=0), "temperature"),
        (lambda: permutation_recovery_loss(torch.zeros(2, 6, 6), ORDERS), r"\(2, 6, 6\)"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(VIReIDError, match=words):
        call()
