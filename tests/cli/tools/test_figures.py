from __future__ import annotations

import numpy as np
import pytest
from references.fake_dataset import write_fake_dataset

from vireid_lightning.cli import vireid
from vireid_lightning.metrics import Embeddings


@pytest.fixture
def call(tmp_path):
    dataset = write_fake_dataset(tmp_path / "data")
    samples = dataset.samples("test")
    rows = np.random.default_rng(0).standard_normal((len(samples), 4)).astype(np.float32)
    labels = ([getattr(sample, name) for sample in samples] for name in ("identity", "camera", "modality", "path"))
    Embeddings(rows, *labels).save(tmp_path / "embeddings.npz")
    source = [str(tmp_path / "embeddings.npz"), "--root", str(tmp_path / "data")]
    return lambda *more: vireid(
        ["figures", *source, "--dataset", "references.fake_dataset.FakeDataset", "--dpi", "40", *map(str, more)]
    )


def test_chosen_figures_of_chosen_queries_are_written(call, tmp_path, capsys):
    call("--figures", "ranks", "cmc", "--formats", "png", "--queries", "test/20_i0.png", "test/21_i2.png")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "cmc.png",
        "ranks_infrared-to-visible.png",
    ]
    assert capsys.readouterr().out.count("Figure: ") == 2


def test_a_wrong_query_is_told(call, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        call("--queries", "test/20_i0.pgn")
    assert "'test/20_i0.pgn' is no query of infrared-to-visible" in (error := capsys.readouterr().err)
    assert "Did you mean 'test/20_i0.png'?" in error
    assert not (tmp_path / "figures").exists()
    with pytest.raises(SystemExit, match="2"):
        call("--output", tmp_path / "embeddings.npz")
    assert "which is a file; give a folder" in capsys.readouterr().err
