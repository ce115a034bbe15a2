"""Frozen configuration dataclasses to and from JSON objects: ``{"type": "Prioritized", "alpha": 0.6, ...}``.

The JSON stands in Zarr attributes and on the wire, so a reader must be able to say precisely what it does not understand.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from replaystore.errors import InvalidArgument

T = TypeVar("T")


def to_json(record: Any) -> dict[str, Any]:
    """The record's fields that differ from JSON's null, with the class's name under ``type``."""
    if isinstance(record, type) or not dataclasses.is_dataclass(record):
        raise InvalidArgument(f"{record!r} is no configuration: pass an object such as replaystore.MinSize(1)")
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return {
        "type": type(record).__name__,
        **{k: _plain(v) for k, v in fields.items()},
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return list(value) if isinstance(value, tuple) else value


def from_json(data: Any, kinds: dict[str, type[T]], what: str) -> T:
    """The record that `data` describes.

    Args:
        data: a JSON object with a ``type`` key.
        kinds: the classes allowed here, by name.
        what: what is being read, for the error message ("selector", "view", ...).

    Raises:
        InvalidArgument: no such type, an unknown field, or a value that the class refuses.
    """
    name = data.get("type") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in kinds:
        got = data.get("type") if isinstance(data, dict) else data
        raise InvalidArgument(f"{what} {got!r} is not known here; it must be one of {', '.join(sorted(kinds))}")
    kind = kinds[name]
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {k: (tuple(v) if isinstance(v, list) else v) for k, v in data.items() if k != "type"}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise InvalidArgument(f"{what} {data['type']} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}")
    try:
        return kind(**values)
    except TypeError as error:
        raise InvalidArgument(f"{what} {data['type']} cannot be made of {values}: {error}") from error


def check_number(name: str, value: Any, low: float, high: float = float("inf"), *, whole: bool = False) -> None:
    """Raises InvalidArgument unless ``low <= value <= high`` (and is an integer when `whole`)."""
    is_number = isinstance(value, int) or (not whole and isinstance(value, float))
    if isinstance(value, bool) or not is_number or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        bound = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
        hint = f": pass {'int' if whole else 'float'}(…)" if type(value).__module__ == "numpy" else ""
        raise InvalidArgument(f"{name}={value!r} must be {kind} {bound}{hint}")
