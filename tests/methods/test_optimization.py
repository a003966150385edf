"""The learning rate of every epoch, against the papers' schedules written out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.optimization import Optimization


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.neck = nn.BatchNorm1d(2)
        self.neck.bias.requires_grad_(False)


def agw_factor(epoch: int) -> float:
    if epoch < 10:
        return (epoch + 1) / 10
    return 1.0 if epoch < 20 else 0.1 if epoch < 50 else 0.01


def test_multistep_with_warmup_is_the_schedule_of_agw():
    optimization = Optimization(warmup_epochs=10, milestones=[20, 50])
    for epoch in range(80):
        assert optimization.factor(epoch, 80) == pytest.approx(agw_factor(epoch), rel=1e-12)


def test_cosine_ends_at_zero_after_its_warmup():
    optimization = Optimization(schedule="cosine", warmup_epochs=10)
    assert [optimization.factor(epoch, 100) for epoch in (0, 9, 10)] == [0.1, 1.0, 1.0]
    assert optimization.factor(55, 100) == pytest.approx(0.5)
    assert optimization.factor(99, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert optimization.factor(100, 100) == pytest.approx(0.0, abs=1e-15)


def test_the_optimiser_follows_the_factors():
    module = Tiny()
    built = Optimization(optimizer="sgd", lr=0.1, lr_factors={"backbone": 0.1, "backbone.bias": 0.5}).build(module, 5)
    rates = {id(p): g["lr"] for g in built["optimizer"].param_groups for p in g["params"]}
    assert rates[id(module.backbone.weight)] == pytest.approx(0.01)
    assert rates[id(module.backbone.bias)] == pytest.approx(0.05)
    assert rates[id(module.neck.weight)] == pytest.approx(0.1)
    assert id(module.neck.bias) not in rates


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw"},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0, "nesterov": False},
        {"optimizer": "sgd", "nesterov": False},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_fused_optimisers_move_weights_as_a_loop_over_parameters_does(options):
    settings = Optimization(lr=0.05, weight_decay=0.1, lr_factors={"backbone": 0.1}, **options)
    torch.manual_seed(0)
    fused = Tiny().double()
    looped = copy.deepcopy(fused)
    built = [settings.build(module, 5)["optimizer"] for module in (fused, looped)]
    for group in built[1].param_groups:
        assert group["fused"] is True
        group["fused"], group["foreach"] = False, False
    for _ in range(5):
        for ours, theirs in zip(fused.parameters(), looped.parameters(), strict=True):
            if ours.requires_grad:
                ours.grad = torch.randn_like(ours)
                theirs.grad = ours.grad.clone()
        for optimizer in built:
            optimizer.step()
    for ours, theirs in zip(fused.parameters(), looped.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)  # a few roundings of float64 in each step


def test_a_prefix_that_matches_nothing_is_refused_with_the_nearest():
    with pytest.raises(VIReIDError, match=r"'bakbone'.*Did you mean 'backbone'\?"):
        Optimization(lr_factors={"bakbone": 0.1}).build(Tiny(), 5)


@pytest.mark.parametrize("arguments", [{"lr": 0.0}, {"milestones": [120, 80]}])
def test_settings_that_make_no_sense_are_refused(arguments):
    with pytest.raises(VIReIDError, match="optimization"):
        Optimization(**arguments)


def test_settings_survive_a_round_trip_through_plain_values():
    optimization = Optimization(optimizer="sgd", lr_factors={"backbone": 0.1}, milestones=[2, 3])
    assert Optimization.of(optimization.to_dict()) == optimization
