"""Names from files, made fit to be shown: an image's path may hold anything but a NUL byte."""

from __future__ import annotations

#: Most letters of a name that are shown.
_LONGEST = 200


def clean(value: object) -> str:
    """Return a text of one line, with a replacement character for each that does not print.

    Control characters, line breaks and marks that turn the direction of writing would otherwise change what stands
    beside them, or break an SVG image. HTML is left as it is: escaping belongs to the template.

    Example:
        >>> clean("cam1/<b>" + chr(0x202E) + "gpj.exe") == "cam1/<b>" + chr(0xFFFD) + "gpj.exe"
        True
    """
    text = str(value)
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
