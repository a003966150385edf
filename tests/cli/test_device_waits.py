"""What counts as a wait for the device, on the CPU."""

from __future__ import annotations

import pytest
import torch

from vireid_lightning.cli.device_waits import DeviceWaits

VALUES = torch.arange(4.0)
LABELS = torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize(
    "read",
    [
        lambda: VALUES.sum().item(),
        lambda: VALUES.tolist(),
        lambda: bool(VALUES.sum() > 0),
        lambda: int(LABELS.max()),
        lambda: VALUES.nonzero(),
        lambda: VALUES[LABELS == 1],
        lambda: torch.unique(LABELS),
        lambda: torch.equal(VALUES, VALUES),
        lambda: VALUES.cpu(),
    ],
)
def test_whatever_hands_values_to_python_or_sizes_a_result_counts_once(read):
    with DeviceWaits(torch.device("cpu")) as waits:
        read()
    assert waits.count == 1
    assert __file__ in next(iter(waits.places))


def test_arithmetic_slices_and_rows_by_number_do_not_count():
    weight = torch.ones(4, requires_grad=True)
    with DeviceWaits(torch.device("cpu")) as waits:
        loss = (weight[LABELS] * VALUES[1:].mean()).where(LABELS == 1, 0).sum()
        loss.backward()
    assert waits.count == 0


def test_nothing_is_counted_behind_the_block():
    with DeviceWaits(torch.device("cpu")) as waits:
        pass
    VALUES.sum().item()
    assert waits.count == 0
