"""Hyper-parameters: fields of a dataclass that carry their own explanation, and command-line options made of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

T = TypeVar("T")


def hyper(default: T, doc: str) -> T:
    """A dataclass field with a default and the sentence that explains it, which is also its ``--help``."""
    field: T = dataclasses.field(default=default, metadata={"doc": doc})
    return field


def to_json(config: Any) -> dict[str, Any]:
    """A configuration as a JSON object (tuples become lists)."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(config).items()}


def with_options(kind: type[Any]) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Decorates a typer command ``f(config, **own_options)``: every field of `kind` becomes an option, the dataclass is built of them.

    Tuples of whole numbers are given as ``128,128``.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., None]:
        return _with(command, [kind], lambda given, **own: command(kind(**given), **own))

    return decorate


def with_choices(kinds: Sequence[type[Any]]) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Decorates a typer command ``f(given, **own_options)``: every field of any of `kinds` becomes an option; `given` are those typed.

    Defaults differ between kinds, so a field that was not typed is left to the dataclass; the help explains it as the first kind with it
    does, and shows each default with those that have it.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., None]:
        return _with(command, kinds, command)

    return decorate


def _with(command: Callable[..., Any], kinds: Sequence[type[Any]], call: Callable[..., Any]) -> Callable[..., None]:
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    options: dict[str, inspect.Parameter] = {}
    tuples = set()
    for kind in kinds:
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name in options:
                continue
            default, hint = field.default, hints[field.name]
            if isinstance(default, tuple):
                tuples.add(field.name)
                default, hint = ",".join(map(str, default)), str
            shown = _defaults(field.name, kinds)
            option = typer.Option(help=field.metadata["doc"], rich_help_panel="Hyper-parameters", show_default=shown)
            annotation = Annotated[hint | None, option]  # type: ignore[valid-type, unused-ignore]
            options[field.name] = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)

    def wrapper(**given: Any) -> None:
        values = {name: value for name in options if (value := given.pop(name)) is not None}
        for name in tuples & values.keys():
            try:
                values[name] = tuple(int(part) for part in values[name].split(",") if part.strip())
            except ValueError:
                raise typer.BadParameter(f"{values[name]!r} must be whole numbers separated by commas, like 128,128") from None
        call(values, **given)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + list(options.values())
    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _defaults(name: str, kinds: Sequence[type[Any]]) -> str:
    """The default of a field, or every one of them with the kinds that have it: ``0.004 (dqn), 0.001 (bc, cql)``."""
    found: dict[str, list[str]] = {}
    for kind in kinds:
        for field in dataclasses.fields(kind):
            if field.name == name:
                default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
                found.setdefault(default or "as is usual", []).append(kind.__name__.removesuffix("Config").lower())
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{default} ({', '.join(names)})" for default, names in found.items())
