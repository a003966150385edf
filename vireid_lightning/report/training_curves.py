"""The curves of a training run, from the ``metrics.csv`` that Lightning's CSVLogger writes."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import is_file, name_absence
from vireid_lightning.report.text import clean

#: Prefix of the names that Lightning's LearningRateMonitor logs.
_RATE = "lr-"

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class TrainingCurves:
    """What a run logged, as (step, value) points by name.

    Attributes:
        losses: Means over an epoch, of ``train/<term>``.
        steps: Values of single steps, of ``step/<term>``.
        scores: Of validations, in per cent, of ``val/<measure>``.
        rates: Learning rates.
    """

    losses: Mapping[str, Points]
    steps: Mapping[str, Points]
    scores: Mapping[str, Points]
    rates: Mapping[str, Points]

    def __bool__(self) -> bool:
        return any((self.losses, self.steps, self.scores, self.rates))


def read_training_curves(path: str | Path) -> TrainingCurves:
    """Read the curves; a last line that was cut short, and cells that are no finite number, are left out.

    Raises:
        VIReIDError: The file cannot be read, or has no column ``step``.
    """
    if not is_file(path):
        raise VIReIDError(f"The training curves {path} cannot be read: it {name_absence(path)}; leave them out.")
    try:
        with Path(path).open(encoding="utf-8", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), reader.fieldnames
    except (OSError, csv.Error) as error:
        raise VIReIDError(f"The training curves {path} cannot be read: {error}; leave them out.") from error
    if names and "step" not in names:
        raise VIReIDError(f"{path} has no column 'step'; give the metrics.csv of a run's CSVLogger.")
    series: dict[str, Points] = {}
    for row in rows:
        step = _to_number(row.get("step"))
        for name, cell in row.items():
            value = _to_number(cell)
            if step is not None and value is not None and isinstance(name, str):
                series.setdefault(name, []).append((step, value))
    losses, steps, scores = (_choose(series, prefix) for prefix in ("train/", "step/", "val/"))
    rates = {clean(name.removeprefix(_RATE)): points for name, points in series.items() if name.startswith(_RATE)}
    return TrainingCurves(losses, steps, scores, rates)


def _choose(series: Mapping[str, Points], prefix: str) -> dict[str, Points]:
    return {clean(name.removeprefix(prefix)): points for name, points in series.items() if name.startswith(prefix)}


def _to_number(cell: object) -> float | None:
    try:
        value = float(cell) if isinstance(cell, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
