"""What the benchmarks share: tables that know where they come from.

A table is a JSON file in ``docs/figures``: its command, the files of code that it depends on, commit, date, machine,
versions and the values of every seed. What README and docs show of it stands between ``<!-- figures: NAME -->`` and
``<!-- end -->``; ``python tests/benchmarks/evidence.py`` writes it there, and tests/test_evidence.py fails where the
two differ.

Run: python tests/benchmarks/evidence.py                          (writes the tables into the pages)
     python tests/benchmarks/evidence.py --stale                  (lists tables whose code has changed since)
     python tests/benchmarks/evidence.py --minus TABLE ROW        (all rows minus one, seed by seed)
     python tests/benchmarks/evidence.py --against COMMIT TABLE   (how far seeds are from those of a commit)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from vireid_lightning.environment import find_code_state, list_versions
from vireid_lightning.errors import VIReIDError

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

MARKED = re.compile(r"(?P<start><!-- figures: (?P<name>[\w-]+) -->\n)(?P<text>.*?)(?P<end><!-- end -->)", re.DOTALL)


def spread(values: Sequence[float] | str, form: str = ".1f") -> str:
    """Return mean and standard deviation as text; a dash where there is no value, and text as it is."""
    if isinstance(values, str):
        return values
    if not values:
        return "-"
    text = f"{statistics.mean(values):{form}}"
    return f"{text} +- {statistics.stdev(values):{form}}" if len(values) > 1 else text


def add_write_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--write``, by which a benchmark keeps its table."""
    parser.add_argument("--write", action="store_true", help="write docs/figures/NAME.json, which the pages show")


def name_command(script: str, words: Sequence[str] | None = None) -> str:
    """Return the command that a script was started with, from the repository's folder, without ``--write``.

    Args:
        script: The script's ``__file__``.
        words: What follows it; None: what the process was started with.
    """
    given = sys.argv[1:] if words is None else words
    path = Path(script).resolve().relative_to(ROOT).as_posix()
    return shlex.join(["python", path, *(word for word in given if word != "--write")])


def name_machine() -> str:
    """Return cores, processor and GPU; the family and model of a processor, where known, because names are shared."""
    processor = platform.processor() or platform.machine()
    if (about := Path("/proc/cpuinfo")).is_file():
        found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", about.read_text(encoding="utf-8"), re.M))
        if len(found) == 3:
            processor = f"{found['model name']}, family {found['cpu family']}, model {found['model']}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} cores ({processor}), {gpu}"


def describe_origin() -> dict[str, Any]:
    """Return commit, whether files differ from it, date and machine of what runs now."""
    state = find_code_state() or {"commit": "unknown", "dirty": True}
    return {**state, "date": date.today().isoformat(), "machine": name_machine()}


def write_table(
    name: str,
    *,
    command: str,
    code: Sequence[str],
    settings: Mapping[str, Any],
    columns: Sequence[str],
    rows: Mapping[str, Sequence[Sequence[float] | str]],
    formats: str | Sequence[str] = ".1f",
    count: str | None = "seeds",
    curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    origin: Mapping[str, Any] | None = None,
    folder: Path | None = FIGURES,
) -> dict[str, Any]:
    """Return a table with all that says where it comes from, and write it.

    Args:
        name: Name of the table and of its file.
        command: The command that runs it, from the repository's folder.
        code: Files and folders whose change would change the figures.
        settings: The design: budget, images, rates.
        columns: Titles, the first of which is that of the rows.
        rows: For each row and column the values of the seeds, or a text.
        formats: Format of the values that are shown, of all columns or of each but the first.
        count: Title of the column that says how many values there are; None leaves it out.
        curves: For each row and loss term its mean over the seeds, epoch by epoch; kept, not shown.
        origin: Commit, date and machine of the runs behind it; None: those of now.
        folder: Where it is written; None: nowhere.
    """
    table = {
        "name": name,
        "command": command,
        "code": list(code),
        **(origin or describe_origin()),
        "versions": list_versions(),
        "settings": dict(settings),
        "columns": list(columns),
        "formats": [formats] * (len(columns) - 1) if isinstance(formats, str) else list(formats),
        "count": count,
        "rows": {row: [_shorten(cell) for cell in cells] for row, cells in rows.items()},
    }
    if curves is not None:
        table["curves"] = {row: {term: list(values) for term, values in terms.items()} for row, terms in curves.items()}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(table, indent=1, default=str) + "\n", encoding="utf-8")
    return table


def _shorten(cell: Sequence[float] | str) -> list[float] | str:
    """Return values with six digits, which is more than any table shows."""
    return cell if isinstance(cell, str) else [float(f"{value:.6g}") for value in cell]


def read_tables(folder: Path = FIGURES) -> dict[str, dict[str, Any]]:
    """Return all tables by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def format_table(table: Mapping[str, Any]) -> str:
    """Return a table as README and docs show it."""
    columns = [*table["columns"], *([table["count"]] if table["count"] else [])]
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    for row, cells in table["rows"].items():
        shown = [spread(cell, form) for cell, form in zip(cells, table["formats"], strict=True)]
        if table["count"]:
            seeds = sorted({len(cell) for cell in cells if cell and not isinstance(cell, str)}) or [0]
            shown.append("-".join(map(str, seeds)))
        lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def format_index(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the list of all tables: command, code, commit, date."""
    lines = ["| Table | Command | Depends on | Last run |", "|---|---|---|---|"]
    for name, table in tables.items():
        code = ", ".join(f"`{path}`" for path in table["code"])
        commits = ", ".join(commit[:10] for commit in table["commit"].split(", "))
        when = f"{table['date']}, {commits}{' and changes' if table['dirty'] else ''}, {table['machine']}"
        lines.append(f"| {name} | `{table['command']}` | {code} | {when} |")
    return "\n".join(lines) + "\n"


def fill(text: str, tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a page's text with its marked places written anew.

    Raises:
        KeyError: If a page names a table that is not there.
    """

    def write(match: re.Match[str]) -> str:
        name = match["name"]
        content = format_index(tables) if name == "index" else format_table(tables[name])
        return f"{match['start']}{content}{match['end']}"

    return MARKED.sub(write, text)


def list_stale(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the files that have changed since a table's oldest commit, of tables where there are any."""
    stale = {}
    for name, table in tables.items():
        for commit in table["commit"].split(", "):
            command = ["git", "diff", "--name-only", commit, "HEAD", "--", *table["code"]]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            changed = done.stdout.split() if done.returncode == 0 else [f"commit {commit} is not here"]
            if changed:
                stale[name] = sorted({*stale.get(name, ()), *changed})
    return stale


def subtract(table: Mapping[str, Any], row: str) -> dict[str, list[list[float]]]:
    """Return each row's values minus those of one row, seed by seed, where both have as many."""
    if row not in table["rows"]:
        raise VIReIDError(f"{table['name']} has no row '{row}'; give one of {', '.join(table['rows'])}.")
    base = table["rows"][row]
    return {
        name: [
            [a - b for a, b in zip(cell, other)] if len(cell) == len(other) and not isinstance(cell, str) else []
            for cell, other in zip(cells, base, strict=True)
        ]
        for name, cells in table["rows"].items()
        if name != row
    }


def compare_with(commit: str, table: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return mean and largest distance of a table's seeds from those of a commit, by column, over rows of both."""
    place = f"{commit}:docs/figures/{table['name']}.json"
    done = subprocess.run(["git", "show", place], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VIReIDError(f"There is no {place}; give a commit that has the table.")
    earlier = json.loads(done.stdout)["rows"]
    found = {}
    for number, column in enumerate(table["columns"][1:]):
        pairs = [(cells[number], earlier[name][number]) for name, cells in table["rows"].items() if name in earlier]
        far = [abs(a - b) for now, then in pairs if not isinstance(now, str) for a, b in zip(now, then)]
        if far:
            found[column] = statistics.mean(far), max(far)
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--stale", action="store_true", help="list the tables whose code has changed, and write nothing"
    )
    parser.add_argument("--minus", nargs=2, metavar=("TABLE", "ROW"), help="print all rows minus one, seed by seed")
    parser.add_argument("--against", nargs=2, metavar=("COMMIT", "TABLE"), help="compare with the table of a commit")
    options = parser.parse_args(words)
    tables = read_tables()
    if chosen := (options.minus or (None,))[0] or (options.against or (None, None))[1]:
        if chosen not in tables:
            raise SystemExit(f"There is no table '{chosen}'; give one of {', '.join(tables)}.")
        try:
            if options.minus:
                print(format_table({**tables[chosen], "rows": subtract(tables[chosen], options.minus[1])}))
            else:
                for column, (mean, most) in compare_with(options.against[0], tables[chosen]).items():
                    print(f"{column}: {mean:.1f} on average, at most {most:.1f}")
        except VIReIDError as error:
            raise SystemExit(str(error)) from error
        return
    if options.stale:
        for name, changed in list_stale(tables).items():
            print(f"{name}: {', '.join(changed)}")
        return
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
