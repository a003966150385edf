"""A command with subcommands: its help, its version, and how its errors are told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vireid_lightning.cli.failures import TRACEBACK, explain_exception
from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.printable import make_printable
from vireid_lightning.version import __version__


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
        wants_traceback = TRACEBACK in given
        name, *others = [argument for argument in given if argument != TRACEBACK] or ["--help"]
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
            print(f"error: {make_printable(explain_exception(error))}", file=sys.stderr)
            sys.exit(2)

    def help(self) -> str:
        """Return the text that ``--help`` prints."""
        width = max(map(len, self.subcommands)) + 2
        listed = [f"  {name:<{width}}{text}" for name, text in self.subcommands.items()]
        return "\n".join([f"usage: {self.usage}", "", self.description, "", *listed, "", *self.notes])
