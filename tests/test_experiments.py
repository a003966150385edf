"""Every config in experiments/ through the command line, with a stub backbone and tiny data in the real layouts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from layout_files import write_plan

from vireid_lightning.cli import lightning, vireid
from vireid_lightning.data.synthetic import layouts
from vireid_lightning.methods import load_method
from vireid_lightning.methods.checkpoint import BLOCK, read_checkpoint

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
CONFIGS = sorted(EXPERIMENTS.glob("*.yaml"))

#: The stub: timm's own test network, four stages of one block each.
BACKBONE = "test_resnet"

PLANS = {
    "SYSUMM01": lambda: layouts.plan_sysu_mm01(train=6, val=3, test=4, images_per_camera=2),
    "RegDB": lambda: layouts.plan_regdb(identities=12, images_per_modality=3, trials=2),
    "LLCM": lambda: layouts.plan_llcm(train=6, test=4, images_per_camera=1),
    "SYSUMM02": lambda: layouts.plan_sysu_mm02(train=6, test=4, images_per_camera=4),
    "Market1501": lambda: layouts.plan_market1501(train=6, test=3, images_per_camera=2),
    "MSMT17": lambda: layouts.plan_msmt17(train=6, test=3, images_per_identity=4),
    "Manifest": lambda: layouts.plan_manifest(train=6, val=3, test=4, images_per_camera=2),
}


#: Rows of each dataset's table. SYSU-MM01: four official and two seeded; the others: two directions.
ROWS = {"SYSUMM01": 6, "Synthetic": 6, "RegDB": 2, "LLCM": 2, "SYSUMM02": 2, "Manifest": 2}


@pytest.fixture(scope="session")
def roots(tmp_path_factory) -> dict[str, Path]:
    """One tiny folder for each layout, and one that the synthetic dataset draws into."""
    base = tmp_path_factory.mktemp("datasets")
    found = {name: write_plan(plan(), base / name) for name, plan in PLANS.items()}
    return {**found, "Synthetic": base / "synthetic"}


def _setting(config: dict, key: str) -> dict | None:
    for part in key.split("."):
        config = (config or {}).get(part)
    return config


def shrink(config: dict, roots: dict[str, Path]) -> list[str]:
    """Return the arguments that make an experiment tiny: stub backbone, 96 x 48 pixels, two steps, one worker."""
    arguments = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
    arguments += ["--trainer.check_val_every_n_epoch", "1", "--trainer.enable_progress_bar", "false"]
    arguments += ["--model.init_args.backbone", BACKBONE, "--model.init_args.pretrained", "false"]
    arguments += ["--data.image_size", "[96, 48]", "--data.num_workers", "0", "--data.eval_batch_size", "64"]
    arguments += ["--data.identities_per_batch", "3", "--data.images_per_modality", "2", "--data.steps_per_epoch", "2"]
    for key in ("dataset", "source.dataset"):
        if dataset := _setting(config["data"], key):
            name = dataset["class_path"]
            root = roots[name] / "manifest.csv" if name == "Manifest" else roots[name]
            argument = "path" if name == "Manifest" else "root"
            arguments += [f"--data.{key}.init_args.{argument}", str(root)]
            if name == "Synthetic":
                sizes = {"identities": 6, "val_identities": 3, "test_identities": 4, "images": 2}
                arguments += [item for k, v in sizes.items() for item in (f"--data.{key}.init_args.{k}", str(v))]
    return arguments + EXTRA.get(config["model"]["class_path"], [])


#: What else makes a method tiny.
EXTRA: dict[str, list[str]] = {
    # One epoch of each stage. Random weights know no clusters for DBSCAN to find.
    "CMAM": [
        "--model.init_args.source.steps=2",
        "--model.init_args.source.kl_weights=[0.1]",
        "--model.init_args.source.clustering=kmeans",
        "--model.init_args.source.clusters=4",
        "--model.init_args.target.dbscan_steps=0",
        "--model.init_args.target.kmeans_steps=2",
        "--model.init_args.target.clusters=4",
        "--data.source.identities_per_batch=2",
        "--data.source.images_per_identity=3",
        "--trainer.max_epochs=2",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_an_experiment_trains_and_scores_its_whole_table(config, roots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    lightning(["fit", "--config", str(config), *shrink(settings, roots)])
    runs = list(tmp_path.glob("runs/*/version_0"))
    assert len(runs) == 1
    assert (runs[0] / "config.yaml").is_file()
    assert "train/loss" in (runs[0] / "metrics.csv").read_text(encoding="utf-8")
    results = json.loads((runs[0] / "checkpoints" / "results.json").read_text(encoding="utf-8"))
    assert results["method"] == settings["model"]["class_path"]
    assert results["checkpoint_kind"] in ("last", "best")
    assert len(results["results"]) == ROWS[settings["data"]["dataset"]["class_path"]]
    checkpoint = read_checkpoint(runs[0] / "checkpoints" / "last.ckpt")
    assert checkpoint[BLOCK]["preprocessing"]["image_size"] == [96, 48]
    module = load_method(runs[0] / "checkpoints" / "last.ckpt")
    assert type(module).__name__ == settings["model"]["class_path"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_an_experiment_is_complete(config):
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    assert "seed_everything" in settings
    assert {"identities_per_batch", "images_per_modality", "steps_per_epoch", "image_size"} <= set(settings["data"])
    assert settings["trainer"]["max_epochs"] > 0
    assert settings["trainer"]["logger"][0]["init_args"]["name"] == config.stem


TINY = [
    "--model=MPANet",
    f"--model.backbone={BACKBONE}",
    "--model.pretrained=false",
    "--data.dataset=SYSUMM01",
    "--data.image_size=[96, 48]",
    "--data.num_workers=0",
    "--data.identities_per_batch=2",
    "--data.images_per_modality=2",
    "--data.steps_per_epoch=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]


def run(*arguments: str, root: Path) -> None:
    command = [sys.executable, "-m", "vireid_lightning", *arguments, *TINY, f"--data.dataset.root={root}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(roots, tmp_path_factory) -> Path:
    """The last checkpoint of one epoch of MPANet."""
    folder = tmp_path_factory.mktemp("trained")
    logger = json.dumps([{"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "run"}}])
    arguments = ["--trainer.max_epochs=1", f"--trainer.logger={logger}", "--test_after_fit=false"]
    lightning(["fit", *TINY, f"--data.dataset.root={roots['SYSUMM01']}", *arguments])
    return folder / "run" / "version_0" / "checkpoints" / "last.ckpt"


def cmam(roots: dict[str, Path], *arguments: str) -> Path:
    """Train CMAM on a tiny SYSU-MM01, sources from MSMT17's layout; return the last checkpoint."""
    config = EXPERIMENTS / "cmam_sysu.yaml"
    tiny = shrink(yaml.safe_load(config.read_text(encoding="utf-8")), roots)
    source = ["--data.source.dataset=MSMT17", f"--data.source.dataset.init_args.root={roots['MSMT17']}"]
    before = set(Path.cwd().glob("runs/*/version_*"))
    lightning(["fit", "--config", str(config), *tiny, *source, *arguments])
    (run,) = set(Path.cwd().glob("runs/*/version_*")) - before
    return run / "checkpoints" / "last.ckpt"


@pytest.mark.long
def test_cmams_stages_run_alone_and_a_stopped_run_goes_on(roots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = "--trainer.max_epochs=1"
    first = cmam(roots, one, "--model.init_args.target=null")
    second = cmam(roots, one, "--model.init_args.source=null", f"--model.init_args.init_from={first}")
    whole = cmam(roots)
    # The stages' plan is that of two epochs; the run is stopped after the first.
    stopped = cmam(roots, "--trainer.max_steps=2", "--test_after_fit=false")
    resumed = cmam(roots, f"--ckpt_path={stopped}")
    # A run of stage 1 alone goes on to the second when the config has one.
    continued = cmam(roots, f"--ckpt_path={first}")
    weights = [load_method(path).state_dict() for path in (first, second, whole, stopped, resumed, continued)]
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[2][name], weights[3][name]) for name in weights[2])
    for other in weights[4:]:
        assert all(torch.equal(weights[2][name], other[name]) for name in weights[2])


@pytest.mark.slow
def test_weights_and_biases_log_a_run_offline(roots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overlay = ["--config", str(EXPERIMENTS / "overlays" / "wandb.yaml")]
    config = EXPERIMENTS / "baseline_sysu.yaml"
    tiny = shrink(yaml.safe_load(config.read_text(encoding="utf-8")), roots)
    lightning(["fit", "--config", str(config), *overlay, *tiny])
    (written,) = tmp_path.glob("**/wandb/offline-run-*/*.wandb")
    assert written.stat().st_size > 0
    # A second training of this process is a run of its own.
    lightning(["fit", "--config", str(config), *overlay, *tiny, "--test_after_fit=false"])
    assert len(list(tmp_path.glob("**/wandb/offline-run-*/*.wandb"))) == 2


@pytest.mark.slow
def test_two_processes_score_like_one(roots, trained, tmp_path, monkeypatch):
    """24 queries and 16 x 2 gallery images do not divide evenly into batches of 5 on 2 ranks."""
    monkeypatch.chdir(tmp_path)
    common = [f"--ckpt_path={trained}", "--data.eval_batch_size=5"]
    lightning(["test", *TINY, *common, f"--data.dataset.root={roots['SYSUMM01']}", "--trainer.devices=1"])
    one = json.loads((trained.parent / "results.json").read_text(encoding="utf-8"))
    run("test", *common, "--trainer.devices=2", "--trainer.strategy=ddp", root=roots["SYSUMM01"])
    two = json.loads((trained.parent / "results.json").read_text(encoding="utf-8"))
    assert (trained.parent / "results_1.json").is_file()
    assert one["results"] == two["results"]
    # Without a checkpoint, the results go to the logs.
    folder = f"--trainer.default_root_dir={tmp_path / 'logs'}"
    forked = ["--trainer.devices=2", "--trainer.strategy=ddp_fork", folder, f"--data.dataset.root={roots['SYSUMM01']}"]
    lightning(["test", *TINY, "--allow_untrained=true", *forked])
    assert len(list((tmp_path / "logs").glob("**/results.json"))) == 1


@pytest.mark.long
def test_what_two_processes_predict_evaluate_scores_like_a_test(roots, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = roots["SYSUMM01"]
    shared = [*TINY, f"--data.dataset.root={root}", f"--ckpt_path={trained}", f"--trainer.default_root_dir={tmp_path}"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", f"--trainer.default_root_dir={tmp_path}"]
    run("predict", f"--ckpt_path={trained}", "--data.eval_batch_size=5", *two, root=root)
    (embeddings,) = tmp_path.glob("**/embeddings.npz")
    vireid(["evaluate", str(embeddings), "--dataset", "SYSUMM01", "--root", str(root), "--output", "scores.json"])
    lightning(["test", *shared])
    tested = json.loads((trained.parent / "results.json").read_text(encoding="utf-8"))
    scored = json.loads(Path("scores.json").read_text(encoding="utf-8"))
    assert [row["protocol"] for row in tested["results"]] == [row["protocol"] for row in scored["results"]]
    for ours, theirs in zip(tested["results"], scored["results"], strict=True):
        assert ours["scores"] == theirs["scores"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ckpt_path=README.md"], "is not a checkpoint"),
        (["--ckpt_path=absent.ckpt"], "There is no checkpoint"),
        (["--data.identities_per_batch=40"], "identities"),
        (["--data.validation_protocol=all/singel/official"], "Did you mean 'all/single/official'?"),
        (["--model.backbone=vit_relpos_small_patch16_224"], "four stages"),
        (["--model.backbone=resnet5O"], "Did you mean 'resnet50'?"),
    ],
)
def test_a_run_that_cannot_start(arguments, expected, roots, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("no checkpoint", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        lightning(["fit", *TINY, f"--data.dataset.root={roots['SYSUMM01']}", "--trainer.logger=false", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error
