"""``vireid trials`` trains each trial once, goes on where it was stopped, and scores all of them together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from layout_files import write_plan

from vireid_lightning.cli import lightning, vireid
from vireid_lightning.cli.repeated_runs import build_fit_command, find_results, parse_numbers
from vireid_lightning.cli.tools.trials import TRIALS
from vireid_lightning.data.synthetic import layouts
from vireid_lightning.errors import VIReIDError

CONFIG = Path(__file__).resolve().parents[3] / "experiments" / "baseline_regdb.yaml"


@pytest.mark.parametrize(
    ("text", "numbers"), [("1-10", list(range(1, 11))), ("3", [3]), ("5,1-2,2", [1, 2, 5]), (" 1 , 4 ", [1, 4])]
)
def test_trial_numbers(text, numbers):
    assert parse_numbers(text, "--trials") == numbers


@pytest.mark.parametrize("text", ["", "a", "1-", "3-1", "1..4", "-2", "1-99999999999", "²", "9" * 5000])
def test_trial_numbers_that_make_no_sense(text):
    with pytest.raises(VIReIDError, match="--trials"):
        parse_numbers(text, "--trials")


def test_a_stopped_trial_goes_on_from_its_newest_checkpoint(tmp_path):
    assert "--ckpt_path" not in build_fit_command([str(CONFIG)], 1, tmp_path, [], TRIALS)
    for version in (0, 1):
        path = tmp_path / f"version_{version}" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
    command = build_fit_command([str(CONFIG)], 1, tmp_path, ["--trainer.max_epochs", "3"], TRIALS)
    assert command[command.index("--ckpt_path") + 1] == str(path)
    settings = ["--data.dataset.init_args.trial=1", "--test_after_fit=true"]
    assert command[-4:] == ["--trainer.max_epochs", "3", *settings]


def test_only_a_test_of_the_last_weights_on_the_trial_itself_finishes_it(tmp_path):
    rows = [{"protocol": "all", "scores": {"rank1": 1.0, "mAP": 2.0}}]
    right = {"stage": "test", "checkpoint_kind": "last", "dataset_trial": 3, "dataset": "RegDB", "results": rows}
    wrong = [{"checkpoint_kind": "best"}, {"stage": "validate"}, {"dataset_trial": 2}, {"trial_mismatch": True}]
    wrong += [{"preprocessing_mismatch": True}, {"results": []}]
    folder = tmp_path / "version_9" / "checkpoints"
    folder.mkdir(parents=True)
    for number, changes in enumerate(wrong):
        (folder / f"results_{number}.json").write_text(json.dumps({**right, **changes}))
    (folder / "results_cut.json").write_text("{")
    (folder / "results_list.json").write_text("[]")
    assert find_results(tmp_path, 3, TRIALS) is None
    (folder / "results_6.json").write_text(json.dumps(right))
    (folder / "results.json").write_text(json.dumps({**right, "checkpoint_kind": "best"}))
    assert find_results(tmp_path, 3, TRIALS) == folder / "results_6.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    plan = layouts.plan_regdb(identities=8, images_per_modality=2, trials=2)
    return write_plan(plan, tmp_path_factory.mktemp("regdb"))


@pytest.fixture(scope="module")
def tiny(root) -> list[str]:
    return [
        f"--data.dataset.init_args.root={root}",
        "--model.init_args.backbone=test_resnet",
        "--model.init_args.pretrained=false",
        "--data.image_size=[64, 32]",
        "--data.num_workers=0",
        "--data.identities_per_batch=2",
        "--data.images_per_modality=2",
        "--data.steps_per_epoch=1",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trials")
    vireid(["trials", "--config", str(CONFIG), "--trials", "1-2", "--output", str(output), "--", *tiny])
    return output


@pytest.mark.slow
def test_each_trial_is_trained_and_scored_once(done, tiny, capfd):
    for trial in (1, 2):
        results = json.loads((done / f"trial_{trial}/version_0/checkpoints/results.json").read_text(encoding="utf-8"))
        assert results["dataset_trial"] == results["trained_on_trial"] == trial
        assert {row["direction"] for row in results["results"]} == {"visible-to-infrared", "infrared-to-visible"}
    vireid(["trials", "--config", str(CONFIG), "--trials", "1-2", "--output", str(done), "--", *tiny])
    assert capfd.readouterr().out.count("finished before") == 2
    assert not list(done.glob("trial_*/version_1"))


@pytest.mark.slow
def test_a_checkpoint_is_not_scored_on_another_trial(done, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = done / "trial_1/version_0/checkpoints/last.ckpt"
    arguments = ["test", "--config", str(CONFIG), *tiny, "--data.dataset.init_args.trial=2", f"--ckpt_path={path}"]
    with pytest.raises(SystemExit) as stop:
        lightning(arguments)
    assert stop.value.code == 2
    assert "was trained on trial 1 of RegDB" in capsys.readouterr().err
    before = (path.parent / "results.json").read_bytes()
    lightning([*arguments, "--allow-trial-mismatch"])
    assert (path.parent / "results.json").read_bytes() == before
    marked = json.loads((path.parent / "results_trial_mismatch.json").read_text(encoding="utf-8"))
    assert marked["trial_mismatch"] is True
    assert (marked["trained_on_trial"], marked["dataset_trial"]) == (1, 2)


@pytest.mark.slow
def test_saved_embeddings_know_the_trial_of_their_weights(done, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = done / "trial_1/version_0/checkpoints/last.ckpt"
    arguments = ["predict", "--config", str(CONFIG), *tiny, "--data.dataset.init_args.trial=2", f"--ckpt_path={path}"]
    lightning([*arguments, "--allow-trial-mismatch"])
    (file,) = tmp_path.glob("runs/**/embeddings.npz")
    root = next(word.split("=")[1] for word in tiny if word.startswith("--data.dataset.init_args.root"))
    score = ["evaluate", str(file), "--dataset", "RegDB", "--root", root, "--trial", "2", "--output", "results.json"]
    with pytest.raises(SystemExit) as stop:
        vireid(score)
    assert stop.value.code == 2
    assert "weights that were trained on trial 1 of RegDB, but the data is trial 2" in capsys.readouterr().err
    vireid([*score, "--allow-trial-mismatch"])
    assert "RegDB, trial 2 BUT TRAINED ON TRIAL 1: Baseline" in capsys.readouterr().out
    marked = json.loads(Path("results.json").read_text(encoding="utf-8"))
    assert (marked["trial_mismatch"], marked["trained_on_trial"], marked["checkpoint_kind"]) == (True, 1, "last")
    assert (marked["method"], marked["checkpoint"]) == ("Baseline", str(path))


@pytest.mark.slow
def test_a_run_is_not_resumed_on_another_trial(done, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = done / "trial_1/version_0/checkpoints/last.ckpt"
    arguments = ["fit", "--config", str(CONFIG), *tiny, "--data.dataset.init_args.trial=2", f"--ckpt_path={path}"]
    with pytest.raises(SystemExit):
        lightning(arguments)
    assert "was trained on trial 1 of RegDB" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trial_stopped_between_training_and_its_test_is_scored(done, tiny, tmp_path, monkeypatch):
    """What is left after a kill during the test of the best weights: checkpoints, and perhaps that test's results."""
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "again"
    shutil.copytree(done / "trial_1", output / "trial_1")
    folder = output / "trial_1/version_0/checkpoints"
    for path in folder.glob("results*.json"):
        path.unlink()
    (folder / "results.json").write_text(json.dumps({"stage": "test", "checkpoint_kind": "best", "dataset_trial": 1}))
    vireid(
        [
            "trials",
            "--config",
            str(CONFIG),
            "--trials",
            "1",
            "--output",
            str(output),
            "--",
            *tiny,
            "--test_after_fit=false",
        ]
    )
    path = find_results(output / "trial_1", 1, TRIALS)
    first = find_results(done / "trial_1", 1, TRIALS)
    assert path.is_relative_to(output)
    assert [json.loads(each.read_text(encoding="utf-8"))["results"] for each in (path, first)] == [
        json.loads(first.read_text(encoding="utf-8"))["results"]
    ] * 2


def test_loggers_of_overlays_stay(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("trainer:\n  logger+:\n    - class_path: TensorBoardLogger\n")
    command = build_fit_command([str(CONFIG), str(overlay)], 3, tmp_path / "trial_3", [], TRIALS)
    (ours,) = (number for number, word in enumerate(command) if word.startswith("--trainer.logger="))
    assert command.index(str(CONFIG)) < ours < command.index(str(overlay))
    assert json.loads(command[ours].partition("=")[2])[0]["init_args"]["name"] == "trial_3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: {dataset: {class_path: LLCM}}", "LLCM has one split only"),
        ("data: {dataset: LLCM}", "LLCM has one split only"),
        ("data: [", "cannot be read"),
        ("nothing", "holds no settings"),
        (None, "There is no config file"),
    ],
)
def test_configs_that_have_no_trials_are_refused_before_training(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(SystemExit) as stop:
        vireid(["trials", "--config", str(tmp_path / "bad.yaml"), "--output", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_trial_that_fails_is_named(tmp_path, capsys):
    nowhere = f"--data.dataset.init_args.root={tmp_path / 'nowhere'}"
    arguments = ["trials", "--config", str(CONFIG), "--trials", "4", "--output", str(tmp_path), "--", nowhere]
    with pytest.raises(SystemExit) as stop:
        vireid(arguments)
    assert stop.value.code == 2
    assert "Trial 4 ended with exit code 2" in capsys.readouterr().err
