from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references.cycle_contrastive import cycle_contrastive_reference, cycle_return_reference

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses.cycle_contrastive import cycle_contrastive_loss, cycle_return_loss


def parts(visible: int, infrared: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(count, 16, dtype=dtype).requires_grad_() for count in (visible, infrared))


@pytest.mark.parametrize(("visible", "infrared"), [(12, 12), (6, 18), (12, 6), (1, 6), (6, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_values_and_gradients_agree_with_a_slow_loop(visible, infrared, temperature):
    ours, theirs = parts(visible, infrared), None
    theirs = tuple(tensor.detach().clone().requires_grad_() for tensor in ours)
    loss = cycle_contrastive_loss(*ours, temperature=temperature)
    reference = cycle_contrastive_reference(*theirs, temperature=temperature)
    loss.backward()
    reference.backward()
    # float64: sums of under 400 terms, exponents up to 1 / 0.07 = 14: 1e-12 is more than a thousand times 2**-53 * 14.
    torch.testing.assert_close(loss, reference, rtol=1e-12, atol=1e-12)
    for mine, expected in zip(ours, theirs):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-10, atol=1e-12)


def test_float32_and_autocast_agree_with_float64():
    exact = parts(12, 12)
    loss = cycle_contrastive_loss(*exact)
    single = [part.detach().float() for part in exact]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cycle_contrastive_loss(*single)
    assert found.dtype == torch.float32
    # Cosines rounded to 2**-24, divided by 0.07 twice in a row, averaged over exponents: about 1e-6 * 15 * 15 / 16.
    assert found.item() == pytest.approx(loss.item(), abs=2**-24 / 0.07**2 * 4)


def test_a_query_never_retrieves_itself():
    # Two orthogonal parts in each modality. With itself left out, visible part 0 can only answer with part 1, which
    # disagrees with what it finds in the infrared; were it a candidate, all retrievals would agree and cost nothing.
    directions = torch.eye(4)[:2]
    assert cycle_contrastive_loss(directions, directions).item() > 5
    doubled = directions.repeat(2, 1)
    assert cycle_contrastive_loss(doubled, doubled).item() < cycle_contrastive_loss(directions, directions).item()


def test_the_loss_is_symmetric_in_the_modalities_and_blind_to_order_and_length():
    visible, infrared = parts(12, 6)
    loss = cycle_contrastive_loss(visible, infrared)
    torch.testing.assert_close(cycle_contrastive_loss(infrared, visible), loss)
    torch.testing.assert_close(cycle_contrastive_loss(visible[torch.randperm(12)], infrared), loss)
    torch.testing.assert_close(cycle_contrastive_loss(3 * visible, 0.1 * infrared), loss)


@pytest.mark.parametrize(("visible", "infrared"), [(0, 6), (6, 0), (0, 0), (1, 1)])
def test_without_two_queries_it_is_zero_with_gradients_of_zero(visible, infrared):
    tensors = parts(visible, infrared)
    loss = cycle_contrastive_loss(*tensors)
    loss.backward()
    assert loss.item() == 0
    assert all(not tensor.grad.any() for tensor in tensors)


def test_one_modality_with_one_image_is_finite():
    visible, infrared = parts(6, 36, torch.float32)
    loss = cycle_contrastive_loss(visible, infrared)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(part.grad).all() for part in (visible, infrared))


def test_aligned_parts_cost_less_than_modalities_apart():
    centres = torch.eye(6).repeat_interleave(4, 0)
    aligned = [F.pad(centres, (0, 10)) + 0.05 * torch.randn(24, 16) for _ in range(2)]
    apart = aligned[0], torch.roll(aligned[1], 6, 1)
    assert cycle_contrastive_loss(*aligned) < cycle_contrastive_loss(*apart)


def test_a_few_steps_lower_the_loss():
    tensors = parts(12, 12, torch.float32)
    optimizer = torch.optim.Adam(tensors, lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = cycle_contrastive_loss(*tensors)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_bad_input_is_named():
    with pytest.raises(VIReIDError, match=r"\(3, 4\) and \(3, 5\)"):
        cycle_contrastive_loss(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(VIReIDError, match="temperature"):
        cycle_contrastive_loss(torch.zeros(3, 4), torch.zeros(3, 4), temperature=0)


@pytest.mark.parametrize(("visible", "infrared"), [(12, 12), (6, 18), (1, 6), (6, 1), (1, 1), (0, 6), (6, 0)])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_return_agrees_with_a_slow_loop(visible, infrared, temperature):
    ours = parts(visible, infrared)
    theirs = tuple(tensor.detach().clone().requires_grad_() for tensor in ours)
    loss = cycle_return_loss(*ours, temperature=temperature)
    reference = cycle_return_reference(*theirs, temperature=temperature)
    loss.backward()
    reference.backward()
    # float64, as above, with one more retrieval in a row.
    torch.testing.assert_close(loss, reference, rtol=1e-12, atol=1e-12)
    for mine, expected in zip(ours, theirs):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-10, atol=1e-12)


def test_the_gradient_of_the_return_is_that_of_its_value():
    visible, infrared = parts(5, 4)
    assert torch.autograd.gradcheck(lambda *both: cycle_return_loss(*both, temperature=0.3), (visible, infrared))


def test_a_part_returns_to_itself_or_costs():
    apart = torch.eye(6)
    assert cycle_return_loss(apart, apart).item() < 1e-3
    # Where all parts of the other modality are one, every part returns to the same place, and log(6) is the price of
    # guessing.
    away = apart[:1].repeat(6, 1)
    assert cycle_return_loss(apart, away).item() > 1.0
    visible, infrared = parts(12, 6)
    loss = cycle_return_loss(visible, infrared)
    torch.testing.assert_close(cycle_return_loss(infrared, visible), loss)
    torch.testing.assert_close(cycle_return_loss(visible[torch.randperm(12)], 3 * infrared), loss)


def test_the_return_is_computed_in_float32():
    exact = parts(12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cycle_return_loss(*(part.detach().float() for part in exact))
    assert found.dtype == torch.float32
    # Three steps in a row that each divide cosines rounded to 2**-24 by 0.07, averaged over 24 queries.
    assert found.item() == pytest.approx(cycle_return_loss(*exact).item(), abs=2**-24 / 0.07**3)


def test_unfit_parts_are_told():
    with pytest.raises(VIReIDError, match="needs part features"):
        cycle_return_loss(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(VIReIDError, match=r"temperature is 0\.0; give a finite number above 0"):
        cycle_return_loss(torch.zeros(3, 4), torch.zeros(3, 4), temperature=0.0)
