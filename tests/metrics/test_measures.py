"""The table of measures, and what reads it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import ScoreTable, evaluate
from vireid_lightning.metrics.aggregation import aggregate, render
from vireid_lightning.metrics.measures import MEASURES, Measure, TrueMatches
from vireid_lightning.metrics.results import write_details, write_results


def matches(ranks, first=None, gallery=10):
    """Return the true matches of queries in one trial, from lists of ranks."""
    longest = max(1, *map(len, ranks))
    rank = torch.full((len(ranks), 1, longest), torch.inf, dtype=torch.float64)
    for row, listed in enumerate(ranks):
        rank[row, 0, : len(listed)] = torch.tensor(listed, dtype=torch.float64)
    number = torch.tensor([[len(listed)] for listed in ranks])
    first = rank[:, :, 0] if first is None else torch.tensor(first, dtype=torch.float64)[:, None]
    return TrueMatches(rank, number, first, torch.full_like(number, gallery))


def test_measures_by_hand():
    found = matches([[1, 3], [2], [1, 2, 3, 10]], first=[1, 2, 1])
    values = {name: measure.of_queries(found)[:, 0].tolist() for name, measure in MEASURES.items()}
    assert values["rank1"] == [1, 0, 1]
    assert values["rank5"] == [1, 1, 1]
    assert values["mAP"] == pytest.approx([(1 + 2 / 3) / 2, 1 / 2, (3 + 4 / 10) / 4], rel=2**-50)
    assert values["mINP"] == pytest.approx([2 / 3, 1 / 2, 4 / 10], rel=2**-50)


def average_precision_at_r(found: TrueMatches) -> torch.Tensor:
    """Mean over the first R ranks, R the number of true matches, of the precision where there is one (mAP@R)."""
    place = torch.arange(1, found.rank.shape[2] + 1)
    counted = found.rank <= found.number[:, :, None]
    return (counted * place / found.rank).sum(dim=2) / found.number


def true_positives_at_false_ones(found: TrueMatches) -> torch.Tensor:
    """Share of true matches with at most a tenth of the false ones ahead of them (TPR at an FPR of 10 %)."""
    ahead = found.rank - torch.arange(1, found.rank.shape[2] + 1)
    return (ahead <= 0.1 * (found.gallery - found.number)[:, :, None]).double().sum(dim=2) / found.number


@pytest.fixture
def own_measures(monkeypatch):
    monkeypatch.setitem(MEASURES, "mAP@R", Measure("mAP@R", average_precision_at_r))
    monkeypatch.setitem(MEASURES, "TPR@10", Measure("TPR@FPR 10", true_positives_at_false_ones))


def test_a_measure_of_ones_own_is_scored_written_printed_and_aggregated(own_measures, tmp_path):
    # Ranked: 8, 7, 7, 9, 7.
    gallery = torch.tensor([[0.1], [0.2], [0.3], [0.4], [0.5]]), [8, 7, 7, 9, 7]
    scores = evaluate((torch.zeros(1, 1), [7]), gallery, distance="euclidean")
    assert scores.mean("mAP@R") == pytest.approx(100 * (1 / 2 + 2 / 3) / 3, rel=2**-50)
    assert scores.mean("TPR@10") == 0
    table = ScoreTable([scores], {"dataset": "mine", "dataset_trial": None})
    assert "mAP@R" in [str(column.header) for column in table.render().columns]
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        write_results(path, table.to_dict())
    assert json.loads(paths[0].read_text())["results"][0]["scores"]["mAP@R"] == scores.mean("mAP@R")
    together = aggregate(paths)
    assert together["results"][0]["scores"]["TPR@10"] == 0
    assert "TPR@FPR 10" in [str(column.header) for column in render(together).columns]


def test_result_files_without_a_later_measure_are_aggregated_over_what_they_share(own_measures, tmp_path, monkeypatch):
    sets = (torch.eye(2), [0, 1]), (torch.eye(2), [0, 1])
    write_results(tmp_path / "new.json", ScoreTable([evaluate(*sets)], {"dataset": "mine"}).to_dict())
    monkeypatch.delitem(MEASURES, "mAP@R")
    write_results(tmp_path / "old.json", ScoreTable([evaluate(*sets)], {"dataset": "mine"}).to_dict())
    monkeypatch.setitem(MEASURES, "mAP@R", Measure("mAP@R", average_precision_at_r))
    together = aggregate([tmp_path / "new.json", tmp_path / "old.json"])
    assert "mAP@R" not in together["results"][0]["scores"]
    assert together["results"][0]["scores"]["TPR@10"] == 100
    assert render(together).row_count == 1


def test_the_whole_curve_and_each_querys_precision_are_kept_and_written(tmp_path):
    draw = np.random.default_rng(0)
    query = draw.standard_normal((30, 4)), np.append(draw.integers(0, 6, 29), 77)
    gallery = draw.standard_normal((50, 4)), draw.integers(0, 6, 50)
    scores = evaluate(query, gallery)
    trial = scores.trials[0]
    curve = trial.cmc()
    assert curve[0] == pytest.approx(scores.rank1, rel=2**-50)
    assert curve[4] == pytest.approx(scores.mean("rank5"), rel=2**-50)
    assert curve[-1] == pytest.approx(100, rel=2**-50)
    assert len(curve) == trial.first[:29].max()
    assert np.isnan(trial.of_queries["mAP"]).tolist() == [False] * 29 + [True]
    assert 100 * np.nanmean(trial.of_queries["mAP"]) == pytest.approx(scores.mAP, rel=2**-50)
    write_details(tmp_path / "details.npz", ScoreTable([scores]))
    with np.load(tmp_path / "details.npz") as file:
        np.testing.assert_array_equal(file["query against gallery/trial_1/cmc"], curve)
        np.testing.assert_array_equal(file["query against gallery/trial_1/measures/mAP"], trial.of_queries["mAP"])
        np.testing.assert_array_equal(file["query against gallery/trial_1/query"], np.arange(30))
        np.testing.assert_array_equal(file["query against gallery/trial_1/first"], trial.first)


@pytest.mark.parametrize("wrong", [lambda found: 1.0, lambda found: found.first[0], lambda found: found.number.numpy()])
def test_a_measure_that_returns_something_else_is_told_so(wrong, monkeypatch):
    monkeypatch.setitem(MEASURES, "mine", Measure("Mine", wrong))
    with pytest.raises(VIReIDError, match=r"The measure 'mine' returned .* \(3, 1\), belongs"):
        evaluate((torch.eye(3), [0, 1, 2]), (torch.eye(3), [0, 1, 2]))


def test_a_measure_may_count(monkeypatch):
    monkeypatch.setitem(MEASURES, "first", Measure("First", lambda found: found.first <= 1))
    assert evaluate((torch.eye(3), [0, 1, 2]), (torch.eye(3), [0, 1, 2])).mean("first") == 100
