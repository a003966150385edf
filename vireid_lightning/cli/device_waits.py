"""How often a piece of training makes the host wait for the device, counted also where there is no GPU."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

#: Methods of a tensor that hand its values to Python. Those of NumPy's protocol are for tensors on the CPU alone.
_READS = frozenset(("tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"))

#: Operators whose result's size, or whose result in Python, depends on values.
_VALUE_BOUND = frozenset(
    ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_consecutive")
)


class _Reads(TorchFunctionMode):
    """Counts calls that hand values to Python, by name and place."""

    def __init__(self, places: Counter[str]) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _READS:
            with _Hidden():
                self.places[_name_place(name)] += 1
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _Hidden:
    """Within a call that is counted already, the operators below it are not counted again."""

    depth = 0

    def __enter__(self) -> None:
        _Hidden.depth += 1

    def __exit__(self, *_: object) -> None:
        _Hidden.depth -= 1


class _ValueBound(TorchDispatchMode):
    """Counts operators that must know values before they can go on, by name and place."""

    def __init__(self, places: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no types
        self.places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if not _Hidden.depth and (name in _VALUE_BOUND or masked):
            self.places[_name_place(name)] += 1
        return func(*args, **(kwargs or {}))


class DeviceWaits:
    """Counts, within a ``with`` block, how often the host waits for the device.

    On a GPU PyTorch itself counts. On the CPU nothing waits; what is counted there are the calls that would wait on a
    GPU because they hand values to Python or size a result by them. Copies to the device are not among these.

    Args:
        device: Where the tensors are.

    Attributes:
        places: Number of waits by what waits and, on the CPU, the line of Python that it is called from.

    Example:
        >>> with DeviceWaits(torch.device("cpu")) as waits:
        ...     _ = torch.ones(2).sum().item()
        >>> waits.count
        1
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.places: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """Number of waits."""
        return sum(self.places.values())

    def __enter__(self) -> DeviceWaits:
        self._stack = ExitStack()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self._caught = self._stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        else:
            self._stack.enter_context(_Reads(self.places))
            self._stack.enter_context(_ValueBound(self.places))
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
            found = [each for each in self._caught if "synchroniz" in str(each.message)]
            self.places.update(f"{each.filename}:{each.lineno}" for each in found)
        self._stack.close()


def _name_place(name: str) -> str:
    """Return an operation with the innermost line outside of torch and of this file."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (frame.f_code.co_filename == __file__ or "/torch/" in frame.f_code.co_filename):
        frame = frame.f_back
    return f"{name} at {frame.f_code.co_filename}:{frame.f_lineno}"
