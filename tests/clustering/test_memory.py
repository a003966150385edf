"""The memory update against the loop over samples that defines it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vireid_lightning.clustering import update_memory
from vireid_lightning.errors import VIReIDError


def loop(prototypes, features, labels, momentum):
    prototypes = prototypes.clone()
    for feature, label in zip(features, labels.tolist()):
        moved = momentum * prototypes[label] + (1 - momentum) * F.normalize(feature, dim=0)
        prototypes[label] = F.normalize(moved, dim=0)
    return prototypes


@pytest.mark.parametrize("momentum", [0.0, 0.2, 0.9, 1.0])
def test_values_equal_the_loop_over_samples(momentum):
    prototypes = F.normalize(torch.randn(7, 5, dtype=torch.float64), dim=1)
    features, labels = torch.randn(40, 5, dtype=torch.float64), torch.randint(1, 6, (40,))
    expected = loop(prototypes, features, labels, momentum)
    update_memory(prototypes, features, labels, momentum=momentum)
    # The same operations in the same order; blocked normalisation may round in another order.
    torch.testing.assert_close(prototypes, expected, rtol=0, atol=1e-14)


def test_the_last_sample_of_a_cluster_weighs_most():
    first, last = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for order, nearer in (((first, last), last), ((last, first), first)):
        prototypes = F.normalize(torch.ones(1, 2), dim=1)
        update_memory(prototypes, torch.stack(order), torch.zeros(2).long())
        assert prototypes[0] @ nearer > 0.9


def test_clusters_without_a_sample_stay_as_they_are_and_all_have_unit_length():
    prototypes = F.normalize(torch.randn(4, 3), dim=1)
    before = prototypes.clone()
    update_memory(prototypes, torch.randn(6, 3), torch.tensor([2, 2, 0, 2, 0, 2]))
    assert torch.equal(prototypes[[1, 3]], before[[1, 3]])
    assert not torch.equal(prototypes[[0, 2]], before[[0, 2]])
    assert torch.allclose(prototypes.norm(dim=1), torch.ones(4))


def test_no_gradient_is_recorded():
    prototypes, features = F.normalize(torch.randn(2, 3), dim=1), torch.randn(4, 3, requires_grad=True)
    update_memory(prototypes, features, torch.tensor([0, 1, 0, 1]))
    assert not prototypes.requires_grad


def test_an_empty_batch_changes_nothing():
    prototypes = torch.eye(2)
    update_memory(prototypes, torch.zeros(0, 2), torch.zeros(0).long())
    assert torch.equal(prototypes, torch.eye(2))


@pytest.mark.parametrize("labels", [[0, 2], [-1, 1]])
def test_labels_without_a_prototype_are_an_error(labels):
    with pytest.raises(VIReIDError, match="2 prototypes"):
        update_memory(torch.eye(2), torch.eye(2), torch.tensor(labels))


def test_a_momentum_out_of_range_is_an_error():
    with pytest.raises(VIReIDError, match=r"momentum is 1\.5"):
        update_memory(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), momentum=1.5)
