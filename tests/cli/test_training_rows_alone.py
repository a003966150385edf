"""A manifest that only trains: a real command line, without validation and test."""

from __future__ import annotations

import pytest
import torch
from layout_files import write, write_plan

from vireid_lightning.cli import lightning
from vireid_lightning.data.synthetic.layouts import plan_manifest

pytestmark = pytest.mark.slow


def settings(root, folder):
    return [
        "--model=Baseline",
        "--model.backbone=test_resnet",
        "--model.pretrained=false",
        "--data.dataset=Manifest",
        f"--data.dataset.root={root / 'manifest.csv'}",
        "--data.image_size=[64, 32]",
        "--data.num_workers=0",
        "--data.identities_per_batch=2",
        "--data.images_per_modality=2",
        "--data.steps_per_epoch=1",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        f"--trainer.default_root_dir={folder}",
    ]


@pytest.mark.filterwarnings("error:.*could not find the monitored key")
@pytest.mark.parametrize("kept", [("train",), ("train", "val")])
def test_training_rows_train(tmp_path, capsys, kept):
    root = write_plan(plan_manifest(train=2, val=2, test=2, images_per_camera=2), tmp_path / "campus")
    lines = (root / "manifest.csv").read_text().splitlines()
    write(root / "manifest.csv", "\n".join([lines[0], *(line for line in lines if line.endswith(kept))]))
    arguments = settings(root, tmp_path / "run")
    if "val" in kept:
        lightning(["fit", *arguments])
    else:
        with pytest.warns(UserWarning, match=r"no images to search, only to train on: validation and test are left"):
            lightning(["fit", *arguments])
        assert [path.name for path in (tmp_path / "run").glob("**/*.ckpt")] == ["last.ckpt"]
    (last,) = (tmp_path / "run").glob("**/last.ckpt")
    assert torch.load(last, weights_only=True)["epoch"] == 1
    assert not list((tmp_path / "run").glob("**/results*.json"))
    with pytest.raises(SystemExit):
        lightning(["test", *arguments, f"--ckpt_path={last}"])
    assert "has no images to search, which scoring needs. Add query and gallery images." in capsys.readouterr().err
