"""A run of two processes that is stopped again and again ends bit-identical to one that was not."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from references.launched import launch, run_as_rank

from vireid_lightning.methods.cmam import within_epoch

pytestmark = pytest.mark.long

#: Signal, steps done before it comes, the process that it is sent to, whether it comes in the validation that follows
#: these steps, and the steps that are done when the state is saved. Epochs have three steps.
STOPS = [
    (signal.SIGTERM, 0, 1, False, 1),
    (signal.SIGINT, 2, 0, False, 3),  # before a validation, with which the run goes on
    (signal.SIGTERM, 3, 0, True, 3),  # after that validation
    (signal.SIGINT, 4, 1, False, 5),
    (signal.SIGTERM, 5, 0, False, 6),  # right after going on
    (signal.SIGINT, 7, 1, False, 8),
]
ARGUMENTS = {
    "Baseline": {},
    "AGW": {},
    "DCLNet": {"parts": 2},
    "MPANet": {"parts": 2},
    "MMGL": {"stripes": 2, "part_dimension": 16},
    "CMAM": {
        "source": {"steps": 3, "kl_weights": [0.1], "warmup_steps": 1, "clustering": "kmeans", "clusters": 4},
        "target": {"dbscan_steps": 0, "kmeans_steps": 6, "warmup_steps": 1, "clusters": 4},
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Where the first run draws its images."""
    return tmp_path_factory.mktemp("synthetic") / "images"


def settings(method: str, root: Path) -> list[str]:
    small = {"root": str(root), "identities": 6, "images": 2}
    target = {**small, "val_identities": 3, "test_identities": 4, "train": "train", "validation": "val"}
    model = {"backbone": "test_resnet", "pretrained": False, **ARGUMENTS[method]}
    data = {
        "dataset": {"class_path": "Synthetic", "init_args": target},
        "image_size": [64, 32],
        "num_workers": 0,
        "identities_per_batch": 4,
        "images_per_modality": 2,
        "steps_per_epoch": 3,
    }
    if method == "CMAM":
        people = {"class_path": "Synthetic", "init_args": {**small, "seed": 1}}
        data["source"] = {"dataset": people, "identities_per_batch": 4, "images_per_identity": 2}
    return [
        "fit",
        f"--model={json.dumps({'class_path': method, 'init_args': model})}",
        *(f"--data.{name}={json.dumps(value)}" for name, value in data.items()),
        *("--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=1", "--trainer.accelerator=cpu"),
        *("--trainer.sync_batchnorm=true", "--trainer.enable_progress_bar=false", "--test_after_fit=false"),
    ]


def find_last(folder: Path) -> Path:
    return max(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)


def assert_same(first, second, where: str = "") -> None:
    """Check that two structures of tensors, lists, dictionaries and plain values are equal, tensors to the bit."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for name in first:
            assert_same(first[name], second[name], f"{where}/{name}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for number, pair in enumerate(zip(first, second)):
            assert_same(*pair, f"{where}/{number}")
    else:
        assert first == second, where


@pytest.mark.parametrize("method", ARGUMENTS)
def test_a_chain_of_stops_ends_where_an_unbroken_run_does(method, root, tmp_path):
    whole, chain = tmp_path / "whole", tmp_path / "chain"
    whole.mkdir()
    chain.mkdir()
    words = settings(method, root)
    assert launch(run_as_rank, 2, whole, words) == [0, 0]
    going_on: list[str] = []
    for number, step, rank, validation, saved in STOPS:
        stop = {"step": step, "number": number, "rank": rank, "validation": validation}
        stop_at = json.dumps({"class_path": "references.launched.StopAt", "init_args": stop})
        codes = launch(run_as_rank, 2, chain, [*words, *going_on, f"--trainer.callbacks+={stop_at}"])
        first, second = ((chain / f"said-{each}.txt").read_text(encoding="utf-8") for each in range(2))
        assert codes == [128 + number] * 2, first + second
        assert first.count("The run goes on with") == 1
        assert "The run goes on with" not in second
        path = find_last(chain)
        assert first.splitlines()[-1].endswith(f"--ckpt_path {path}")
        assert torch.load(path, weights_only=True)["global_step"] == saved
        going_on = [f"--ckpt_path={path}"]
    assert launch(run_as_rank, 2, chain, [*words, *going_on]) == [0, 0]
    expected, found = (torch.load(find_last(folder), weights_only=True) for folder in (whole, chain))
    assert expected["global_step"] == 9
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step"):
        assert_same(found[name], expected[name], name)
    if method == "CMAM":  # stage 2, whose state stage 1's classifiers are no part of
        for name in ("phase", "labels", "prototypes"):
            assert_same(found[within_epoch.KEY][name], expected[within_epoch.KEY][name], name)
