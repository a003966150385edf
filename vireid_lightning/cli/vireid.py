"""The ``vireid`` command: one subcommand a tool, imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING

from vireid_lightning import __version__
from vireid_lightning.errors import VIReIDError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Subcommand -> what it does. Its module has ``add_arguments`` and ``run``, and the name with underscores unless
#: ``_MODULES`` has another.
TOOLS = {
    "synthesize": "draw a synthetic dataset in the layout of a real one",
    "check-dataset": "compare a dataset's folder with what its authors published",
    "evaluate": "score saved embeddings under a dataset's protocols",
    "trials": "train and test each trial of a dataset with several splits, such as RegDB",
    "aggregate": "mean and deviation of result files of several trials or seeds",
    "import-checkpoint": "convert weights that a paper's authors released",
}

# A module of the tool's own name would hide the public function `vireid_lightning.cli.tools.import_checkpoint`.
_MODULES = {"import-checkpoint": "import_checkpoint"}


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``vireid`` command; bad input ends with one sentence and exit code 2."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return
    if args[0] == "--version":
        print(f"vireid-lightning {__version__}")
        return
    name = args[0]
    if name not in TOOLS:
        print(
            f"error: There is no tool '{name}'; the tools are {', '.join(TOOLS)}.{did_you_mean(name, TOOLS)}",
            file=sys.stderr,
        )
        sys.exit(2)
    tool = importlib.import_module(f"vireid_lightning.cli.tools.{_MODULES.get(name, name.replace('-', '_'))}")
    parser = argparse.ArgumentParser(prog=f"vireid {name}", description=tool.__doc__)
    tool.add_arguments(parser)
    arguments = parser.parse_args(args[1:])
    try:
        tool.run(arguments)
    except VIReIDError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _help() -> str:
    width = max(map(len, TOOLS)) + 2
    lines = [
        "usage: vireid TOOL ...",
        "",
        "Tools of vireid-lightning; training and testing are the `lightning` command's.",
        "",
        *(f"  {name:<{width}}{text}" for name, text in TOOLS.items()),
        "",
        "`vireid TOOL --help` lists a tool's arguments.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
