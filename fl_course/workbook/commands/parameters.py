"""Parameters of a notebook: which there are, of which type, and whether what was asked for fits."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COUNT = re.compile(r"(?:^|_)(?:rounds|repeats|clients|trials|problems|epochs|pages)$")    # a lesson cannot begin without them


class BadParameter(ValueError):
    """A parameter that no notebook has, or a value of another type; the message names what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """One name of the cell tagged `parameters`."""

    name: str
    kind: str                                 # "int", "float", "bool", "str", or another annotation as written
    default: str                              # as written
    help: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.kind} = {self.default}"


def inspect(path: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, by name. (papermill itself only warns about unknown ones.)"""
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)
    found = {}
    for name, about in papermill.inspect_notebook(str(path)).items():
        kind = _kind(about["inferred_type_name"], about["default"])
        found[name] = Parameter(name, kind, about["default"], about["help"] or "")
    return found


def choose(paths: Iterable[Path], asked: Iterable[tuple[str, str]]) -> dict[Path, dict[str, Any]]:
    """What each notebook is to be run with: of the (name, text) pairs those that it has, with the right type.

    Raises BadParameter if a value has the wrong type, if none of the notebooks has a parameter of that name, or
    if one is given twice.
    """
    known = {path: inspect(path) for path in paths}
    chosen: dict[Path, dict[str, Any]] = {path: {} for path in known}
    seen: set[str] = set()
    for name, text in asked:
        if name in seen:
            raise BadParameter(f"parameter {name!r} is given twice; for several values: fl-course sweep … -p {name} 1,2,4")
        seen.add(name)
        if not any(name in parameters for parameters in known.values()):
            allowed = "; ".join(f"{path.name}: {listing(parameters)}" for path, parameters in known.items())
            raise BadParameter(f"no parameter {name!r}. Allowed: {allowed}")
        for path, parameters in known.items():
            if name in parameters:
                chosen[path][name] = parse(parameters[name], text)
    return chosen


def listing(parameters: dict[str, Parameter]) -> str:
    return ", ".join(map(str, parameters.values())) or "(no parameters)"


def parse(parameter: Parameter, text: str) -> Any:
    """The text as a value of the parameter's type. BadParameter names the type and the default."""
    kind = parameter.kind
    refusal = f"{parameter.name} = {text!r} does not fit; {parameter} takes a value of type {kind}"
    try:
        if kind == "str":
            return text
        if kind == "bool":
            return {"true": True, "false": False, "1": True, "0": False}[text.strip().lower()]
        if kind == "int":
            number = int(text)
            if number < 1 and COUNT.search(parameter.name):
                raise BadParameter(f"{parameter.name} = {text!r} does not fit; {parameter} is a count: a whole number from 1")
            return number
        if kind == "float":
            return float(text)
        value = ast.literal_eval(text)
    except BadParameter:
        raise
    except (ValueError, KeyError, SyntaxError) as error:
        raise BadParameter(refusal) from error
    outer = kind.partition("[")[0].lower()
    if outer in ("list", "tuple", "dict") and type(value).__name__ != outer:
        raise BadParameter(refusal)
    return value


def _kind(annotated: str, default: str) -> str:
    """The annotation, or without one the type of the default."""
    if annotated != "None":
        return annotated
    try:
        return type(ast.literal_eval(default)).__name__
    except (ValueError, SyntaxError):
        return "literal"
