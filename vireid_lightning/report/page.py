"""The report as one HTML file that needs no other."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.measures import title_of
from vireid_lightning.metrics.results import ScoreTable
from vireid_lightning.report.charts import plain_style
from vireid_lightning.report.content import ReportContent
from vireid_lightning.report.figures import list_drawers
from vireid_lightning.report.pairs import RATES, ErrorRates
from vireid_lightning.report.rank_lists import RankListGroup, list_positions
from vireid_lightning.report.requirements import require_packages
from vireid_lightning.report.svg import PAGE, embed_svg
from vireid_lightning.report.text import clean
from vireid_lightning.report.thresholds import ProtocolThresholds
from vireid_lightning.report.thumbnails import Thumbnails, make_thumbnails
from vireid_lightning.version import __version__

_MIB = 2**20

#: What is told of the weights and the data, by its key in a result file.
_ABOUT = {
    "dataset": "Dataset",
    "dataset_trial": "Trial of the dataset",
    "method": "Method",
    "backbone": "Backbone",
    "image_size": "Image size (height, width)",
    "interpolation": "Interpolation",
    "epoch": "Epochs trained",
    "checkpoint": "Checkpoint",
    "checkpoint_kind": "Kind of checkpoint",
    "fingerprint": "Hash of the list of images",
    "embeddings": "Embeddings",
}


def render_page(content: ReportContent, *, max_mb: float = 16) -> str:
    """Return the page.

    Args:
        content: What it shows.
        max_mb: MiB that the page may take: images beyond are left out, and the page says so.

    Raises:
        VIReIDError: If a package of the extra ``report`` is missing, or the page is larger even without images.
    """
    require_packages("jinja2", "matplotlib")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vireid_lightning.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("vireid_lightning.report") / "page"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {
        "title": clean(content.table.title),
        "style": style,
        "script": script,
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "scores": _list_scores(content.table),
        "charts": _draw_charts(content),
        "rates": [_list_rates(item) for item in content.rates],
        "levels": [f"{rate:g}" for rate in RATES],
        "thresholds": [_list_thresholds(item) for item in content.thresholds],
        "stored": any(error.stored for item in content.thresholds for error in item.errors),
        "groups": [_describe_group(group) for group in content.groups],
        "map": content.map,
        "counted": content.counted,
        "about": _list_about(content.table.about),
        "deviation": any(len(row.trials) > 1 for row in content.table.rows),
        "distance": content.table.rows[0].distance,
        "size": content.table.rows[0].embedding_size,
        "version": __version__,
    }
    template = environment.get_template("report.html")
    bare = template.render(values, images="{}", notes=[])
    room = int(max_mb * _MIB) - len(bare.encode()) - 4096  # for the notes
    if room < 0:
        raise VIReIDError(
            f"The report takes {len(bare.encode()) / _MIB:.1f} MiB without images, more than the {max_mb:g} that it "
            "may; allow more, or ask for fewer rank lists."
        )
    pictures = _make_pictures(content, room)
    return template.render(values, images=json.dumps(pictures.jpeg), notes=_list_notes(content, pictures, max_mb))


def _make_pictures(content: ReportContent, room: int) -> Thumbnails:
    if content.root is None or content.embeddings.path is None:
        return Thumbnails()
    paths = content.embeddings.path
    images = ((position, paths[position]) for position in list_positions(content.groups))
    return make_thumbnails(content.root, images, room, outside=content.outside)


def _list_notes(content: ReportContent, pictures: Thumbnails, max_mb: float) -> list[str]:
    """Return sentences that say what the page leaves out."""
    notes = []
    if content.root is None or content.embeddings.path is None:
        notes.append("The rank lists have no images: the folder or the paths of the images were not given.")
    if pictures.unreadable:
        first = clean(pictures.unreadable[0])
        notes.append(
            f"{len(pictures.unreadable):,} images of the rank lists are missing on disk or cannot be read and are left "
            f"out, the first of them {first} in {clean(content.root)}."
        )
    if pictures.beyond:
        notes.append(f"{pictures.beyond:,} images are left out, so that the page stays below {max_mb:g} MiB.")
    if content.training is None:
        notes.append("There are no training curves: no metrics.csv that holds them was found.")
    if content.map is None:
        notes.append("There is no map: fewer than 4 images have a known identity.")
    if not content.histograms:
        notes.append("There are no histograms: too few images have a known identity and modality.")
    if any(row.reranking is not None for row in content.table.rows):
        notes.append("Rank lists, histograms and error rates are those of the embeddings, without re-ranking.")
    return notes


def _draw_charts(content: ReportContent) -> dict[str, str]:
    """Return the charts that there is something to draw for, as SVG by name."""
    with plain_style():
        drawers = ((name, draw) for name, draw in list_drawers(content) if not name.startswith("ranks"))
        return {name: embed_svg(draw(PAGE), name) for name, draw in drawers}


def _list_scores(table: ScoreTable) -> dict[str, Any]:
    """Return the headings and rows of the table of scores."""
    names = [name for name in table.rows[0].scored if all(name in row.scored for row in table.rows)]
    rows = []
    for row in table.rows:
        described = row.to_dict()
        rows.append(
            {
                "name": clean(row.name),
                "cells": [(row.mean(name), row.deviation(name)) for name in names],
                "trials": len(row.trials),
                **{key: _span(described[key]) for key in ("queries", "valid_queries", "gallery_images")},
                "hash": row.gallery_hash,
            }
        )
    return {"headings": [clean(title_of(name)) for name in names], "rows": rows}


def _span(value: int | Sequence[int]) -> str:
    listed = [value] if isinstance(value, int) else sorted(set(value))
    return f"{listed[0]:,}" if len(listed) == 1 else f"{listed[0]:,} to {listed[-1]:,}"


def _list_rates(item: ErrorRates) -> dict[str, Any]:
    cells = []
    for rate in RATES:
        values = item.at_rates[rate]
        mean = None if values is None else 100 * sum(values) / len(values)
        spread = None
        if values is not None and mean is not None and len(values) > 1:
            spread = (sum((100 * value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
        cells.append((mean, spread))
    return {
        "name": clean(item.protocol),
        "cells": cells,
        "true": f"{item.true_pairs:,}",
        "false": f"{item.false_pairs:,}",
    }


def _list_thresholds(item: ProtocolThresholds) -> dict[str, Any]:
    return {
        "name": clean(item.protocol),
        "about": f"{item.queries:,} queries of {item.identities:,} persons, gallery of {item.gallery:,} images",
        "errors": item.errors,
    }


def _describe_group(group: RankListGroup) -> dict[str, Any]:
    queries = [item.query for item in group.lists]
    return {
        "group": group,
        "identities": sorted({query.identity for query in queries}, key=_by_number),
        "cameras": sorted({query.camera for query in queries if query.camera}, key=_by_number),
    }


def _by_number(text: str) -> tuple[bool, int, str]:
    return (False, int(text), text) if text.isdecimal() else (True, 0, text)


def _list_about(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    listed = []
    for key, title in _ABOUT.items():
        value = about.get(key)
        if value is not None:
            listed.append((title, clean(" x ".join(map(str, value)) if isinstance(value, list) else value)))
    return listed
