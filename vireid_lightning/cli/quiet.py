"""What other packages say at the start of a run and a user can do nothing with is left out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: Beginnings of warnings, as regular expressions: deprecations inside of Lightning, advice that does not fit our runs,
#: and what Lightning says of a resumed checkpoint callback, which ours does otherwise.
_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"The dirpath has changed from .* to .*, therefore `best_model_score`",
    r"\s*(``instantiate_classes``|skip_none parameter) was deprecated",
    r"\s*By default only one JsonargparseDeprecationWarning",
    r"Precision .* is not supported by the model summary",
)

#: Parts of what Lightning logs: advertisements, advice on arithmetic that this package decides, and hardware that is
#: not used.
_TIPS = ("Tip:", "torch.set_float32_matmul_precision", "TPU available: False")

#: Where Lightning's messages come from.
_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")


def _is_no_tip(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not any(tip in text for tip in _TIPS)


@contextmanager
def silence_other_packages() -> Iterator[None]:
    """Leave out deprecations and tips of other packages while the context lasts; all else is told as ever."""
    named = [logging.getLogger(name) for name in _LOGGERS]
    with warnings.catch_warnings():
        for message in _WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for logger in named:
            logger.addFilter(_is_no_tip)
        try:
            yield
        finally:
            for logger in named:
                logger.removeFilter(_is_no_tip)
