"""Trainer settings under which training would fail late, or train nothing, are refused at set-up by their names."""

from __future__ import annotations

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

from vireid_lightning.data import trainer_checks
from vireid_lightning.data.trainer_checks import PRECISIONS, check_trainer
from vireid_lightning.errors import VIReIDError


def make(**options) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"overfit_batches": 2}, "trainer.overfit_batches"),
        ({"limit_train_batches": 0}, "trainer.limit_train_batches is 0"),
        ({"max_epochs": 0}, "trainer.max_epochs is 0"),
        ({"precision": "bf16-true"}, "trainer.precision is bf16-true"),
        ({"precision": "16-true"}, "trainer.precision is 16-true"),
        ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches is 0"),
        ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch is 0"),
        ({"log_every_n_steps": -1}, "trainer.log_every_n_steps is -1"),
        ({"gradient_clip_val": float("nan")}, "trainer.gradient_clip_val is nan"),
        ({"gradient_clip_val": -1.0}, "trainer.gradient_clip_val is -1"),
        ({"callbacks": [LearningRateFinder()]}, "LearningRateFinder"),
        ({"callbacks": [BatchSizeFinder()]}, "BatchSizeFinder"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(options, named):
    with pytest.raises(VIReIDError, match=named):
        check_trainer(make(**options), "fit")


@pytest.mark.parametrize("precision", [*PRECISIONS, 64, "bf16"])
def test_these_precisions_train(precision, monkeypatch):
    monkeypatch.setattr(trainer_checks, "emulates_bfloat16", lambda device: False)
    check_trainer(make(precision=precision), "fit")


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_processor_that_emulates_bfloat16_is_told_of(stage, monkeypatch, recwarn):
    monkeypatch.setattr(trainer_checks, "emulates_bfloat16", lambda device: device.type == "cpu")
    with pytest.warns(UserWarning, match="Set trainer.precision to 32-true"):
        check_trainer(make(precision="bf16-mixed"), stage)
    recwarn.clear()
    check_trainer(make(precision="32-true"), stage)
    assert not [warning for warning in recwarn if "32-true" in str(warning.message)]


@pytest.mark.parametrize("options", [{"fast_dev_run": True}, {"limit_train_batches": 0.5}, {"limit_val_batches": 0}])
def test_these_limits_train(options):
    check_trainer(make(**options), "fit")
