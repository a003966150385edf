"""What a method is told of its data before it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vireid_lightning.data.self_training import SelfTraining
from vireid_lightning.types import Sample


@dataclass(frozen=True)
class TrainingData:
    """The data of a training run, as a method's ``prepare`` receives it.

    Attributes:
        num_identities: Number of training identities.
        image_size: Height and width of the images.
        seed: Seed that all draws of the run follow from.
        steps_per_epoch: Length of an epoch.
        samples: The training images of the dataset.
        self_training: Images and batches of a method that draws by pseudo labels; None for every other method.
    """

    num_identities: int
    image_size: tuple[int, int]
    seed: int
    steps_per_epoch: int
    samples: Sequence[Sample]
    self_training: SelfTraining | None = None

    def paths(self, index: Sequence[int]) -> list[str]:
        """Return the paths of a training batch's images by its ``index``."""
        samples = self.samples if self.self_training is None else self.self_training.drawn.samples
        return [samples[position].path for position in index]
