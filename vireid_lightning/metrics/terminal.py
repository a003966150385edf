"""How tables look in the terminal, where names are text: no markup in them counts, no control character is obeyed."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vireid_lightning.printable import make_printable


def to_text(text: object, style: str = "", *, keep: str = "") -> Text:
    """Return a text that rich prints as it stands: without markup, and with its control characters escaped.

    Args:
        text: What is printed.
        style: Style of all of it.
        keep: Characters that are not escaped: line ends of a cell whose names were made printable before.
    """
    return Text(make_printable(text, keep), style=style)


def make_table(title: str | None, caption: str) -> Table:
    """Return an empty table that fits 80 columns where its columns do; columns of scores keep their width.

    Its title and caption are plain text. What is added to it goes through :func:`to_text`.
    """
    return Table(
        title=None if title is None else to_text(title, "table.title"),
        title_justify="left",
        caption=to_text(caption, "table.caption"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def name_dataset(name: str, synthetic: object) -> str:
    """Return the name of a dataset, which says whether its images are drawn."""
    return f"{name} (synthetic)" if synthetic and "synthetic" not in name.lower() else name


def choose_console() -> Console:
    """Return the terminal, or a console of 120 columns where the output is none, such as a file."""
    return Console() if Console().is_terminal else Console(width=120)


def format_score(mean: float, deviation: float | None) -> str:
    """Return a score with two decimals, and its deviation in the line below where there is one."""
    return f"{mean:.2f}" + ("" if deviation is None else f"\n\u00b1{deviation:.2f}")
