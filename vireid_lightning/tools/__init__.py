"""What the `vireid` command runs."""

from __future__ import annotations

from typing import Any

__all__ = ["import_checkpoint"]


def __getattr__(name: str) -> Any:
    # Resolved on first use, so that `vireid --help` imports neither numpy nor torch.
    if name == "import_checkpoint":
        from vireid_lightning.tools.importing import import_checkpoint

        return import_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
