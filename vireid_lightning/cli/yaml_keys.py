"""Keys that stand twice in one mapping of a YAML text, of which YAML's reader silently takes the last."""

from __future__ import annotations

import yaml

from vireid_lightning.errors import VIReIDError


def check_keys(text: str) -> None:
    """Refuse a YAML text with a key that is given twice.

    Raises:
        VIReIDError: If there is one; names the key and its lines. What is no YAML is left to the reader.

    Example:
        >>> check_keys("a: {b: 1, c: 2}")
    """
    if ":" not in text:
        return
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return
    pending, seen = [(node, "")], set()
    while pending:
        node, path = pending.pop()
        if node is None or id(node) in seen:  # aliases may form circles
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += [(each, path) for each in node.value]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = f"{path}{key.value}", key.start_mark.line + 1
            if name in lines and key.value != "<<":
                raise VIReIDError(
                    f"The key '{name}' stands in lines {lines[name]} and {line} of a config, and the last would count; "
                    "keep one."
                )
            lines[name] = line
            pending.append((value, f"{name}."))
