from __future__ import annotations

from xml.etree import ElementTree

import pytest

from vireid_lightning.cli.tools.line_chart import LineChart, read_metrics
from vireid_lightning.errors import VIReIDError

SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart):
    return ElementTree.fromstring(chart._repr_svg_())


def test_each_series_is_a_line_through_its_points_with_its_name():
    root = drawn(LineChart("a < b", {"one": [(0, 0), (1, 1)], "two": [(0, 1), (2, 0.5), (4, 0)]}))
    lines = [line.get("points").split() for line in root.iter(f"{SVG}polyline")]
    assert [len(line) for line in lines] == [2, 3]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"a < b", "one", "two", "epoch"} <= set(texts)
    xs = [float(point.split(",")[0]) for point in lines[1]]
    ys = [float(point.split(",")[1]) for point in lines[1]]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys == sorted(ys)  # falling values go down the page


def test_the_range_of_values_can_be_given():
    texts = [
        text.text for text in drawn(LineChart("t", {"a": [(0, 0.4), (1, 0.5)]}, y_range=(0, 1))).iter(f"{SVG}text")
    ]
    assert {"0", "0.25", "0.5", "0.75", "1"} <= set(texts)


def test_one_point_and_equal_values_are_drawn():
    assert len(list(drawn(LineChart("t", {"a": [(3, 2)]})).iter(f"{SVG}circle"))) == 1


def test_no_points_are_an_error():
    with pytest.raises(VIReIDError, match="has no points"):
        LineChart("t", {"a": []})


def test_it_is_written_to_a_file(tmp_path):
    LineChart("t", {"a": [(0, 1), (1, 2)]}).save(tmp_path / "chart.svg")
    assert ElementTree.parse(tmp_path / "chart.svg").getroot().tag == f"{SVG}svg"


def test_logged_values_are_read_by_epoch(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,a,b\n0,1,0.5,\n0,1,,3\n1,2,0.25,4\n", encoding="utf-8")
    found = read_metrics(tmp_path / "metrics.csv", ["a", "b", "c"])
    assert found == {"a": [(0, 0.5), (1, 0.25)], "b": [(0, 3), (1, 4)], "c": []}
    with pytest.raises(VIReIDError, match=r"no .*absent\.csv"):
        read_metrics(tmp_path / "absent.csv", ["a"])
