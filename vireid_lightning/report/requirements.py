"""The packages of the extra ``report``, which drawing needs and training does not."""

from __future__ import annotations

from importlib.util import find_spec

from vireid_lightning.errors import VIReIDError


def require_packages(*names: str) -> None:
    """Refuse to go on where a package is missing, and say how to install it.

    Raises:
        VIReIDError: Names the first that is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise VIReIDError(
                f"The package {name} is not installed, which reports and figures need; install it with "
                "`pip install 'vireid-lightning[report]'`."
            )
