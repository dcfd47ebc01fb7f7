"""The limits that `walletctl wallet limits` shows and is asked to set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from walletctl.console import Exit, fail, print_fields, print_json

_NONE: Final = "none"
_SET: Final = ("id", "direction", "types", "window", "amount", "count")


def asked(
    overdraft_limit: str | None, balance_max: str | None, velocity: str | None, file: Path | None
) -> dict[str, Any]:
    """Return the fields that the operator gave, as the body of the request has them; exit 2 if they aren't JSON."""
    fields: dict[str, Any] = {}
    if overdraft_limit is not None:
        fields["overdraft_limit"] = overdraft_limit
    if balance_max is not None:
        fields["balance_max"] = None if balance_max == _NONE else balance_max
    if velocity is not None and file is not None:
        fail("--file: give either --velocity or --file", Exit.USAGE)
    text = file.read_bytes() if file else velocity
    if text is not None:
        try:
            fields["velocity"] = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            fail(f"--{'file' if file else 'velocity'}: is not JSON: {error}", Exit.USAGE)
    return fields


def present(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits that the wallet has, as the body of the request has them."""
    velocity = [{name: limit[name] for name in _SET} for limit in found["velocity"]]
    return {"overdraft_limit": found["overdraft_limit"], "balance_max": found["balance_max"], "velocity": velocity}


def show(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the limits, and what is used of them."""
    if as_json:
        print_json(dict(found))
        return
    print_fields("Limits", {name: value for name, value in found.items() if name != "velocity"})
    for limit in found["velocity"]:
        told = {name: ", ".join(value) if isinstance(value, list) else value for name, value in limit.items()}
        print_fields(f"Velocity limit {limit['id']}", told)
