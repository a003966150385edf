"""``vireid seeds`` trains each seed once, goes on where it was stopped, and scores all of them together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vireid_lightning.cli import vireid
from vireid_lightning.cli.repeated_runs import find_results
from vireid_lightning.cli.tools.seeds import SEEDS

CONFIG = Path(__file__).resolve().parents[3] / "experiments" / "quickstart.yaml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "a"], "--seeds is 'a'; give numbers such as"),
        (["--seeds", "3-1"], "an empty range"),
        (["--seeds", "0-2000"], "more than 1000 runs"),
        (["--seeds", "4294967296"], "give seeds up to 4294967295"),
        (["--config", "own.yaml"], "own.yaml sets data.seed to 3, and every run would draw the same batches"),
        (["--config", "none.yaml"], "There is no config file none.yaml"),
        (["--", "--data.seed=3"], "--data.seed makes every run draw the same batches"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("data: {seed: 3}\n")
    with pytest.raises(SystemExit) as stop:
        vireid(["seeds", "--config", str(CONFIG), *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.long
def test_each_seed_is_trained_and_scored_once_and_goes_on(tmp_path, capfd):
    counts = ("identities=8", "val_identities=2", "test_identities=2", "images=2", "image_size=[32, 16]")
    tiny = [
        *(f"--data.dataset.init_args.{count}" for count in counts),
        f"--data.dataset.init_args.root={tmp_path / 'synthetic'}",
        "--model.init_args.backbone=test_resnet",
        "--data.image_size=[64, 32]",
        "--data.num_workers=0",
        "--data.identities_per_batch=2",
        "--data.images_per_modality=2",
        "--data.steps_per_epoch=1",
        "--trainer.max_epochs=1",
        "--trainer.precision=32-true",
        "--trainer.enable_progress_bar=false",
        "--seed_everything=77",  # the tool's own seed counts
    ]

    def run():
        vireid(["seeds", "--config", str(CONFIG), "--seeds", "3-4", "--output", str(tmp_path / "runs"), "--", *tiny])
        return capfd.readouterr().out

    printed = run()
    assert "Seed 3 (1 of 2)" in printed
    assert "Synthetic: MPANet, n = 2 (2 runs)" in printed
    paths = [tmp_path / f"runs/seed_{seed}/version_0/checkpoints/results.json" for seed in (3, 4)]
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert [content["training"]["seed"] for content in contents] == [3, 4]
    assert contents[0]["results"] != contents[1]["results"]
    assert run().count("finished before") == 2
    # What is left of a run that was killed before its test.
    paths[1].unlink()
    assert find_results(tmp_path / "runs/seed_4", 4, SEEDS) is None
    printed = run()
    assert printed.count("finished before") == 1
    found = find_results(tmp_path / "runs/seed_4", 4, SEEDS)
    assert json.loads(found.read_text(encoding="utf-8"))["results"] == contents[1]["results"]
