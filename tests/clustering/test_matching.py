"""Matching of planted clusters: equal and unequal counts, outliers, degenerate input."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import AgglomerativeClustering

from vireid_lightning.clustering import cluster_centroids, match_clusters
from vireid_lightning.errors import VIReIDError


def planted(sizes: list[int], shift: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters around common centres; ``shift`` moves a whole modality away from them."""
    centres = torch.randn(len(sizes), 16, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    noise = 0.05 * torch.randn(len(truth), 16, generator=generator)
    return centres[truth] + noise + shift * torch.randn(16, generator=generator), truth


def test_renumbered_clusters_of_two_modalities_find_their_partners():
    visible, visible_truth = planted([5, 3, 7, 4], shift=0.3, seed=1)
    infrared, infrared_truth = planted([2, 6, 3, 9], shift=0.3, seed=2)
    renumber = torch.tensor([2, 0, 3, 1])
    matching = match_clusters(visible, visible_truth, infrared, renumber[infrared_truth])
    assert matching.clusters == 4
    assert torch.equal(matching.visible_labels, visible_truth)
    assert torch.equal(matching.infrared_labels, infrared_truth)


def test_the_assignment_is_the_cheapest_of_all_permutations():
    generator = torch.Generator().manual_seed(5)
    visible, infrared = (torch.randn(6, 4, generator=generator) for _ in range(2))
    own = torch.arange(6)
    matching = match_clusters(visible, own, infrared, own)
    cost = torch.cdist(F.normalize(visible, dim=1), F.normalize(infrared, dim=1)).square()
    cheapest = min(sum(float(cost[i, order[i]]) for i in range(6)) for order in permutations(range(6))) / 6
    assert matching.cost == pytest.approx(cheapest, abs=1e-5)
    found = cost[matching.visible_labels.argsort(), matching.infrared_labels.argsort()].mean()
    assert float(found) == pytest.approx(cheapest, abs=1e-5)


@pytest.mark.parametrize("swap", [False, True])
def test_a_person_split_into_two_clusters_is_merged(swap):
    sizes = [6, 4, 5]
    features, truth = planted(sizes, shift=0.0, seed=1)
    split = truth.clone()
    split[:3] = 3  # half of the first person
    other, other_truth = planted(sizes, shift=0.1, seed=2)
    sides = [(other, other_truth), (features, split)] if swap else [(features, split), (other, other_truth)]
    matching = match_clusters(*sides[0], *sides[1])
    merged = matching.infrared_labels if swap else matching.visible_labels
    partner = matching.visible_labels if swap else matching.infrared_labels
    assert matching.clusters == 3
    for person in range(3):
        assert set(merged[truth == person].tolist()) == set(partner[other_truth == person].tolist())
        assert len(merged[truth == person].unique()) == 1


def test_merging_is_ward_linkage_of_the_unit_centroids():
    generator = torch.Generator().manual_seed(9)
    features, labels = torch.randn(90, 8, generator=generator), torch.arange(30).repeat(3)
    few = torch.randn(4, 8, generator=generator)
    matching = match_clusters(features, labels, few, torch.arange(4))
    centroids = cluster_centroids(F.normalize(features.double(), dim=1), labels, 30).numpy()
    expected = AgglomerativeClustering(n_clusters=4, linkage="ward").fit_predict(centroids)
    together = expected[:, None] == expected[None, :]
    found = matching.visible_labels[:30].numpy()
    np.testing.assert_array_equal(found[:, None] == found[None, :], together)
    assert torch.equal(matching.visible_labels[:30], matching.visible_labels[30:60])


def test_outliers_stay_outliers_and_gaps_in_the_numbers_do_not_matter():
    visible, truth = planted([4, 4], shift=0.0, seed=1)
    infrared, _ = planted([4, 4], shift=0.1, seed=2)
    labels = torch.where(truth == 1, 7, 3)
    labels[0] = -1
    matching = match_clusters(visible, labels, infrared, truth)
    assert matching.clusters == 2
    assert matching.visible_labels.tolist() == [-1, 0, 0, 0, 1, 1, 1, 1]
    assert matching.infrared_labels.tolist() == [0] * 4 + [1] * 4


def test_one_cluster_each_is_one_pair():
    matching = match_clusters(torch.ones(3, 2), torch.zeros(3).long(), torch.ones(2, 2), torch.tensor([4, -1]))
    assert (matching.clusters, matching.cost) == (1, pytest.approx(0, abs=1e-12))
    assert matching.infrared_labels.tolist() == [0, -1]


@pytest.mark.parametrize("side", ["visible", "infrared"])
def test_a_modality_of_outliers_alone_is_an_error_that_names_it(side):
    outliers, clusters = torch.full((3,), -1), torch.arange(3)
    labels = (outliers, clusters) if side == "visible" else (clusters, outliers)
    with pytest.raises(VIReIDError, match=f"None of the 3 {side} images is in a cluster"):
        match_clusters(torch.eye(3), labels[0], torch.eye(3), labels[1])


def test_labels_that_do_not_fit_the_features_are_an_error():
    with pytest.raises(VIReIDError, match="one label for each row"):
        match_clusters(torch.eye(3), torch.arange(2), torch.eye(3), torch.arange(3))
