from __future__ import annotations

import pytest
from references.report_content import write_curves

from vireid_lightning.errors import VIReIDError
from vireid_lightning.report.training_curves import read_training_curves


def test_curves_are_read_by_their_kind(tmp_path):
    write_curves(tmp_path / "metrics.csv")
    curves = read_training_curves(tmp_path / "metrics.csv")
    assert curves.losses == {"identity": [(9, 2), (19, 1), (29, 2 / 3)], "loss": [(9, 3), (19, 1.5), (29, 1)]}
    assert curves.steps == {"identity": [(9, 2.5), (19, 1.5), (29, 0.5)]}
    assert curves.scores["mAP"] == [(9, 20), (19, 21), (29, 22)]
    assert curves.rates["Adam"] == [(9, 0.001), (19, 0.0005), (29, 0.001 / 3)]


def test_what_is_no_curve_is_refused_or_empty(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    assert not read_training_curves(tmp_path / "empty.csv")
    (tmp_path / "other.csv").write_text("name,value\na,1\n")
    with pytest.raises(VIReIDError, match="no column 'step'"):
        read_training_curves(tmp_path / "other.csv")
    with pytest.raises(VIReIDError, match="cannot be read"):
        read_training_curves(tmp_path / "none.csv")
