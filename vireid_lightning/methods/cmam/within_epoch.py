"""What a checkpoint holds so that CMAM can go on within an epoch: pseudo labels, prototypes and classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.cmam.schedule import Phase

#: Where it stands in a checkpoint.
KEY = "pseudo_label_epoch"


def describe_epoch(
    phase: Phase, labels: Tensor, prototypes: Sequence[Tensor], classifiers: Sequence[nn.Parameter]
) -> dict[str, Any]:
    """Return what stands in a checkpoint under :data:`KEY`."""
    return {
        "phase": [phase.domain, phase.clusterer],
        "labels": labels,
        "prototypes": list(prototypes),
        "classifiers": [classifier.detach() for classifier in classifiers],
    }


def read_epoch(stored: Mapping[str, Any] | None, path: object, phase: Phase) -> Mapping[str, Any]:
    """Return what a checkpoint holds of the epoch that a run goes on within.

    Args:
        stored: What the checkpoint has under :data:`KEY`.
        path: The checkpoint, for messages.
        phase: The phase of the run that goes on.

    Raises:
        VIReIDError: The checkpoint does not hold it, or was saved in another phase.
    """
    advice = "go on from a checkpoint of the end of an epoch"
    if stored is None:
        raise VIReIDError(f"{path} was saved within an epoch and does not hold that epoch's clusters; {advice}.")
    if list(stored["phase"]) != [phase.domain, phase.clusterer]:
        raise VIReIDError(
            f"{path} was saved within an epoch on the {' with '.join(stored['phase'])}, which the stages now have as "
            f"one on the {phase.domain} with {phase.clusterer}; set the stages back, or {advice}."
        )
    return stored


def restore_classifiers(
    optimizer: torch.optim.Optimizer, before: Sequence[nn.Parameter], rows: Sequence[Tensor]
) -> list[nn.Parameter]:
    """Return the stored classifiers, and have the optimiser go on with them in place of those that it holds."""
    classifiers = [nn.Parameter(weight.to(old.device)) for old, weight in zip(before, rows)]
    for old, new in zip(before, classifiers):
        if old in optimizer.state:
            optimizer.state[new] = optimizer.state.pop(old)
    optimizer.param_groups[-1]["params"] = list(classifiers)
    return classifiers
