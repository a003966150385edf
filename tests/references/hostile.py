"""Files that are not what they should be: every generic way to spoil a valid one, for the tests of all readers."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import random
import resource
import signal
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vireid_lightning.errors import VIReIDError

#: Seconds of computing that a reader may take to refuse a file; a hanging one is stopped after ten times that.
SECONDS = 1.0

#: Bytes by which reading a hostile file may raise the most memory that the process has ever used.
MEMORY = 2**29


class RunsCode:
    """Pickled, a call of ``os.mkdir``: whoever loads it makes the folder ``executed``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def save_array(values: Any, **options: Any) -> bytes:
    """Return the bytes of a bare .npy file."""
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def save_arrays(arrays: Mapping[str, Any]) -> bytes:
    """Return the bytes of an .npz file; a value of bytes is a member's content as it is."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            archive.writestr(f"{name}.npy", values if isinstance(values, bytes) else save_array(values))
    return file.getvalue()


def save_header(shape: tuple[int, ...], dtype: str, content: bytes = b"") -> bytes:
    """Return an .npy file whose header promises more than its content holds."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + content


def rewrite(
    archive: bytes, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED
) -> bytes:
    """Return a zip file whose members are changed, or left out where ``change`` returns None."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            if (content := change(name, old.read(name))) is not None:
                new.writestr(name, content)
    return file.getvalue()


def spoil_bytes(valid: bytes) -> dict[str, bytes]:
    """Return contents that no reader may take for a file of its kind, made of a valid one and of nothing."""
    code = pickle.dumps(RunsCode())
    return {
        "nothing": b"",
        "one byte": valid[:1] if valid[:1] not in b"123456789 \n" else b"{",
        "zeros": bytes(4096),
        "noise": random.Random(0).randbytes(4096),
        "the first half": valid[: len(valid) // 2],
        "the second half": valid[len(valid) // 2 :],
        "the first 40 bytes": valid[:40],
        "a page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
        "a pickle that runs code": code,
        "a bare array": save_array(np.arange(6)),
        "a bare array of objects": save_array(np.array([RunsCode()], dtype=object), allow_pickle=True),
        "an array of 10^20 values": save_header((10**10, 10**10), "<f4"),
        "an array of deep types": save_header((1,), "<f4").replace(b"'<f4'", b"(" * 3000 + b"'<f4'" + b")" * 3000),
        "an empty archive": b"PK\x05\x06" + bytes(18),
        "an archive of nothing known": save_arrays({"nothing": np.zeros(1)}),
        "compressed": zlib.compress(valid),
        "deep lists": b"[" * 50_000 + b"]" * 50_000,
        "nested objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    }


def flip_bytes(valid: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield copies of a file in which one to four bytes are others: some are spoilt, some are still valid."""
    draw = random.Random(seed)
    for _ in range(count):
        content = bytearray(valid)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(len(content))] ^= draw.randint(1, 255)
        yield bytes(content)


def place_what_is_no_file(folder: Path, suffix: str) -> dict[str, Path]:
    """Return paths of a suffix that lead to no regular file."""
    paths = {
        name: folder / f"{name.replace(' ', '-').replace('/', '')}{suffix}"
        for name in ("absent", "a folder", "a pipe", "zeros without end", "/dev/null", "a circle", "a dead link")
    }
    paths["a folder"].mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(paths["a pipe"])
    paths["zeros without end"].symlink_to("/dev/zero")
    paths["/dev/null"].symlink_to(os.devnull)
    paths["a circle"].symlink_to(paths["a circle"])
    paths["a dead link"].symlink_to(folder / "nowhere")
    return paths | {"a name too long": folder / f"{'n' * 300}{suffix}", "a NUL": folder / f"a\0b{suffix}"}


#: What stands in the place of a value.
WRONG: dict[str, Any] = {
    "null": None,
    "text": "text",
    "an empty text": "",
    "true": True,
    "-1": -1,
    "10^20": 10**20,
    "1.5": 1.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "a list": [],
    "an object": {},
    "a list of lists": [[[]]],
    "control characters": "[red]x[/red]\x1b[31m\n",
}


def spoil_values(content: Any, depth: int = 6) -> Iterator[tuple[str, Any]]:
    """Yield copies of nested dictionaries and lists in which one value is missing, another one, or there twice."""
    for path in _list_paths(content, depth):
        where = ".".join(map(str, path))
        yield f"without {where}", _change(content, path, None, remove=True)
        for name, value in WRONG.items():
            yield f"{where}: {name}", _change(content, path, value)
    if isinstance(content, dict):
        yield "a key more", {**content, "more": {"of": "it"}}


def _list_paths(content: Any, depth: int, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if not depth:
        return
    keys = content if isinstance(content, dict) else range(min(len(content), 1)) if isinstance(content, list) else ()
    for key in keys:
        yield (*before, key)
        yield from _list_paths(content[key], depth - 1, (*before, key))


def _change(content: Any, path: tuple[Any, ...], value: Any, *, remove: bool = False) -> Any:
    changed = shallow = copy.copy(content)
    for key in path[:-1]:
        shallow[key] = copy.copy(shallow[key])
        shallow = shallow[key]
    if remove:
        del shallow[path[-1]]
    else:
        shallow[path[-1]] = value
    return changed


def spoil_arrays(arrays: Mapping[str, Any], free: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return .npz files in which one array is missing or is another one that can never be right.

    Args:
        arrays: The arrays of a valid file.
        free: Names of arrays that may be missing.
    """
    spoilt: dict[str, bytes] = {}
    for name, values in arrays.items():
        content = save_array(values)
        others = {
            "of objects": save_array(np.array([RunsCode()], dtype=object), allow_pickle=True),
            "of dates": np.zeros(np.shape(values), dtype="M8[s]"),
            "of records": np.zeros(np.shape(values), dtype=[("a", "<f4")]),
            "of complex numbers": np.zeros(np.shape(values), dtype=complex),
            "of four dimensions": np.asarray(values)[None, None, None, None],
            "empty": np.zeros((0, 0)),
            "cut short": content[:-3],
            "of 10^20 values": save_header((10**10, 10**10), "<f4", bytes(64)),
            "of -1 values": save_header((-1,), "<f4"),
            "without a header": b"text",
        }
        if name not in free:
            spoilt[f"without {name}"] = save_arrays({key: value for key, value in arrays.items() if key != name})
        spoilt |= {f"{name} {what}": save_arrays({**arrays, name: other}) for what, other in others.items()}
    return spoilt


def refuse(read: Callable[[], object]) -> str:
    """Return what a reader says of a file that it must refuse.

    Raises:
        AssertionError: If it reads the file, says more than a paragraph, or takes long; whatever else the reader raises
            passes through.
    """
    said = try_reading(read)
    assert said is not None, "was read"
    return said


def try_reading(read: Callable[[], object]) -> str | None:
    """Return what a reader says of a file that it refuses, or None where it reads it.

    Raises:
        AssertionError: As for :func:`refuse`.
    """
    started = time.process_time()
    try:
        with _stop_after(10 * SECONDS):
            read()
        said = None
    except VIReIDError as error:
        said = str(error)
        assert 20 < len(said) < 2000
    assert time.process_time() - started < SECONDS
    return said


@contextmanager
def _stop_after(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"still reading after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def watch_memory() -> Iterator[None]:
    """Refuse that the most memory that the process has ever used rises by more than :data:`MEMORY`."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    risen = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert risen < MEMORY, f"{risen / 2**20:.0f} MiB"


def to_json(content: Any) -> bytes:
    """Return a JSON text, also of NaN and of what JSON has no type for."""
    return json.dumps(content, default=str).encode()
