"""Tables of scores in a terminal of 80 columns: every score whole, names and counts give way."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from vireid_lightning.metrics import Embeddings, Protocol, Trial, score_protocols
from vireid_lightning.metrics.aggregation import aggregate, render
from vireid_lightning.metrics.results import ScoreTable, write_results

EVERY = np.arange(1200)


def score(name, galleries, rerank=False):
    torch.manual_seed(0)
    identity = torch.arange(1200) % 300
    embeddings = Embeddings(torch.randn(1200, 4) + torch.eye(300, 4).repeat(4, 1), identity)
    protocol = Protocol(name, tuple(Trial(EVERY[:40], gallery) for gallery in galleries))
    return score_protocols(embeddings, embeddings, [protocol], rerank=rerank)


def draw(table, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return lines


@pytest.mark.parametrize("name", ["infrared-to-visible", "a protocol of one's own that has a very long name indeed"])
def test_all_scores_stand_in_80_columns(name):
    rows = score(name, (EVERY[40:], EVERY[44:]), rerank=True)
    text = "\n".join(draw(ScoreTable(rows, {"dataset": "RegDB"}).render("RegDB")))
    assert "\u2026" not in text
    for row in rows:
        assert row.gallery_hash in text
        for measure in row.scored:
            assert f"{row.mean(measure):.2f}" in text
            assert f"\u00b1{row.deviation(measure):.2f}" in text
    assert "1,156-1,160" in text
    assert "2 trials, " in text
    assert "sample standard deviation over trials" in text


def test_nothing_is_said_of_deviations_where_there_are_none():
    (row,) = score("all", (EVERY[40:],))
    text = "\n".join(draw(ScoreTable([row], {"dataset": "RegDB"}).render()))
    assert "deviation" not in text
    assert "\u00b1" not in text
    assert "trials, " not in text.partition("all")[2]
    assert "Per cent. 4 values, cosine distance." in text


def test_aggregates_fit_too(tmp_path):
    paths = []
    for number in range(2):
        rows = score("infrared-to-visible", (EVERY[40:],), rerank=True)
        about = {"dataset": "RegDB", "dataset_trial": number + 1, "method": "Mine", "synthetic": True}
        paths.append(tmp_path / f"{number}.json")
        write_results(paths[-1], ScoreTable(rows, about).to_dict())
    text = "\n".join(draw(render(aggregate(paths))))
    assert "RegDB (synthetic): Mine, n = 2 (trials 1, 2)" in text
    for row in json.loads(paths[0].read_text())["results"]:
        assert all(f"{word} " in text for word in row["protocol"].split())
        for value in row["scores"].values():
            assert f"{value:.2f} " in text
    alone = "\n".join(draw(render(aggregate(paths[:1]))))
    assert "deviation" not in alone


@pytest.mark.parametrize(
    ("about", "title"),
    [
        ({"dataset": "RegDB", "synthetic": True, "dataset_trial": 3}, "RegDB (synthetic), trial 3"),
        ({"dataset": "RegDB", "synthetic": False}, "RegDB"),
        ({"dataset": "Synthetic", "synthetic": True, "method": "Mine", "epoch": 2}, "Synthetic: Mine, epoch 2"),
    ],
)
def test_titles_say_what_is_drawn(about, title):
    assert ScoreTable([], about).title == title
