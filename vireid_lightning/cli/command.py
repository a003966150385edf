"""A command with subcommands: its help, its version, and how its errors are told."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.version import __version__

_TRACEBACK = "--traceback"

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
    r"No space left on device|Disk quota exceeded": "The disk is full; make room and go on from the last checkpoint",
}


def explain_exception(error: BaseException) -> str:
    """Return what went wrong in one line: this package's own sentence, or what another package says."""
    if isinstance(error, VIReIDError):
        return str(error)
    text = " ".join(str(error).split())
    is_told = isinstance(error, ValueError) or type(error).__name__ == "MisconfigurationException"
    said = text if text and is_told else f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, PermissionError) and error.filename is not None:
        said = f"{error.filename} may not be read or written; give another path, or change its permissions"
    meaning = next((meaning for part, meaning in _MEANINGS.items() if re.search(part, text)), None)
    said = f"{meaning} ({said[:200]})" if meaning else said
    return f"{said.rstrip('.')}. `{_TRACEBACK}` shows where."


@dataclass(frozen=True)
class Command:
    """A command that is called with its arguments; whatever fails ends with one sentence and exit code 2.

    Nothing heavy is imported before a subcommand runs, so that help comes at once.

    Attributes:
        usage: The usage line, without the word "usage".
        description: What the command is for.
        subcommands: What each subcommand does, by its name.
        notes: Further lines of the help.
        run: Runs a subcommand, given its name and the arguments after it.
        hand_over: Given the same for a name that is no subcommand, runs what else knows that name and returns True, or
            returns False where nothing does.
        advice: A sentence about names that are no subcommand, for the error.
    """

    usage: str
    description: str
    subcommands: Mapping[str, str]
    notes: Sequence[str]
    run: Callable[[str, list[str]], object]
    hand_over: Callable[[str, list[str]], bool] = lambda name, args: False
    advice: str = ""

    def __call__(self, args: Sequence[str] | None = None) -> None:
        """Run the command with some arguments, by default those of the program."""
        given = list(sys.argv[1:] if args is None else args)
        wants_traceback = _TRACEBACK in given
        name, *others = [argument for argument in given if argument != _TRACEBACK] or ["--help"]
        try:
            if name in ("-h", "--help"):
                print(self.help())
            elif name == "--version":
                print(f"vireid-lightning {__version__}")
            elif name in self.subcommands:
                self.run(name, others)
            elif not self.hand_over(name, others):
                hint = did_you_mean(name, self.subcommands)
                raise VIReIDError(f"'{name}' is none of {', '.join(self.subcommands)}.{hint} {self.advice}".rstrip())
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:  # whoever reads the output has had enough
            sys.stderr.close()
            sys.exit(1)
        except Exception as error:
            if wants_traceback:
                raise
            print(f"error: {explain_exception(error)}", file=sys.stderr)
            sys.exit(2)

    def help(self) -> str:
        """Return the text that ``--help`` prints."""
        width = max(map(len, self.subcommands)) + 2
        listed = [f"  {name:<{width}}{text}" for name, text in self.subcommands.items()]
        return "\n".join([f"usage: {self.usage}", "", self.description, "", *listed, "", *self.notes])
