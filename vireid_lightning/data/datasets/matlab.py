"""Reading the numbers and cell arrays of MATLAB files (version 5), every length checked before it is followed.

SciPy's reader ends the whole process on some files of which a few bytes are damaged.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bytes of a variable, once decompressed, at most; those of SYSU-MM01 take one or two million.
LARGEST_VARIABLE = 2**26

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _COMPLEX = 1, 0x0800
# Types of numbers as elements are stored, and the classes of arrays that hold numbers.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)
# Cells within cells; those of SYSU-MM01 are two deep.
_DEEPEST = 4


def read_variables(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of numbers, and the cell arrays of such, of a MATLAB file; a cell array is one of objects.

    Variables of other kinds, such as texts, are left out.

    Raises:
        ValueError: It is no such file, or is damaged.
    """
    mark = content[126:_HEADER]
    if len(content) < _HEADER or mark not in (b"IM", b"MI"):
        raise ValueError("it is no file of MATLAB's version 5")
    order = "<" if mark == b"IM" else ">"
    found = {}
    for kind, data in _split(content[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            try:
                data = unpacker.decompress(data, LARGEST_VARIABLE + 1)
            except zlib.error as error:
                raise ValueError("a compressed variable is damaged") from error
            if len(data) > LARGEST_VARIABLE:
                raise ValueError(f"a variable would take more than {LARGEST_VARIABLE / 2**20:.0f} MiB")
            kind, data = next(_split(data, order), (0, b""))
        if kind == _MATRIX:
            name, values = _read_matrix(data, order, 0)
            if values is not None:
                found[name] = values
    return found


def _split(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the content of each element; a short one lies in its own tag."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}2I", data, place)
        if kind >> 16:
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        else:
            begin = place + 8
            end = begin + size + (0 if kind == _COMPRESSED else -size % 8)
        if (size > 4 and begin == place + 4) or begin + size > len(data):
            raise ValueError("an element is longer than the file")
        yield kind, data[begin : begin + size]
        place = end


def _read_matrix(data: bytes, order: str, depth: int) -> tuple[str, NDArray[Any] | None]:
    """Return the name and the values of a matrix, None where it is of neither numbers nor cells."""
    if not data:
        return "", np.empty((0, 0))
    parts = _split(data, order)
    heads = [part for _, part in zip(range(3), parts)]
    if len(heads) < 3 or len(heads[0][1]) < 4 or heads[1][0] != 5 or len(heads[1][1]) % 4:
        raise ValueError("a variable has no flags, size and name")
    flags = struct.unpack_from(f"{order}I", heads[0][1])[0]
    kind = flags & 0xFF
    shape = tuple(np.frombuffer(heads[1][1], f"{order}i4").tolist())
    name = heads[2][1].decode("latin-1")
    count = math.prod(shape)
    if not shape or min(shape) < 0 or count * (8 if kind == _CELL else 1) > len(data):
        raise ValueError(f"'{name}' says that it has the size {shape}, for which its bytes are too few")
    if kind == _CELL:
        if depth == _DEEPEST:
            raise ValueError(f"'{name}' has cells in cells in cells")
        cells = np.empty(count, dtype=object)
        found = [_read_matrix(part, order, depth + 1)[1] if of == _MATRIX else None for of, part in parts]
        if len(found) != count or any(values is None for values in found):
            raise ValueError(
                f"'{name}' has {len(found)} cells where there should be {count}, or others than of numbers"
            )
        for number, values in enumerate(found):
            cells[number] = values
        return name, cells.reshape(shape, order="F")
    if kind not in _NUMERIC_CLASSES:
        return name, None
    if flags & _COMPLEX:
        raise ValueError(f"'{name}' holds complex numbers")
    stored, content = next(parts, (0, b""))
    if stored not in _NUMBERS:
        if count:
            raise ValueError(f"'{name}' holds no numbers")
        return name, np.empty(shape)
    numbers = np.frombuffer(
        content[: len(content) - len(content) % np.dtype(_NUMBERS[stored]).itemsize], order + _NUMBERS[stored]
    )
    if len(numbers) != count:
        raise ValueError(f"'{name}' has {len(numbers)} numbers where there should be {count}")
    return name, numbers.astype(numbers.dtype.newbyteorder("=")).reshape(shape, order="F")
