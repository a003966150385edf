from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vireid_lightning.methods.mmgl import stripe_recovery
from vireid_lightning.methods.mmgl.stripe_recovery import StripeRecovery


def images(visible=5, infrared=4, stripes=3):
    count = visible + infrared
    order = torch.stack([torch.randperm(stripes) for _ in range(count)])
    recovered = order.clone()
    for wrong in (0, visible)[: 1 + (infrared > 0)]:
        recovered[wrong] = order[wrong].flip(0)
    return {
        "embedding": F.normalize(torch.randn(count, 8), dim=1),
        "modality": torch.tensor([0] * visible + [1] * infrared),
        "order": order,
        "recovered": recovered,
        "parts": F.normalize(torch.randn(count, stripes, 8), dim=2),
    }


def retrieval_reference(parts, order, modality):
    """Count by loops: (matched, returned, number) of each modality."""
    listed = [
        (int(modality[i]), int(order[i, place]), parts[i, place].tolist())
        for i in range(len(parts))
        for place in range(order.shape[1])
    ]

    def nearest(query, wanted):
        others = [part for part in listed if part[0] == wanted]
        return max(others, key=lambda part: sum(a * b for a, b in zip(query[2], part[2])))

    counts = {0: [0, 0, 0], 1: [0, 0, 0]}
    for query in listed:
        there = nearest(query, 1 - query[0])
        back = nearest(there, query[0])
        row = counts[query[0]]
        row[0] += there[1] == query[1]
        row[1] += back[1] == query[1]
        row[2] += 1
    return counts


@pytest.mark.parametrize("queries_at_once", [2, 4096])
def test_shares_agree_with_loops_however_batched(queries_at_once, monkeypatch):
    monkeypatch.setattr(stripe_recovery, "_QUERIES_AT_ONCE", queries_at_once)
    data = images()
    metric = StripeRecovery()
    for rows in (slice(0, 3), slice(3, 9)):
        metric.update(**{name: values[rows] for name, values in data.items()})
    found = metric.compute()
    counts = retrieval_reference(data["parts"], data["order"], data["modality"])
    total = [sum(row[i] for row in counts.values()) for i in range(3)]
    for name, row in (("_visible", counts[0]), ("_infrared", counts[1]), ("", total)):
        assert found[f"stripe_match{name}"].item() == pytest.approx(row[0] / row[2])
        assert found[f"stripe_return{name}"].item() == pytest.approx(row[1] / row[2])
    assert found["permutation_accuracy"].item() == pytest.approx(7 / 9)
    assert found["permutation_accuracy_visible"].item() == pytest.approx(4 / 5)
    assert found["permutation_accuracy_infrared"].item() == pytest.approx(3 / 4)
    spread = 1 - data["embedding"].mean(0).square().sum()
    assert found["feature_spread"].item() == pytest.approx(spread.item(), abs=1e-6)


def test_a_collapse_shows_and_opposite_features_are_spread():
    metric, data = StripeRecovery(), images(2, 2)
    one = F.normalize(torch.ones(1, 8), dim=1)
    metric.update(one.repeat(4, 1), data["modality"], data["order"])
    assert metric.compute()["feature_spread"].item() == pytest.approx(0, abs=1e-6)
    metric.reset()
    metric.update(torch.cat([one, -one]).repeat(2, 1), data["modality"], data["order"])
    assert metric.compute()["feature_spread"].item() == pytest.approx(1, abs=1e-6)


def test_what_is_absent_is_left_out():
    data = images(3, 0)
    metric = StripeRecovery()
    assert metric.compute() == {}
    metric.reset()
    metric.update(**data)
    assert set(metric.compute()) == {"permutation_accuracy", "permutation_accuracy_visible", "feature_spread"}
