"""``vireid synthesize`` from the command line, in every layout."""

from __future__ import annotations

import pytest

from vireid_lightning.cli import vireid
from vireid_lightning.cli.tools.synthesize import COUNTS
from vireid_lightning.data import LLCM, MSMT17, SYSUMM01, SYSUMM02, Manifest, Market1501, RegDB

READERS = {
    "sysu_mm01": SYSUMM01,
    "regdb": RegDB,
    "llcm": LLCM,
    "sysu_mm02": SYSUMM02,
    "market1501": Market1501,
    "msmt17": MSMT17,
    "manifest": lambda root: Manifest(root / "manifest.csv"),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", sorted(COUNTS))
def test_every_layout_is_drawn_and_read(layout, tmp_path, capsys):
    root = tmp_path / layout
    counts = {"identities": "4", "val_identities": "1", "test_identities": "2", "images": "2"}
    words = [word for option in COUNTS[layout] for word in (f"--{option.replace('_', '-')}", counts[option])]
    vireid(["synthesize", str(root), "--layout", layout, *words, "--size", "32x16", "--workers", "1"])
    assert f"in the {layout} layout" in capsys.readouterr().out
    dataset = READERS[layout](root)
    samples = dataset.samples("train")
    assert samples
    assert all((root / sample.path).is_file() for sample in samples)
    # Results say that the images are drawn, as the folder does; one without its marker is taken for the real dataset.
    assert dataset.synthetic
    (root / "synthetic.json").unlink()
    assert not READERS[layout](root).synthetic


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--layout", "regdb", "--test-identities", "3"], "--test-identities"),
        (["--layout", "llcm", "--like", "exp"], "--like"),
        (["--like", "exp", "--images", "3"], "--images"),
        (["--like", "nowhere"], "does not exist"),
        (["--identities", "0"], "--identities is 0; give a whole number from 1"),
        (["--difficulty", "2"], "difficulty"),
        (["--size", "128"], "height x width"),
        (["--workers", "0"], "--workers is 0; give a whole number from 1"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(words, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        vireid(["synthesize", str(tmp_path / "root"), *words])
    assert exit_.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_a_folder_of_another_kind_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as exit_:
        vireid(["synthesize", str(tmp_path)])
    assert exit_.value.code == 2
    assert "choose another folder or delete it" in capsys.readouterr().err
