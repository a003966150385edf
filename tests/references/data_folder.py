"""Where the benchmarks' real index files lie, which no checkout holds."""

from __future__ import annotations

import os
from pathlib import Path

#: The folder that the environment variable VIREID_TEST_DATA names; without it, shared/data beside the checkout.
TEST_DATA = Path(os.environ.get("VIREID_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
