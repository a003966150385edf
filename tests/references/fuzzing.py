"""Drawn files of each kind that is read: whatever they hold, it is read, or one sentence refuses it.

A case is a small valid file with one to three places changed, or nothing of the kind. Texts are spoilt by lines, words
and bytes, nested values by drawn ones, arrays by arrays of any type and shape.
"""

from __future__ import annotations

import copy
import io
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from references import hostile
from references.valid_files import ARRAYS, MANIFEST, RESULT, SUFFIXES, make_checkpoint, write_valid

from vireid_lightning.cli.failures import tell_in_a_sentence
from vireid_lightning.cli.training import VIReIDCLI
from vireid_lightning.errors import VIReIDError

#: Kind of a file -> its part of 200 cases: more where a case is cheap.
SHARES = {"config": 40, "split": 40, "manifest": 40, "embeddings": 30, "results": 30, "checkpoint": 20}

CONFIG = {
    "seed_everything": 0,
    "model": {
        "class_path": "AGW",
        "init_args": {
            "backbone": "test_resnet",
            "pretrained": False,
            "optimization": {"optimizer": "adam", "lr": 1e-3},
        },
    },
    "data": {
        "dataset": {"class_path": "Synthetic", "init_args": {"root": "synthetic", "identities": 8, "difficulty": 0.1}},
        "identities_per_batch": 8,
        "image_size": [96, 48],
        "visible_transforms": {"pad": 4, "erasing": 0},
    },
    "trainer": {"max_epochs": 9, "logger": [{"class_path": "CSVLogger", "init_args": {"save_dir": "runs"}}]},
}
SPLIT = "".join(f"Visible/{number}/a.bmp {number - 1}\n" for number in range(1, 4))

_NUMBERS = st.one_of(st.integers(-3, 3), st.integers(), st.floats(), st.sampled_from([2**31, 2**63, 10**20, 1e300]))
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
#: Words that mean something to some reader; no name of a module, which a config's class path would import.
_WORDS = st.one_of(
    st.sampled_from(
        ["null", "~", "true", "nan", "1e5", "0x1", "-0", "{}", "[]", "*a", "&a", "<<", "${a}", "2026-02-30"]
    ),
    st.sampled_from(["", "\t", "a: b", "!!python/tuple []", "../x", "/", "%", "AGW", "Synthetic", "[red]", "\x1b[31m"]),
    st.sampled_from(["\ufeff", "\u2028", "x" * 5000, "9" * 5000, "[" * 2000 + "]" * 2000]),
)
#: Plain values, and lists and objects of them.
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS, _WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS | _WORDS, inner, max_size=3),
    max_leaves=5,
)


def spoil(content: Any, values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[Any]:
    """Draw copies of nested dictionaries and lists in which one to three values are missing, others or new."""

    @st.composite
    def changed(draw: Callable[[Any], Any]) -> Any:
        copied = copy.deepcopy(content)
        for _ in range(draw(st.integers(1, 3))):
            node = copied
            while isinstance(node, (dict, list)) and node:
                key = draw(st.sampled_from(list(node) if isinstance(node, dict) else list(range(len(node)))))
                if isinstance(node[key], (dict, list)) and node[key] and draw(st.integers(0, 3)):
                    node = node[key]
                    continue
                what = draw(st.sampled_from(["another", "another", "missing", "more"]))
                if what == "missing":
                    del node[key]
                elif what == "more" and isinstance(node, dict):
                    node[draw(_TEXTS)] = draw(values)
                elif what == "more":
                    node.append(draw(values))
                else:
                    node[key] = draw(values)
                break
        return copied

    return changed()


def spoil_text(text: str, separators: str) -> st.SearchStrategy[bytes]:
    """Draw texts in which lines or words are missing, doubled, swapped or others, in any encoding, and any bytes."""

    @st.composite
    def changed(draw: Callable[[Any], Any]) -> bytes:
        lines = text.splitlines(keepends=True)
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(lines) - 1))
            what = draw(
                st.sampled_from(["word", "word", "word", "text", "missing", "doubled", "swapped", "new", "deeper"])
            )
            line = lines[at]
            if what == "word":
                separator = draw(st.sampled_from(separators))
                words = line.rstrip("\n").split(separator)
                words[draw(st.integers(0, len(words) - 1))] = str(draw(st.one_of(_WORDS, _TEXTS, _NUMBERS)))
                lines[at] = separator.join(words) + "\n"
            elif what == "text":
                place = draw(st.integers(0, len(line)))
                lines[at] = line[:place] + draw(_TEXTS | _WORDS) + line[place + draw(st.integers(0, 3)) :]
            elif what == "missing" and len(lines) > 1:
                del lines[at]
            elif what == "doubled":
                lines.insert(at, line)
            elif what == "swapped":
                lines[at], lines[0] = lines[0], lines[at]
            elif what == "new":
                lines.insert(at, draw(_TEXTS) + "\n")
            elif what == "deeper":
                lines[at] = "  " + line
        encoding = draw(st.sampled_from(["utf-8"] * 8 + ["utf-16", "utf-8-sig", "utf-32", "latin-1"]))
        return "".join(lines).encode(encoding, errors="replace")

    return st.one_of(changed(), changed(), changed(), st.binary(max_size=64))


_ARRAY = drawn.arrays(
    st.one_of(drawn.scalar_dtypes(), drawn.unicode_string_dtypes(max_len=8), drawn.byte_string_dtypes(max_len=8)),
    st.sampled_from([(6, 4), (6,), (6,), (6,)]) | drawn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
)


@st.composite
def _draw_arrays(draw: Callable[[Any], Any]) -> bytes:
    arrays: dict[str, Any] = dict(ARRAYS)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(list(ARRAYS)) | _TEXTS.map(lambda text: text.replace("\0", "") or "more"))
        arrays[name] = draw(
            _ARRAY | st.binary(max_size=64) | VALUES.map(hostile.to_json).map(lambda said: np.array(said.decode()))
        )
    if draw(st.booleans()):
        del arrays[draw(st.sampled_from(list(arrays)))]
    content = bytearray(hostile.save_arrays(arrays))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


def _save_yaml(content: Any) -> bytes:
    return yaml.safe_dump(content, allow_unicode=True).encode("utf-8", errors="replace")


#: Values of a checkpoint: what torch saves besides plain ones.
_SAVED = VALUES | st.sampled_from([torch.zeros(2), torch.tensor(float("nan")), (1, 2), {1: 2}, {(1, 2): 3}, {3, 4}])


@cache
def _checkpoint(folder: Path) -> dict[str, Any]:
    return make_checkpoint(folder)


def _draw_checkpoints(folder: Path) -> st.SearchStrategy[bytes]:
    valid = _checkpoint(folder)
    said = {key: value for key, value in valid.items() if key != "state_dict"}

    def save(content: Any) -> bytes:
        file = io.BytesIO()
        torch.save({**valid, **content} if content.keys() <= said.keys() else content, file)
        return file.getvalue()

    return spoil(said, _SAVED).map(save) | spoil(valid, _SAVED).map(save)


def list_strategies(folder: Path) -> dict[str, st.SearchStrategy[bytes]]:
    """Return what draws the files of each kind."""
    text = yaml.safe_dump(CONFIG, sort_keys=False)
    return {
        "config": spoil(CONFIG).map(_save_yaml) | spoil_text(text, ": "),
        "split": spoil_text(SPLIT, " /"),
        "manifest": spoil_text(MANIFEST, ",;"),
        "embeddings": _draw_arrays(),
        "results": spoil(RESULT).map(hostile.to_json) | spoil_text(hostile.to_json(RESULT).decode(), ",:"),
        "checkpoint": _draw_checkpoints(folder),
    }


class _ParserIsBuilt(Exception):
    """Ends the command line before it parses."""


class _ParserAlone(VIReIDCLI):
    """The command line with its parser built, which takes a second, and nothing parsed."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        self.built = parser
        raise _ParserIsBuilt

    def parse(self) -> None:
        super().parse_arguments(self.built, None)


@cache
def _build_parser() -> _ParserAlone:
    cli = _ParserAlone.__new__(_ParserAlone)
    before, sys.argv = sys.argv, ["lightning", "fit"]
    try:
        cli.__init__()  # type: ignore[misc]
    except _ParserIsBuilt:
        pass
    finally:
        sys.argv = before
    return cli


def parse_config(path: Path) -> None:
    """Parse a config as ``lightning fit --config`` does, and build nothing of it.

    Raises:
        VIReIDError: As the command does.
    """
    before, sys.argv = sys.argv, ["lightning", "fit", "--config", str(path)]
    try:
        with tell_in_a_sentence():
            _build_parser().parse()
    finally:
        sys.argv = before


def prepare(kind: str, folder: Path) -> tuple[Path, Callable[[Path], object]]:
    """Return the path at which a kind's files are read, with the files beside it, and their reader."""
    if kind == "config":
        return folder / "config.yaml", parse_config
    return write_valid(kind, folder, _checkpoint(folder)), SUFFIXES[kind][1]


def run(kind: str, cases: int, folder: Path, *, start: int | None = None) -> tuple[Counter[str], dict[str, bytes]]:
    """Read drawn files of a kind.

    Args:
        kind: One of :data:`SHARES`.
        cases: Number of files.
        folder: An empty folder, in which they are written.
        start: Seed of the draws. None: always the same ones, and the first exception that is none of this package
            is raised, with the smallest file found that has it.

    Returns:
        How many were read and refused, and an example of each place that raised another exception.
    """
    path, read = prepare(kind, folder)
    read_or_refused: Counter[str] = Counter()
    foreign: dict[str, bytes] = {}

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read(path)
            read_or_refused["read"] += 1
        except VIReIDError:
            read_or_refused["refused"] += 1
        except BaseException as error:
            if start is None or isinstance(error, KeyboardInterrupt):
                raise
            read_or_refused["foreign"] += 1
            ours = [f for f in traceback.extract_tb(error.__traceback__) if "vireid_lightning" in f.filename]
            place = ours[-1] if ours else traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            foreign.setdefault(where, content)

    options = settings(
        max_examples=cases,
        derandomize=start is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if start is None else [Phase.generate],
    )
    property_ = options(given(list_strategies(folder)[kind])(check))
    (property_ if start is None else seed(start)(property_))()
    return read_or_refused, foreign
