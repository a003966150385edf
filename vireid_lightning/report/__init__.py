"""Reports and figures: what a model found, in one HTML page or in files for a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vireid_lightning.lazy import lazily

if TYPE_CHECKING:
    from vireid_lightning.report.content import ReportContent, collect
    from vireid_lightning.report.figures import write_figures
    from vireid_lightning.report.writing import write_report

__all__ = ["ReportContent", "collect", "write_figures", "write_report"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "ReportContent": "content",
            "collect": "content",
            "write_figures": "figures",
            "write_report": "writing",
        },
    )
