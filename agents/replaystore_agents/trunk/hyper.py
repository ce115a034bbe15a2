"""Hyper-parameters: fields of a dataclass that carry their own explanation, and command-line options made of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
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
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        hints = get_type_hints(kind)
        options = []
        tuples = set()
        for field in dataclasses.fields(kind):
            default, hint = field.default, hints[field.name]
            if isinstance(default, tuple):
                tuples.add(field.name)
                default, hint = ",".join(map(str, default)), str
            option = typer.Option(help=field.metadata["doc"], rich_help_panel="Hyper-parameters")
            options.append(
                inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, option])
            )
        taken = {option.name for option in options}

        def wrapper(**given: Any) -> None:
            values = {name: given.pop(name) for name in taken}
            for name in tuples:
                try:
                    values[name] = tuple(int(part) for part in values[name].split(",") if part.strip())
                except ValueError:
                    raise typer.BadParameter(f"{values[name]!r} must be whole numbers separated by commas, like 128,128") from None
            command(kind(**values), **given)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + options
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate
