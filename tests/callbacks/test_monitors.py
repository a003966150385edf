"""The name of a monitored score that is misspelt is told before training; names that a method may log are not."""

from __future__ import annotations

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from vireid_lightning.callbacks.monitors import check_monitors
from vireid_lightning.errors import VIReIDError


def check(monitor: str | None) -> None:
    callbacks = [ModelCheckpoint(monitor=monitor)] + ([EarlyStopping(monitor)] if monitor else [])
    check_monitors(Trainer(accelerator="cpu", logger=False, callbacks=callbacks))


@pytest.mark.parametrize("monitor", ["val/map", "val/mapp", "val_mAP", "val/rank-1", "val/minp", "train/los"])
def test_a_misspelt_name_is_refused(monitor):
    with pytest.raises(VIReIDError, match=r"Did you mean '(val|train)/"):
        check(monitor)


@pytest.mark.parametrize("monitor", [None, "val/mAP", "val/rank1", "train/loss", "val/permutation_accuracy", "mine"])
def test_other_names_pass(monitor):
    check(monitor)
