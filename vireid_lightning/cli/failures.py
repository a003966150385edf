"""What a command says when it fails or is stopped: one line."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vireid_lightning.cli.messages import explain_missing_package
from vireid_lightning.errors import VIReIDError

if TYPE_CHECKING:
    from vireid_lightning.callbacks.signals import RunStopped

#: The option that shows where an error comes from.
TRACEBACK = "--traceback"

#: What a part of an exception's message means for a user.
_MEANINGS = {
    r"DataLoader worker .*(exited unexpectedly|killed by signal)": (
        "A loading process was ended from outside, as the system does where memory runs out; set data.num_workers "
        "lower, or give the run more memory"
    ),
    r"out of memory|can't allocate memory|Cannot allocate memory": (
        "There is not enough memory; make the batch (data.identities_per_batch, data.eval_batch_size) or the images "
        "smaller, or set trainer.precision to bf16-mixed"
    ),
    r"[Cc]onnection (reset|closed) by peer|remote process exited|Broken pipe": (
        "Another process of this run has ended, perhaps one that loads images, or the connection to it; what it said "
        "last tells why, and the run goes on from its last checkpoint"
    ),
    r"No space left on device|Disk quota exceeded": "The disk is full; make room and go on from the last checkpoint",
}


def explain_exception(error: BaseException) -> str:
    """Return what went wrong in one line: this package's own sentence, or what another package says."""
    if isinstance(error, VIReIDError):
        return _shorten(str(error))
    text = " ".join(str(error).split())
    is_told = isinstance(error, ValueError) or type(error).__name__ == "MisconfigurationException"
    said = text if text and is_told else f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, PermissionError) and error.filename is not None:
        said = f"{error.filename} may not be read or written; give another path, or change its permissions"
    meaning = next((meaning for part, meaning in _MEANINGS.items() if re.search(part, text)), None)
    said = f"{meaning} ({said[:200]})" if meaning else said
    return f"{_shorten(said.rstrip('.'))}. `{TRACEBACK}` shows where."


def _shorten(text: str) -> str:
    """Cut what quotes a whole config; no sentence of this package is as long."""
    return text if len(text) <= 2000 else f"{text[:2000]} ..."


@contextmanager
def tell_in_a_sentence() -> Iterator[None]:
    """Raise this package's own error where the parser wraps one, see :func:`_find_sentence`; let others through."""
    try:
        yield
    except (ValueError, TypeError, argparse.ArgumentError) as error:
        told = _find_sentence(error)
        if told is None or told is error:
            raise
        raise told from None


def _find_sentence(error: BaseException) -> VIReIDError | None:
    """Return this package's own error behind one of the parser, which wraps what a constructor raises, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, VIReIDError):
            return cause
        if isinstance(cause, ModuleNotFoundError):  # a logger's, which needs a package of its own
            return VIReIDError(explain_missing_package(cause))
        cause = cause.__cause__ or cause.__context__
    # Where an argument may be of several types, the parser lists what each of them says.
    said = [" ".join(part.split()) for part in re.split(r"\n\s*- ", str(error))[1:]]
    told = [part for part in said if not part.startswith("Expected a")]
    return VIReIDError(told[0]) if told else None


def tell_how_to_go_on(stop: RunStopped, args: Sequence[str]) -> str:
    """Return what a stopped run says: the one command that goes on with it, or that nothing was saved."""
    if stop.checkpoint is None:
        return f"Stopped by {stop.signal.name}; there was nothing to save."
    kept: list[str] = []
    for argument in args:
        if kept and kept[-1] == "--ckpt_path":
            kept.pop()
        elif not argument.startswith("--ckpt_path="):
            kept.append(argument)
    command = shlex.join(["lightning", *kept, "--ckpt_path", stop.checkpoint])
    return f"Stopped by {stop.signal.name}. The run goes on with\n  {command}"
