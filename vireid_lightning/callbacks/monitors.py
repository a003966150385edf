"""Names of scores that callbacks monitor, looked at before training."""

from __future__ import annotations

import difflib

from lightning.pytorch import Trainer

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.measures import MEASURES

#: How alike two names are, of 1, from which one is taken for a misspelling of the other.
_ALIKE = 0.8


def check_monitors(trainer: Trainer) -> None:
    """Refuse the name of a monitored score that is nearly, but not quite, one of those that are logged.

    Which other names a method logs is not known before it does.

    Raises:
        VIReIDError: If a callback has such a name.
    """
    scores = [f"val/{name}" for name, measure in MEASURES.items() if measure.logged]
    known = [*scores, "train/loss", "loss"]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it from outside of its class
        monitor = getattr(callback, "monitor", None)
        if not isinstance(monitor, str) or monitor in known:
            continue
        by_lower = {name.lower(): name for name in known}
        near = difflib.get_close_matches(monitor.lower().replace("_", "/"), by_lower, n=1, cutoff=_ALIKE)
        if near:
            raise VIReIDError(
                f"{type(callback).__name__} monitors '{monitor}', which is not logged. Did you mean "
                f"'{by_lower[near[0]]}'? Scores are {', '.join(scores)}."
            )
