"""The check of a loss's settings, which costs a step about a microsecond each."""

from __future__ import annotations

from torch import Tensor

from vireid_lightning.kinds import check_number


def check_setting(name: str, value: object, least: float = 0, *, whole: bool = False, above: bool = False) -> None:
    """Refuse a setting that is no finite number of a range, as :func:`~vireid_lightning.kinds.check_number` does.

    A tensor, such as a temperature that is learnt, passes: reading its value would wait for the device.
    """
    if not isinstance(value, Tensor):
        check_number(name, value, least, whole=whole, above=above)
