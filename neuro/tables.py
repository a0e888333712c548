"""Tables of a TOML file into frozen dataclasses, with every problem collected.

A field's annotation is its type: bool, int, float, str, `X | None`, `tuple[X, ...]` for arrays,
another dataclass for a sub-table, `Mapping[str, Any]` for a free one. A dataclass may have a method
``problems() -> list[str]`` that says what is wrong with values of the right type.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from neuro.extend import did_you_mean

T = TypeVar("T")
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def read_table(cls: type[T], table: object, where: str, bad: list[str]) -> T | None:
    """A dataclass from a table; None, and sentences in ``bad``, where that cannot be."""
    if not isinstance(table, Mapping):
        bad.append(f"{where or 'the file'} must be a table, got {table!r:.60}")
        return None
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    before = len(bad)
    for name in table:
        if name not in fields:
            bad.append(f"{_at(where, name)} is unknown. {did_you_mean(str(name), fields)}")
    values: dict[str, Any] = {}
    whole = True  # whether every field has a value, its default where what was given is wrong
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if name in table:
            wrong = len(bad)
            value = read_value(hints[name], table[name], _at(where, name), bad)
            if len(bad) == wrong:
                values[name] = value
                continue
        elif required:
            bad.append(f"{_at(where, name)} is missing")
        whole = whole and not required
    if not whole:
        return None
    made = cls(**values)
    bad += [f"{_at(where, problem)}" for problem in getattr(made, "problems", list)()]
    return made if len(bad) == before else None


def read_value(hint: Any, value: object, where: str, bad: list[str]) -> Any:
    """One value of an annotated type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        options = [a for a in args if a is not type(None)]
        if len(options) == 1:
            return read_value(options[0], value, where, bad)
        for option in options:
            trial: list[str] = []
            found = read_value(option, value, where, trial)
            if not trial:
                return found
        bad.append(f"{where} must be {' or '.join(_named(o) for o in options)}, got {value!r:.60}")
        return None
    if dataclasses.is_dataclass(hint):
        return read_table(hint, value, where, bad)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            bad.append(f"{where} must be an array, got {value!r:.60}")
            return None
        return tuple(read_value(args[0], v, f"{where}[{i}]", bad) for i, v in enumerate(value))
    if hint is Any or origin is not None:  # Mapping[str, Any]: a free table
        if hint is not Any and not isinstance(value, Mapping):
            bad.append(f"{where} must be a table, got {value!r:.60}")
        return value
    right = isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)
    if hint is float:
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
        right = right and abs(value) <= sys.float_info.max  # type: ignore[arg-type]  # NaN and huge integers are not
    if not right:
        bad.append(f"{where} must be {_named(hint)}, got {value!r:.60}")
        return None
    return float(typing.cast(float, value)) if hint is float else value


def plain(value: Any) -> Any:
    """A dataclass as the table it was read from: dicts, lists, numbers, strings; None is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        rows = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {k: v for k, v in rows.items() if v is not None}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _named(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        return f"an array ({_named(typing.get_args(hint)[0])} each)"
    return _NAMES.get(hint, "a table")


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
