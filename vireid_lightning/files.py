"""Files of arrays and tensors: written whole or not at all, read without running what they hold."""

from __future__ import annotations

import math
import os
import pickle
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.errors import VIReIDError

# A member of a zip file begins with a header of 30 bytes, the last four of which tell the lengths of two more fields.
_LOCAL_HEADER = 30

# A compressed member of a zip file that would grow by more than this, and beyond a size that does no harm, is refused.
_MOST_COMPRESSED = 200
_ALWAYS_READ = 2**26  # bytes


class atomic_write:
    """Open a file beside ``path`` for writing bytes, and move it into place when all went well.

    Args:
        path: The file to write.
        durable: Whether to wait until the bytes are on the disk, so that the file survives a machine that stops. What a
            killed process left of an unfinished file is then overwritten by the next one.

    Example:
        >>> with atomic_write("results.json") as file:  # doctest: +SKIP
        ...     file.write(b"{}")
    """

    def __init__(self, path: str | Path, *, durable: bool = False) -> None:
        self.path, self.durable = Path(path), durable

    def __enter__(self) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Opened like any other file, so that it has the permissions of the user's other files.
        number = "" if self.durable else f".{os.getpid()}"
        self._unfinished = self.path.with_name(f"{self.path.name}{number}.part")
        self._file = self._unfinished.open("wb")
        return self._file

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None and self.durable:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                self._unfinished.replace(self.path)
                if self.durable:
                    _sync_folder(self.path.parent)
        finally:  # also where the disk is full
            self._unfinished.unlink(missing_ok=True)


def require_writable(folder: str | Path, what: str) -> None:
    """Refuse a folder in which nothing can be written, whether or not it is there yet.

    Args:
        folder: The folder.
        what: What is to be written there, for the message.

    Raises:
        VIReIDError: If it, or the folder that it would be made in, cannot be written to.
    """
    nearest = Path(folder).absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise VIReIDError(f"{folder}, the folder for {what}, cannot be made: {nearest} is a file. Give another folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise VIReIDError(
            f"{folder}, the folder for {what}, cannot be written: {nearest} does not allow it. Change its permissions, "
            "or give another folder."
        )


def _sync_folder(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems, such as those of networks, cannot
        pass
    finally:
        os.close(descriptor)


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz file, not compressed, whole or not at all."""
    with atomic_write(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle, NumPy's own argument


def is_file(path: str | Path) -> bool:
    """Return whether a path leads to a regular file; a pipe, a device or a folder is none, nor is a name too long."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def name_absence(path: str | Path) -> str:
    """Return what a path without a regular file leads to: ``does not exist``, or what it is."""
    try:
        path = Path(path)
        return "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, or links in a circle
        return "is no name of a file"


def read_arrays(
    path: str | Path, names: Sequence[str], optional: Sequence[str] = (), *, mapped: str
) -> dict[str, NDArray[Any]]:
    """Read some arrays of an .npz file.

    The size of each array is compared with its header before memory is taken.

    Args:
        path: The file.
        names: Arrays that it must have.
        optional: Arrays that it may have.
        mapped: The array that stays in the file, read-only and memory-mapped, where the file is not compressed and the
            system is not Windows; its checksum is then not verified.

    Raises:
        VIReIDError: If the file is missing, no .npz file, or lacks an array.
    """
    if not is_file(path):
        raise VIReIDError(f"{path} {name_absence(path)}; `vireid embed` and `lightning predict` write such files.")
    with Path(path).open("rb") as file:
        is_array = file.read(6) == np.lib.format.MAGIC_PREFIX
    if is_array:
        raise VIReIDError(f"{path} is a single array; give an .npz file with the arrays {', '.join(names)}.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            missing = [name for name in names if name not in members]
            if missing:
                found = ", ".join(members) or "none"
                raise VIReIDError(
                    f"{path} lacks the array '{missing[0]}' (found: {found[:200]}); `lightning predict` writes all of "
                    f"{', '.join(names)}."
                )
            wanted = [name for name in (*names, *optional) if name in members]
            arrays = {name: _read_member(path, archive, members[name], mapped=name == mapped) for name in wanted}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, VIReIDError):
            raise
        reason = str(error).rstrip(".") if zipfile.is_zipfile(path) else "it is none"
        raise VIReIDError(
            f"{path} cannot be read as an .npz file of plain arrays: {reason}; `lightning predict` writes one."
        ) from error
    # PyTorch takes arrays in this machine's byte order only.
    return {
        name: values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
        for name, values in arrays.items()
    }


def _read_member(path: str | Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, mapped: bool) -> NDArray[Any]:
    """Return an array of an .npz file, memory-mapped where that is wanted and its bytes are stored as they are.

    Raises:
        ValueError: If it is no array of plain values, or its size is not that of its header.
    """
    if member.file_size > max(_ALWAYS_READ, _MOST_COMPRESSED * member.compress_size):
        raise ValueError(
            f"'{member.filename}' would take {member.file_size / 2**20:.0f} MiB, out of {member.compress_size} bytes"
        )
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"'{member.filename}' is in version {version} of NumPy's format")
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, by_column, dtype = reader(file)
        except (tokenize.TokenError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
            raise ValueError(f"the header of '{member.filename}' is none of an array") from error
        if dtype.hasobject:
            raise ValueError(f"'{member.filename}' holds objects, which would have to run code")
        expected = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or expected != member.file_size - file.tell():
            raise ValueError(
                f"'{member.filename}' says that it has {expected} bytes, but there are {member.file_size - file.tell()}"
            )
        is_stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
        # Windows would not let the next `lightning predict` rename or replace a mapped file.
        if mapped and is_stored and expected and not by_column and dtype.isnative and os.name != "nt":
            return np.memmap(path, dtype, "r", _find_content(path, member) + file.tell(), shape)
        values = np.frombuffer(bytearray(file.read()), dtype) if expected else np.empty(0, dtype)
    return values.reshape(shape, order="F" if by_column else "C")


def _find_content(path: str | Path, member: zipfile.ZipInfo) -> int:
    """Return where the bytes of a stored member of a zip file begin."""
    with Path(path).open("rb") as file:
        file.seek(member.header_offset)
        lengths = struct.unpack("<2H", file.read(_LOCAL_HEADER)[-4:])
    return int(member.header_offset) + _LOCAL_HEADER + int(sum(lengths))


def load_weights_file(path: str | Path, allow: Sequence[Any] = (), *, mapped: bool = False) -> Any:
    """Read a torch file without executing anything in it.

    Args:
        path: The file.
        allow: Classes beyond tensors and plain values that the file may hold.
        mapped: Whether tensors stay in the file until they are used, which is quick where the rest is asked for.

    Raises:
        VIReIDError: If there is no such file, it is no torch file, or it holds objects that would have to run code.
    """
    import torch  # not needed by what only reads arrays

    path = Path(path).expanduser()
    if not is_file(path):
        raise VIReIDError(f"There is no checkpoint at {path}; give the path of an existing file.")
    try:
        refused = _look_into(path)
    except OSError as error:
        raise VIReIDError(f"{path} may not be read: {error.strerror}; change its permissions.") from error
    if refused is not None:
        raise VIReIDError(f"{path} is not a checkpoint: {refused}; give a file as torch.save writes it.")
    try:
        with torch.serialization.safe_globals(list(allow)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            raise VIReIDError(
                f"{path} holds objects that would run code when loaded and was refused"
                f"{f' ({named[1]})' if named else ''}; save plain tensors (a state dict) and numbers instead."
            ) from error
        raise VIReIDError(f"{path} is not a checkpoint: it is no file that torch.save writes.") from error
    except Exception as error:  # torch raises a different type for every way in which a file can be broken
        if isinstance(error, VIReIDError):
            raise
        said = " ".join(str(error).split())[:200]
        raise VIReIDError(f"{path} is not a checkpoint, or it is cut short: {type(error).__name__}: {said}") from error


def _look_into(path: Path) -> str | None:
    """Return why a torch file is not to be loaded although nothing in it would be executed, or None.

    A small file must not fill the memory: torch stores its archives uncompressed, and nothing that it writes holds a
    ``bytearray``, which a file of 100 bytes could ask for at any length.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                return "it is a compressed archive"
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            texts = [archive.read(name) for name in names]
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, struct.error):
        with path.open("rb") as file:  # of older versions of torch, a pickle
            texts = [file.read(2**20)]
    return "it asks for memory without bounds" if any(b"bytearray" in text for text in texts) else None
