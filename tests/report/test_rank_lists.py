from __future__ import annotations

import numpy as np
import pytest
from references.report_content import make_content, make_embeddings, make_protocols

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import score_protocols
from vireid_lightning.report.rank_lists import choose_queries, choose_rows, list_positions


def test_lists_begin_with_the_lowest_precision_and_say_what_is_removed():
    first, second = make_content().groups
    assert (first.direction, second.direction) == ("infrared to visible", "visible to infrared")
    for group in (first, second):
        precision = [item.average_precision for item in group.lists]
        assert precision == sorted(precision)
        assert len(precision) == group.valid == 30
    assert first.trials == 2
    assert "camera 3 skip the gallery images of camera 2" in first.exclusions
    assert {(item.query.camera, item.removed) for item in first.lists} == {("3", 12), ("6", 0)}
    assert "removes no gallery image" in second.exclusions


def test_outcomes_follow_from_the_list():
    group = make_content().groups[1]
    for item in group.lists:
        right = [image.is_true for image in item.images]
        assert [image.identity == item.query.identity for image in item.images] == right
        assert item.outcome == ("first" if right[0] else "later" if any(right) else "none")
        assert item.first == 1 + right.index(True) if any(right) else item.first > 10
    assert len({item.outcome for item in group.lists}) > 1


def test_half_of_the_queries_are_the_worst_and_the_others_are_spread():
    precision = np.append(np.linspace(1, 0, 101), np.nan)
    chosen = choose_queries(precision, 10)
    assert chosen[:5].tolist() == [100, 99, 98, 97, 96]
    assert chosen[-1] == 0  # the best is among them
    assert np.ptp(np.diff(precision[chosen[5:]])) < 0.02
    assert len(np.unique(chosen)) == 10
    assert choose_queries(precision, 1).tolist() == [100]
    assert len(choose_queries(precision, 1000)) == 101


def test_each_direction_has_one_protocol_the_default_first():
    embeddings = make_embeddings()
    rows = score_protocols(embeddings, embeddings, make_protocols(embeddings), rerank=True)
    assert [row.name for row in choose_rows(rows, embeddings, "visible-to-infrared")] == [
        "visible-to-infrared",
        "infrared-to-visible",
    ]


def test_queries_are_chosen_by_path():
    content = make_embeddings()
    wanted = [content.path[7], content.path[5]]
    (group,) = make_content(queries=wanted).groups
    assert [item.query.path for item in group.lists] == wanted
    assert group.direction == "infrared to visible"
    positions = list(list_positions([group]))
    assert positions[0] == 7
    assert len(positions) == len(set(positions))


@pytest.mark.parametrize("path", ["cam1/none.png", "cam6/0000/5.pn"])
def test_a_path_of_no_query_is_refused(path):
    with pytest.raises(VIReIDError, match="is no query of"):
        make_content(queries=[path])
