"""How all tables of scores look in the terminal. Columns of scores keep their width, and names give way to them."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table


def make_table(title: str | None, caption: str) -> Table:
    """Return an empty table that fits 80 columns where its columns do."""
    return Table(
        title=title,
        title_justify="left",
        caption=caption,
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
