"""The images that validation and testing extract, and the protocols that they score."""

from __future__ import annotations

from typing import Literal

from vireid_lightning.data.datasets.base import ReIDDataset, Split
from vireid_lightning.data.datasets.protocol_building import choose_protocol, keep_used
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import Sample

#: The stages that score protocols.
Stage = Literal["validate", "test"]

_SPLIT: dict[Stage, Split] = {"validate": "val", "test": "test"}


class EvaluationSplits:
    """Lists images and protocols of each stage, once: validation has one protocol and the images that it needs.

    Args:
        dataset: The dataset.
        validation_protocol: Name of the protocol that validation scores.
    """

    def __init__(self, dataset: ReIDDataset, validation_protocol: str) -> None:
        self.dataset = dataset
        self.validation_protocol = validation_protocol
        self._listed: dict[Stage, tuple[list[Sample], list[Protocol]]] = {}

    def __getitem__(self, stage: Stage) -> tuple[list[Sample], list[Protocol]]:
        """Return the images of a stage, and what it scores as positions in them; nothing where it has no images.

        Raises:
            VIReIDError: The dataset has no protocol of the name ``validation_protocol``.
        """
        if stage not in self._listed:
            split = _SPLIT[stage]
            samples = self.dataset.samples(split)
            if not samples:
                return [], []
            protocols = self.dataset.protocols(samples, split)
            if stage == "validate":
                chosen = choose_protocol(self.dataset.name, self.validation_protocol, protocols)
                samples, protocol = keep_used(chosen, samples)
                protocols = [protocol]
            self._listed[stage] = samples, protocols
        return self._listed[stage]
