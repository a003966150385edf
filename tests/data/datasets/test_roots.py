"""The folder of all datasets, given once."""

from __future__ import annotations

import pytest
from layout_files import write_plan

from vireid_lightning.data import LLCM, Manifest
from vireid_lightning.data.synthetic.layouts import plan_llcm, plan_manifest
from vireid_lightning.errors import VIReIDError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder without datasets; they lie beside it."""
    write_plan(plan_llcm(train=2, test=2, images_per_camera=1), tmp_path / "all" / "LLCM")
    write_plan(plan_manifest(train=2, val=0, test=2, images_per_camera=2), tmp_path / "all" / "campus")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("VIREID_DATA", raising=False)
    return tmp_path


def test_the_variable_names_the_folder_of_all_datasets(folder, monkeypatch):
    with pytest.raises(VIReIDError, match=r"LLCM does not exist, here or in data \(VIREID_DATA is not set\)\."):
        LLCM("LLCM")
    monkeypatch.setenv("VIREID_DATA", str(folder / "all"))
    assert LLCM("LLCM").root == folder / "all" / "LLCM"
    assert Manifest("campus/manifest.csv").path == folder / "all" / "campus" / "manifest.csv"
    assert LLCM(folder / "all" / "LLCM").root == folder / "all" / "LLCM"
    for opened, name in ((LLCM, "LCM"), (Manifest, "campus/manifest.tsv")):
        with pytest.raises(VIReIDError, match=rf"{name}.*, here or in .*all \(VIREID_DATA=.*all\)\. Give"):
            opened(name)
    with pytest.raises(VIReIDError, match=r"/nowhere does not exist\. Give .*VIREID_DATA"):
        LLCM("/nowhere")


def test_the_current_folder_comes_first_and_data_stands_in_for_the_variable(folder, monkeypatch):
    (folder / "here" / "data").symlink_to(folder / "all")
    assert LLCM("LLCM").root.as_posix() == "data/LLCM"
    assert LLCM("data/LLCM").root.as_posix() == "data/LLCM"
    monkeypatch.setenv("VIREID_DATA", "/nowhere")
    (folder / "here" / "LLCM").symlink_to(folder / "all" / "LLCM")
    assert LLCM("LLCM").root.as_posix() == "LLCM"
