"""Files of arrays and tensors: written whole or not at all, read without running what they hold."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.errors import VIReIDError

# A member of a zip file begins with a header of 30 bytes, the last four of which tell the lengths of two more fields.
_LOCAL_HEADER = 30


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


def read_arrays(
    path: str | Path, names: Sequence[str], optional: Sequence[str] = (), *, mapped: str
) -> dict[str, NDArray[Any]]:
    """Read some arrays of an .npz file.

    Args:
        path: The file.
        names: Arrays that it must have.
        optional: Arrays that it may have.
        mapped: The array that stays in the file, read-only and memory-mapped, where the file is not compressed and the
            system is not Windows; its checksum is then not verified.

    Raises:
        VIReIDError: If the file is missing, no .npz file, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise VIReIDError(f"{path} is a single array; give an .npz file with the arrays {', '.join(names)}.")
            missing = [name for name in names if name not in file.files]
            if missing:
                found = ", ".join(file.files) or "none"
                raise VIReIDError(
                    f"{path} lacks the array '{missing[0]}' (found: {found}); `lightning predict` writes all of "
                    f"{', '.join(names)}."
                )
            arrays = {name: file[name] for name in (*names, *optional) if name in file.files and name != mapped}
            in_file = _map_member(path, mapped)
            arrays[mapped] = file[mapped] if in_file is None else in_file
            # PyTorch takes arrays in this machine's byte order only.
            return {
                name: values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
                for name, values in arrays.items()
            }
    except FileNotFoundError:
        raise VIReIDError(f"{path} does not exist; `vireid embed` and `lightning predict` write such files.") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError) as error:
        if isinstance(error, VIReIDError):
            raise
        # NumPy takes any other file for a pickle, and its message says how to load one.
        reason = str(error).rstrip(".") if zipfile.is_zipfile(path) else "it is none"
        raise VIReIDError(
            f"{path} cannot be read as an .npz file of plain arrays: {reason}; `lightning predict` writes one."
        ) from error


def _map_member(path: str | Path, name: str) -> NDArray[Any] | None:
    """Return an array of an .npz file memory-mapped, or None where its bytes are not stored as they are."""
    if os.name == "nt":  # Windows would not let the next `lightning predict` rename or replace a mapped file
        return None
    with zipfile.ZipFile(path) as archive, Path(path).open("rb") as file:
        if f"{name}.npy" not in archive.namelist():  # other programs may leave out the suffix
            return None
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        file.seek(member.header_offset)
        lengths = struct.unpack("<2H", file.read(_LOCAL_HEADER)[-4:])
        file.seek(member.header_offset + _LOCAL_HEADER + sum(lengths))
        read_header: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        version = np.lib.format.read_magic(file)
        if version not in read_header:
            return None
        shape, by_column, dtype = read_header[version](file)
        if by_column or dtype.hasobject or not dtype.isnative or 0 in shape:
            return None
        return np.memmap(path, dtype, "r", file.tell(), shape)


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
    if not path.is_file():
        raise VIReIDError(f"There is no checkpoint at {path}; give the path of an existing file.")
    try:
        with torch.serialization.safe_globals(list(allow)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            raise VIReIDError(
                f"{path} holds objects that would run code when loaded and was refused; save plain tensors "
                "(a state dict) and numbers instead."
            ) from error
        raise VIReIDError(f"{path} is not a checkpoint: it is no file that torch.save writes.") from error
    except (RuntimeError, OSError, EOFError, LookupError, ValueError, TypeError, struct.error) as error:
        raise VIReIDError(f"{path} is not a checkpoint, or it is cut short: {error}") from error
