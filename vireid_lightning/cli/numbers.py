"""Numbers of the tools' flags, which are checked as they are read."""

from __future__ import annotations

import argparse
import math

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number

_LARGEST = 2**31 - 1  # of whole numbers without a limit of their own


class Number:
    """The type of a flag that takes a number.

    Args:
        least: Smallest number that it takes.
        most: Largest number that it takes.
        above: Whether ``least`` itself is left out.
        below: Whether ``most`` itself is left out.

    Example:
        >>> Number(0, 1)("0.25")
        0.25
    """

    whole = False

    def __init__(self, least: float, most: float = math.inf, *, above: bool = False, below: bool = False) -> None:
        self.least, self.most, self.above, self.below = least, most, above, below

    def __call__(self, text: str) -> float:
        """Return the number that a text says.

        Raises:
            argparse.ArgumentTypeError: If it says none, or one out of the range: what follows the flag's name.
        """
        value: float | str
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            value = text
        try:
            check_number("", value, self.least, self.most, whole=self.whole, above=self.above, below=self.below)
            if self.whole:
                check_number("", value, self.least, _LARGEST, whole=True)
        except VIReIDError as error:
            raise argparse.ArgumentTypeError(str(error).strip(" .")) from None
        assert not isinstance(value, str)  # which check_number refuses
        return value


class Whole(Number):
    """The type of a flag that takes a whole number.

    Args:
        least: Smallest number that it takes.
        most: Largest number that it takes.
    """

    whole = True

    def __init__(self, least: int, most: float = math.inf) -> None:
        super().__init__(least, most)
