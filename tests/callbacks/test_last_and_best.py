"""A run that is asked to stop saves its state at the next step, and goes on from there as if it had not stopped."""

from __future__ import annotations

import io
import os
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from references.fake_dataset import write_fake_dataset
from rich.console import Console

from vireid_lightning import CrossModalityDataModule, RetrievalMetrics
from vireid_lightning.callbacks import LastAndBest
from vireid_lightning.callbacks.signals import RunStopped
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import Baseline, Optimization, load_method
from vireid_lightning.methods.checkpoint import read_checkpoint

STEPS = 4  # of an epoch


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_fake_dataset(tmp_path_factory.mktemp("data"))


class Signal(Callback):
    """Sends a signal at the n-th call of a hook, and counts steps and validations."""

    def __init__(self, hook: str = "", at: int = 0, number: int = signal.SIGTERM) -> None:
        self.hook, self.at, self.number = hook, at, number
        self.calls = self.steps = self.validations = 0

    def _called(self, hook: str) -> None:
        if hook == self.hook:
            if self.calls == self.at:
                os.kill(os.getpid(), self.number)
            self.calls += 1

    def on_train_batch_start(self, *_):
        self._called("step")

    def on_train_batch_end(self, *_):
        self.steps += 1

    def on_validation_batch_start(self, *_):
        self._called("validation batch")

    def on_validation_epoch_end(self, *_):
        self._called("validation end")

    def on_validation_end(self, *_):
        self.validations += 1


SETTINGS = Optimization(lr=1e-2, schedule="cosine", warmup_epochs=1)


def fit(dataset, folder: Path, counts: Signal, *, checkpoint=None, callbacks=(), optimization=SETTINGS, **options):
    torch.manual_seed(0)
    data = CrossModalityDataModule(
        dataset,
        identities_per_batch=2,
        images_per_modality=2,
        image_size=(32, 16),
        steps_per_epoch=STEPS,
        num_workers=0,
        eval_batch_size=4,
        seed=1,
    )
    model = Baseline(
        num_classes=data.num_identities,
        backbone="test_resnet",
        pretrained=False,
        optimization=optimization,
    )
    saving = LastAndBest(
        folder, monitor="val/mAP", mode="max", filename="best", save_last=True, enable_version_counter=False
    )
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    scores = RetrievalMetrics(console=Console(file=io.StringIO()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=[scores, saving, counts, *callbacks],
            **{"max_epochs": 3, **quiet, **options},
        )
        trainer.fit(model, data, ckpt_path=checkpoint)
    return model, saving, trainer


def same_weights(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


LIMITS = {
    "epochs": {"max_epochs": 3},
    "steps": {"max_epochs": -1, "max_steps": 10},
    "accumulated": {"max_epochs": 3, "accumulate_grad_batches": 2},
    "validations within": {"max_epochs": 2, "val_check_interval": 2},
    "rare validations": {"max_epochs": 3, "check_val_every_n_epoch": 2},
}
POINTS = [("step", 2), ("step", 3), ("step", 5), ("validation batch", 0)]


@pytest.mark.slow
@pytest.mark.parametrize("limits", LIMITS)
def test_a_stopped_run_ends_as_one_that_was_not(dataset, tmp_path, limits):
    options = LIMITS[limits]
    counts = Signal()
    whole, saved, trained = fit(dataset, tmp_path / "whole", counts, **options)
    for point in POINTS:
        folder = tmp_path / "-".join(map(str, point))
        stopped, resumed = Signal(*point), Signal()
        with pytest.raises(RunStopped) as stop:
            fit(dataset, folder, stopped, **options)
        assert stop.value.code == 143
        assert stop.value.checkpoint == str(folder / "last.ckpt")
        model, saving, trainer = fit(dataset, tmp_path / "again", resumed, checkpoint=stop.value.checkpoint, **options)
        assert same_weights(model, whole), point
        assert stopped.steps + resumed.steps == counts.steps
        assert stopped.validations + resumed.validations == counts.validations
        assert saving.best_model_score == saved.best_model_score
        assert same_weights_in(saving.best_model_path, saved.best_model_path)
        assert (trainer.current_epoch, trainer.global_step) == (trained.current_epoch, trained.global_step)
        shutil.rmtree(tmp_path / "again")


def same_weights_in(one, other) -> bool:
    files = [read_checkpoint(path)["state_dict"] for path in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*(file.values() for file in files)))


@pytest.mark.slow
def test_the_end_of_an_epoch_is_one_under_max_steps_too(dataset, tmp_path):
    """Lightning counts an epoch that it has not trained where such a run goes on from the end of an epoch."""

    class Keep(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            for path in (tmp_path / "whole").glob("*.ckpt"):
                shutil.copy(path, tmp_path / f"{path.stem}{trainer.current_epoch}.ckpt")

    limits = {"max_epochs": -1, "max_steps": 10}
    whole, *_ = fit(dataset, tmp_path / "whole", Signal(), callbacks=[Keep()], **limits)
    kept = sorted(tmp_path.glob("*.ckpt"))
    assert [path.stem for path in kept] == ["best1", "best2", "last1", "last2"]
    for path in kept:
        assert same_weights(fit(dataset, tmp_path / "again", Signal(), checkpoint=path, **limits)[0], whole), path
        shutil.rmtree(tmp_path / "again")


def test_a_second_resume_keeps_the_best_checkpoint_of_an_older_folder(dataset, tmp_path):
    """Also where all folders have been moved together."""
    first, second, third = (tmp_path / "runs" / f"version_{number}" for number in range(3))
    _, saving, _ = fit(dataset, first, Signal(), max_epochs=1)
    (score,) = (float(saving.best_model_score),)
    assert score < 100
    # A validation is left out, so the best stays that of the first folder.
    never = {"limit_val_batches": 0}
    fit(dataset, second, Signal(), checkpoint=first / "last.ckpt", max_epochs=2, **never)
    assert not (second / "best.ckpt").exists()
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    moved = [tmp_path / "moved" / folder.name for folder in (first, second, third)]
    _, saving, _ = fit(dataset, moved[2], Signal(), checkpoint=moved[1] / "last.ckpt", max_epochs=3, **never)
    assert Path(saving.best_model_path) == moved[0] / "best.ckpt"
    assert float(saving.best_model_score) == score


def test_a_second_sigint_stops_at_once_and_handlers_are_put_back(dataset, tmp_path):
    class Twice(Signal):
        def on_train_batch_start(self, *_):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(RunStopped) as stop:
        fit(dataset, tmp_path, Twice())
    assert (stop.value.code, stop.value.checkpoint) == (130, None)
    assert not (tmp_path / "last.ckpt").exists()
    with pytest.raises(RunStopped) as stop:
        fit(dataset, tmp_path, Signal("step", 0, signal.SIGINT))
    assert (stop.value.code, stop.value.checkpoint) == (130, str(tmp_path / "last.ckpt"))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_run_without_a_step_to_save_has_no_checkpoint(dataset, tmp_path):
    with pytest.raises(RunStopped) as stop:
        fit(dataset, tmp_path, Signal("step", 0), fast_dev_run=True)
    assert stop.value.checkpoint is None
    assert not list(tmp_path.iterdir())


AVERAGING = {
    "EMA": lambda: EMAWeightAveraging(decay=0.8),
    "SWA": lambda: StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AVERAGING)
def test_averaged_weights_are_scored_as_the_file_holds_them(dataset, tmp_path, name):
    model, saving, trainer = fit(dataset, tmp_path, Signal(), callbacks=[AVERAGING[name]()])
    data = trainer.datamodule
    for path in (saving.best_model_path, saving.last_model_path):
        (scored,) = trainer.test(model, data, ckpt_path=path, weights_only=True, verbose=False)
        alone = load_method(path)
        assert same_weights(model, alone)
        scores = RetrievalMetrics(console=Console(file=io.StringIO()))
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        (expected,) = Trainer(accelerator="cpu", callbacks=[scores], **quiet).test(alone, data, verbose=False)
        assert scored == expected
    with pytest.raises(RunStopped) as stop:
        fit(dataset, tmp_path / "stopped", Signal("step", 6), callbacks=[AVERAGING[name]()])
    _, again, _ = fit(
        dataset, tmp_path / "again", Signal(), checkpoint=stop.value.checkpoint, callbacks=[AVERAGING[name]()]
    )
    assert same_weights_in(again.last_model_path, saving.last_model_path)
    assert "resumed" not in read_checkpoint(again.last_model_path)["vireid"]["training"]


@pytest.mark.slow
def test_a_backbone_that_is_frozen_at_first_and_a_second_checkpoint(dataset, tmp_path):
    rates = []

    class Rates(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            rates.append([round(group["lr"], 6) for group in trainer.optimizers[0].param_groups])

    def callbacks():
        second = ModelCheckpoint(tmp_path / "mine", monitor="train/loss", filename="mine")
        return [second, BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=0.1), Rates()]

    optimization = Optimization(lr=1e-2, schedule="multistep", milestones=[2], lr_factors={"backbone": 1.0})
    whole, saving, _ = fit(dataset, tmp_path / "a", Signal(), callbacks=callbacks(), optimization=optimization)
    assert rates == [[0.01], [0.01, 0.001], [0.001, 0.001]]
    assert Path(saving.last_model_path) == tmp_path / "a" / "last.ckpt"
    assert Path(saving.best_model_path) == tmp_path / "a" / "best.ckpt"
    assert (tmp_path / "mine" / "mine.ckpt").is_file()
    for step in (1, 6):
        with pytest.raises(RunStopped) as stop:
            fit(dataset, tmp_path / "b", Signal("step", step), callbacks=callbacks(), optimization=optimization)
        path = stop.value.checkpoint
        model, *_ = fit(
            dataset, tmp_path / "c", Signal(), checkpoint=path, callbacks=callbacks(), optimization=optimization
        )
        assert same_weights(model, whole)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_epochs": 3},
        {"max_epochs": -1, "max_steps": 12},
        {"max_epochs": 9, "max_steps": 6, "accumulate_grad_batches": 2},
        {"max_epochs": -1, "max_steps": 6, "limit_train_batches": 2},
        {"max_epochs": 3, "max_time": "00:01:00:00"},
    ],
)
def test_cosine_ends_with_the_run_whatever_limits_it(dataset, tmp_path, limits):
    rates = []

    class Rates(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            rates.extend(round(group["lr"], 6) for group in trainer.optimizers[0].param_groups)

    fit(dataset, tmp_path, Signal(), callbacks=[Rates()], limit_val_batches=0, **limits)
    assert rates == [0.01, 0.01, 0.005]


def test_cosine_needs_an_end(dataset, tmp_path):
    with pytest.raises(VIReIDError, match=r"trainer.max_time alone does not tell"):
        fit(dataset, tmp_path, Signal(), max_epochs=-1, max_time="00:00:00:05")
