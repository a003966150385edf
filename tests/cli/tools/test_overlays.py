from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import __version__ as lightning_version

from vireid_lightning.cli import vireid
from vireid_lightning.methods import MPANet
from vireid_lightning.methods.checkpoint import BLOCK, describe_run


@pytest.fixture
def call(tmp_path):
    model = MPANet(num_classes=3, backbone="resnet10t", pretrained=False)
    checkpoint = {"state_dict": model.state_dict(), "pytorch-lightning_version": lightning_version}
    describe_run(checkpoint, "MPANet", dict(model.hparams), None)
    checkpoint[BLOCK]["preprocessing"] = {"image_size": [64, 32], "interpolation": "bilinear"}
    torch.save(checkpoint, tmp_path / "it.ckpt")
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8))
    image = str(tmp_path / "a.png")

    def run(*more, query="infrared", gallery=image, output="it.png"):
        sides = ["--query", query, image, "--gallery", "visible", gallery]
        vireid(
            ["overlays", str(tmp_path / "it.ckpt"), *sides, "--output", str(tmp_path / output), "--dpi", "60", *more]
        )

    return run


def test_writes_a_figure_and_keeps_what_is_there(call, tmp_path, capsys):
    call()
    picture = cv2.imread(str(tmp_path / "it.png"))
    assert picture.shape[1] > 300
    assert picture.std() > 10
    with pytest.raises(SystemExit, match="2"):
        call()
    assert "give --overwrite" in capsys.readouterr().err
    call("--overwrite", output="it.png")


def test_bad_input_is_told_in_one_sentence(call, tmp_path, capsys):
    for wrong, message in (
        ({"query": "thermal"}, "--query names the modality 'thermal'; give visible or infrared"),
        ({"gallery": str(tmp_path / "it.ckpt")}, "is not an image"),
        ({"gallery": str(tmp_path / "none.png")}, "cannot be read"),
        ({"output": "it.gif"}, "give the name of a .png, .pdf or .svg file"),
    ):
        with pytest.raises(SystemExit, match="2"):
            call(**wrong)
        assert message in capsys.readouterr().err
        assert not list(tmp_path.glob("it.gif")) + list(tmp_path.glob("it.png"))
