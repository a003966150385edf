"""Texts from files made safe for a terminal, which obeys the control characters that a name may hold."""

from __future__ import annotations

import unicodedata


def make_printable(text: object, keep: str = "") -> str:
    r"""Return a text whose control characters are visible escapes, such as ``\x1b``, and all else is as it was.

    Line ends, marks that turn the direction of writing, other characters without a shape, and the stand-ins for bytes
    of a file name that are no text are escaped, too. Spaces of all kinds stay.

    Args:
        text: What is to be printed; anything but a text is turned into one.
        keep: Characters that stay as they are, such as line ends that were not taken from a file.

    Example:
        >>> print(make_printable("night\x1b[2J.png"))
        night\x1b[2J.png
    """
    return "".join(
        letter
        if letter.isprintable() or letter in keep or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode("ascii")
        for letter in str(text)
    )
