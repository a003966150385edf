"""A comparison as text: for the terminal, and as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

from rich.table import Table

from vireid_lightning.metrics.comparison import ComparedRow, Comparison
from vireid_lightning.metrics.measures import title_of
from vireid_lightning.metrics.terminal import format_score, make_table, to_text
from vireid_lightning.printable import make_printable

_ABSENT = "\u2013"
_NAME_WIDTH = 24  # columns that a row's name should have at least, before another table is begun

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u00b1": r"$\pm$",
    "\u2013": "--",
}


def render_comparison(comparison: Comparison, width: int) -> Iterator[Table]:
    """Yield tables for a terminal of some width: as many protocols beside each other as it has room for."""
    measures = comparison.measures
    cell = max(8, *(len(title_of(measure)) + 1 for measure in measures))
    at_once = max(1, (width - _NAME_WIDTH - 8) // (cell * len(measures)))
    for first in range(0, len(comparison.protocols), at_once):
        protocols = comparison.protocols[first : first + at_once]
        is_last = first + at_once >= len(comparison.protocols)
        table = make_table(comparison.dataset if first == 0 else None, describe_caption(comparison) if is_last else "")
        table.add_column("Method", overflow="fold")
        table.add_column("Runs", justify="right", no_wrap=True)
        for protocol in protocols:
            for number, measure in enumerate(measures):
                heading = _wrap(make_printable(protocol), cell - 1) if number == 0 else ""
                title = f"{heading}\n{make_printable(title_of(measure))}".lstrip("\n")
                table.add_column(to_text(title, keep="\n"), justify="right", vertical="bottom")
        for row in comparison.rows:
            cells = (_format(row, protocol, measure) for protocol in protocols for measure in measures)
            table.add_row(to_text(row.label), _count_runs(row), *cells)
        yield table


def describe_caption(comparison: Comparison) -> str:
    """Return what the numbers are, in a line."""
    text = "Per cent"
    if any(value is not None for row in comparison.rows for value in row.deviations.values()):
        text += "; \u00b1 sample standard deviation over runs"
    trials = {row.trials for row in comparison.rows if row.trials}
    if len(trials) == 1:
        text += f"; trials {', '.join(map(str, *trials))}"
    for row in comparison.rows if len(trials) > 1 else ():
        if row.trials:
            text += f"; {row.label}: trials {', '.join(map(str, row.trials))}"
    return f"{text}."


def format_markdown(comparison: Comparison) -> str:
    """Return the comparison as a table of GitHub's Markdown."""

    def escape(text: str) -> str:
        text = " ".join(text.split())
        for letter in "\\|*_`<>[]":
            text = text.replace(letter, f"\\{letter}")
        return text

    columns = [(protocol, measure) for protocol in comparison.protocols for measure in comparison.measures]
    heading = ["Method", "Runs", *(f"{escape(protocol)} {escape(title_of(measure))}" for protocol, measure in columns)]
    rows = [
        [escape(row.label), _count_runs(row), *(_format(row, *column, " \u00b1 ") for column in columns)]
        for row in comparison.rows
    ]
    lines = [heading, ["---", *(["---:"] * (len(heading) - 1))], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{escape(comparison.dataset)}. {escape(describe_caption(comparison))}\n"


def format_latex(comparison: Comparison) -> str:
    r"""Return the comparison as a tabular for LaTeX's package booktabs."""
    protocols, measures = comparison.protocols, comparison.measures
    spans, rules = [], []
    for number, protocol in enumerate(protocols):
        first = 3 + number * len(measures)
        spans.append(rf"\multicolumn{{{len(measures)}}}{{c}}{{{escape_latex(protocol)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + len(measures) - 1}}}")
    titles = [escape_latex(title_of(measure)) for _ in protocols for measure in measures]
    rows = [
        [
            escape_latex(row.label),
            escape_latex(_count_runs(row)),
            *(
                escape_latex(_format(row, protocol, measure, " \u00b1 "))
                for protocol in protocols
                for measure in measures
            ),
        ]
        for row in comparison.rows
    ]
    caption = " ".join(f"{comparison.dataset}. {describe_caption(comparison)}".split())
    return "\n".join(
        [
            f"% {caption}",
            r"% Needs \usepackage{booktabs}.",
            rf"\begin{{tabular}}{{lr{'r' * len(protocols) * len(measures)}}}",
            r"\toprule",
            rf" & & {' & '.join(spans)} \\",
            " ".join(rules),
            rf"Method & Runs & {' & '.join(titles)} \\",
            r"\midrule",
            *(rf"{' & '.join(row)} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def format_csv(comparison: Comparison) -> str:
    """Return the comparison as CSV: a line for each row and protocol, scores and deviations with all their digits."""
    lines: list[str] = []

    def write(*cells: object) -> None:
        # Python's writer quotes the characters of its own line end: with both of them, a lone carriage return, too.
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(cells)
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")

    names = [word for measure in comparison.measures for word in (measure, f"{measure}_deviation")]
    write("dataset", "method", "marks", "runs", "trials", "protocol", *names)
    for row in comparison.rows:
        about = [comparison.dataset, row.name, "; ".join(row.marks), "" if row.runs is None else row.runs]
        for protocol in comparison.protocols:
            values: list[float | None] = []
            for measure in comparison.measures:
                values += [row.scores.get((protocol, measure)), row.deviations.get((protocol, measure))]
            write(*about, " ".join(map(str, row.trials)), protocol, *values)  # None is written as nothing
    return "".join(lines)


def escape_latex(text: str) -> str:
    """Return a text in one line, with what LaTeX would take for commands written out."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


#: Name of a format, as the command line has it -> the function that writes it.
FORMATS: dict[str, Callable[[Comparison], str]] = {
    "markdown": format_markdown,
    "latex": format_latex,
    "csv": format_csv,
}


def _format(row: ComparedRow, protocol: str, measure: str, between: str = "\n\u00b1") -> str:
    mean, deviation = row.scores.get((protocol, measure)), row.deviations.get((protocol, measure))
    return _ABSENT if mean is None else format_score(mean, deviation).replace("\n\u00b1", between)


def _count_runs(row: ComparedRow) -> str:
    return _ABSENT if row.runs is None else str(row.runs)


def _wrap(name: str, width: int) -> str:
    """Return a protocol's name over several lines, cut at slashes and hyphens where it can be."""
    lines = [""]
    for part in _cut(name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _cut(name: str) -> Sequence[str]:
    parts = [""]
    for letter in name:
        parts[-1] += letter
        if letter in "/- ":
            parts.append("")
    return [part for part in parts if part]
