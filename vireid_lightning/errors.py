"""The one exception that a user of this package needs to catch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VIReIDError(ValueError):
    """Bad input, told in one sentence: what is wrong, where, and how to mend it.

    The command line prints the text without a traceback and exits with code 2.
    """


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the choice nearest to ``name``, or an empty string.

    Example:
        >>> did_you_mean("Resnet5O", ["resnet18", "resnet50"])
        " Did you mean 'resnet50'?"
    """
    by_lower = {choice.lower(): choice for choice in choices}
    match = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[match[0]]}'?" if match else ""
