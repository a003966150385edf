"""Validation scores one protocol and extracts only the images that this protocol needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.protocols import Protocol, Trial
from vireid_lightning.types import Sample


def choose_protocol(dataset: str, name: str, protocols: Sequence[Protocol]) -> Protocol:
    """Return the protocol of that name.

    Args:
        dataset: The dataset's name, for the message.
        name: The wanted protocol.
        protocols: Those that there are.

    Raises:
        VIReIDError: There is none; the message lists the names and the nearest.
    """
    by_name = {protocol.name: protocol for protocol in protocols}
    if name not in by_name:
        raise VIReIDError(
            f"{dataset} has no validation protocol '{name}', only {', '.join(by_name)}.{did_you_mean(name, by_name)} "
            "Set validation_protocol to one of them."
        )
    return by_name[name]


def keep_used(protocol: Protocol, samples: Sequence[Sample]) -> tuple[list[Sample], Protocol]:
    """Return the samples that a protocol uses, in their order, and the protocol as positions among them."""
    used = protocol.samples_used()
    trials = tuple(
        Trial(query=np.searchsorted(used, trial.query), gallery=np.searchsorted(used, trial.gallery))
        for trial in protocol.trials
    )
    return [samples[position] for position in used], replace(protocol, trials=trials)
