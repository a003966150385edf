"""Writing a report, whole or not at all, beside the earlier ones."""

from __future__ import annotations

from pathlib import Path

from vireid_lightning.files import atomic_write
from vireid_lightning.kinds import check_number
from vireid_lightning.metrics.results import keep_earlier
from vireid_lightning.report.content import ReportContent
from vireid_lightning.report.page import render_page


def write_report(path: str | Path, content: ReportContent, *, max_mb: float = 16) -> Path | None:
    """Write a report; return the new name of a file that was there, which is kept.

    Args:
        path: The HTML file.
        content: What it shows.
        max_mb: MiB that it may take.

    Raises:
        VIReIDError: As :func:`~vireid_lightning.report.page.render_page`.
    """
    check_number("max_mb", max_mb, 0, above=True)
    page = render_page(content, max_mb=max_mb)
    kept = keep_earlier(path)
    with atomic_write(path) as file:
        # A path that is no valid text on disk has lone halves of characters.
        file.write(page.encode("utf-8", "replace"))
    return kept
