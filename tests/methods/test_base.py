"""What the base refuses of a user's own method, in a sentence and before it costs an epoch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import Optimization, ReIDModule


class Mine(ReIDModule):
    def __init__(self, *, terms=None, weights=None):
        super().__init__(num_classes=None, optimization=Optimization())
        self.layer, self.terms, self.loss_weights = nn.Linear(3, 2), terms, weights or {}

    def embed(self, images, modality):
        return self.layer(images.mean((2, 3)))

    def losses(self, batch):
        return self.terms


@pytest.mark.parametrize("name", ["uses_identities", "labels_images"])
def test_what_a_method_of_an_earlier_version_sets_is_not_passed_over(name):
    with pytest.raises(VIReIDError, match=f"Old sets {name}, which is no longer read; set batches to one of identity"):
        type("Old", (ReIDModule,), {name: False})


def test_a_kind_of_batch_that_does_not_exist():
    with pytest.raises(
        VIReIDError, match=r"Mine\.batches is 'identities'; set it to one of identity, modality, pseudo"
    ):
        type("Mine", (ReIDModule,), {"batches": "identities"})


@pytest.mark.parametrize(
    ("terms", "weights", "message"),
    [
        ({}, {}, "Mine.losses returned {}; return a dictionary"),
        ([torch.tensor(1.0)], {}, "return a dictionary from names to scalar tensors"),
        ({"a": 1.0}, {}, "a 'a' that is no scalar tensor"),
        ({"a": torch.ones(3)}, {}, "a 'a' that is no scalar tensor"),
        ({"triplet": torch.tensor(1.0)}, {"tripet": 2.0}, "weighs 'tripet'.* Did you mean 'triplet'"),
    ],
)
def test_terms_that_cannot_be_summed(terms, weights, message):
    with pytest.raises(VIReIDError, match=message):
        Mine(terms=terms, weights=weights).training_step({"identity": torch.zeros(2), "index": torch.arange(2)}, 0)


def test_a_weight_of_0_may_belong_to_a_term_that_is_left_out():
    method = Mine(terms={"a": torch.tensor(3.0)}, weights={"a": 2.0, "b": 0.0})
    method.log = method.log_dict = lambda *_, **__: None
    assert method.training_step({"identity": torch.zeros(2), "index": torch.arange(2)}, 0) == 6
