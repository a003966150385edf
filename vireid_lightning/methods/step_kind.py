"""The kinds of training steps that a method makes, so that each can be measured without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


def _stay() -> None:
    """Leave the module as it is."""


class StepKind(NamedTuple):
    """A kind of training step, and what a bare backbone would have to do to be comparable.

    Attributes:
        passes: Number of passes of the batch through a backbone, forward and backward, in a step.
        networks: Number of backbones that the optimiser moves.
        enter: Puts the module into this kind of step; called before each one.
    """

    passes: int = 1
    networks: int = 1
    enter: Callable[[], None] = _stay
