"""What decides a run, as a flat list of facts: two experiments with the same facts go on with each other's states.

A repr will not do. It hides the number in a closure and the middle of a long array, and it shows how many clients train in
one tensor, which changes nothing. So the tree of parts is walked: numbers by value and type, arrays by their bytes, functions
by their code with its constants, defaults, closure and the globals that it names, modules of torch by class, attributes and
shapes (their present parameters are only where a run begins), and everything else by class and fields.

    {"training.lr": "0.1", "stages[0]": "Clip", "stages[0].bound": "1.0", "data.x": "<f4 (66, 5) #5d0c…", …}
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Set
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

NO_EFFECT = {  # fields that change speed, words or what is measured, and no number of the run (a device: its last digits)
    "Coordinator": ("strict", "evaluation"),
    "LocalSGD": ("together", "threads", "device"),
    "FederatedData": ("name", "made"),
    "Wrapped": ("name",),
}
INSTALLED = tuple({sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
CHANGEABLE = (list, dict, set, np.ndarray)
WRITERS = ("append", "extend", "insert", "add", "update", "setdefault")
SHORT = 32                                    # longer containers are one fact
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
ASKED = ("__call__", "__getitem__", "__len__", "__iter__", "__contains__", "__getattr__")      # methods that have no plain name
INTERNAL = re.compile(r"^_(parameters|buffers|modules|non_persistent.*|is_full.*|.*hooks.*)$")           # of a module of torch


def facts(experiment: Any) -> dict[str, str]:
    """Path → a text of at most some 80 letters. Does not depend on the process, on print options, or on who is looking."""
    return dict(_facts("", experiment, ()))


def difference(saved: Mapping[str, str], here: Mapping[str, str]) -> tuple[str, str, str] | None:
    """The first path whose fact differs, with both texts; None if there is none."""
    for path in [*here, *(path for path in saved if path not in here)]:
        if saved.get(path) != here.get(path):
            return path, saved.get(path, "nothing"), here.get(path, "nothing")
    return None


Facts = Iterable[tuple[str, str]]


def _facts(path: str, value: Any, above: tuple[int, ...]) -> Facts:
    if id(value) in above:
        return [(path, "itself")]
    above = (*above, id(value))
    if value is None or (isinstance(value, bool | int | float | complex | str | bytes) and not isinstance(value, np.generic)):
        return [(path, _short(repr(value)))]
    if isinstance(value, np.generic):
        return [(path, f"{value.dtype.str} {value.item()!r}")]
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [(path, f"{value.dtype.str} {value.shape} {_digest(np.ascontiguousarray(value).tobytes())}")]
    if isinstance(value, torch.Tensor):
        if isinstance(value, torch.nn.Parameter) and value.requires_grad:      # a run brings its own numbers
            return [(path, f"{value.dtype} {tuple(value.shape)}")]
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return [(path, f"{value.dtype} {tuple(value.shape)} {_digest(raw.tobytes())}")]
    if isinstance(value, torch.nn.Module):
        return [(path, type(value).__qualname__), *_class(path, type(value), above), *_module(path, value, above)]
    if isinstance(value, Mapping):
        inside = sorted(((_short(repr(key)), key) for key in value), key=lambda pair: pair[0])
        return _members(path, ((f"[{text}]", value[key]) for text, key in inside), len(value), above)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return _facts(path, value.item(), above)
    if isinstance(value, list | tuple | np.ndarray):
        return _members(path, ((f"[{i}]", part) for i, part in enumerate(value)), len(value), above)
    if isinstance(value, Set):
        return [(path, "a set of " + _digest(repr(sorted(_flat(part, above) for part in value)).encode()))]
    if isinstance(value, partial):
        return _members(path, (("()", value.func), (".args", value.args), (".keywords", value.keywords)), 3, above)
    if isinstance(value, MethodType):
        return _members(path, (("()", value.__func__), (".self", value.__self__)), 2, above)
    if isinstance(value, FunctionType):
        return [(path, f"a function {_digest(_function(value, above).encode())}")]
    if isinstance(value, type | BuiltinFunctionType | ModuleType):
        name = value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__qualname__}"
        return [(path, name), *(_class(path, value, above) if isinstance(value, type) else [])]
    return [(path, type(value).__qualname__) if path else ("experiment", type(value).__qualname__),
            *_class(path, type(value), above), *_fields(path, value, above)]  # fmt: skip


def _fields(path: str, value: Any, above: tuple[int, ...]) -> Facts:
    """Of a dataclass its fields; of another object what it holds. A list that no repr shows is a notebook, not a setting."""
    if is_dataclass(value):
        hidden = NO_EFFECT.get(type(value).__name__, ()) if _installed(type(value)) else ()       # a namesake's count
        shown = [(f.name, getattr(value, f.name), f.repr) for f in fields(value) if f.name not in hidden]
        shown += [(name, part, False) for name, part in _private(value)]
        members = [(name, part) for name, part, seen in shown if seen or not isinstance(part, list | dict | set)]
    elif held := _held(value):
        members = sorted(held.items())
    elif hasattr(value, "__dict__"):
        members = []
    else:
        return [(f"{path}.repr", _short(re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))))]
    dot = "." if path else ""
    return [fact for name, part in members for fact in _facts(f"{path}{dot}{name}", part, above)]


def _held(value: Any) -> dict[str, Any]:
    """What an object holds: in its dictionary, and in the slots of a user's own class (a library's may be its caches)."""
    own = [kind for kind in type(value).__mro__ if not _installed(kind)]
    slots = {name: part for kind in own for name, part in vars(kind).items() if inspect.ismemberdescriptor(part)}
    return {**{name: getattr(value, name) for name in slots if hasattr(value, name)}, **getattr(value, "__dict__", {})}


def _private(value: Any) -> list[tuple[str, Any]]:
    """What a user's own dataclass holds beside its fields: neither what it has worked out once and kept, nor the library's."""
    kinds = type(value).__mro__
    if all(_installed(kind) for kind in kinds):
        return []
    known = {name for kind in kinds for name, part in vars(kind).items() if isinstance(part, cached_property)}
    known.update(f.name for f in fields(value))
    known.update(name for kind in kinds if _installed(kind) for name in inspect.get_annotations(kind))
    return [(name, part) for name, part in sorted(_held(value).items()) if name not in known]


def _members(path: str, parts: Iterable[tuple[str, Any]], count: int, above: tuple[int, ...]) -> Facts:
    """The parts of a container; of a long one their digest."""
    if count > SHORT:
        return [(path, f"{count} parts {_digest(repr([(name, _flat(part, above)) for name, part in parts]).encode())}")]
    parts = list(parts)
    kinds = ", ".join(type(part).__name__ for _, part in parts)
    return [(path, _short(f"[{kinds}]")), *(fact for name, part in parts for fact in _facts(path + name, part, above))]


def _flat(value: Any, above: tuple[int, ...]) -> list[tuple[str, str]]:
    return list(_facts("", value, above))


def _module(path: str, module: torch.nn.Module, above: tuple[int, ...]) -> Facts:
    """What its attributes are; of frozen parameters and buffers the numbers."""
    out: list[tuple[str, str]] = []
    for name, value in sorted(vars(module).items()):
        if not INTERNAL.match(name):
            out += _facts(f"{path}.{name}", value, above)
        elif name in HOOKS:
            out += [fact for i, hook in enumerate(value.values()) for fact in _facts(f"{path}.{name}[{i}]", hook, above)]
    for name, child in [*module._parameters.items(), *module._buffers.items(), *module._modules.items()]:
        out += _facts(f"{path}.{name}", child, above)
    return out


def _class(path: str, kind: type, above: tuple[int, ...]) -> Facts:
    """The code of a class that is nobody's library: its methods and what it sets for all its objects."""
    own = []
    for base in kind.__mro__:
        if not _installed(base):
            for name, value in sorted(vars(base).items()):
                value = value.func if isinstance(value, cached_property) else getattr(value, "fget", None) or value
                value = getattr(value, "__func__", value)
                if name in ASKED or not (name.startswith("__") or inspect.isdatadescriptor(value) or name == "_abc_impl"):
                    own.append((base.__qualname__, name, _flat(value, (*above, id(kind)))))
    return [(f"{path}.class" if path else "class", _digest(repr(own).encode()))] if own else []


def _function(function: FunctionType, above: tuple[int, ...]) -> str:
    """Its code, and every value that the code can reach without being handed it. What it writes to is a log."""
    cells = [cell.cell_contents if _filled(cell) else None for cell in function.__closure__ or ()]
    reached = {name: function.__globals__[name] for name in sorted(_names(function.__code__)) if name in function.__globals__}
    reached = {name: value for name, value in reached.items() if not isinstance(value, ModuleType)}
    if _writes(function.__code__):
        cells = [value for value in cells if not isinstance(value, CHANGEABLE)]
        reached = {name: value for name, value in reached.items() if not isinstance(value, CHANGEABLE)}
    around = [_outside(value, above) for value in (function.__defaults__, function.__kwdefaults__, cells, reached)]
    return repr([_code(function.__code__, function.__doc__, above), around])


def _outside(value: Any, above: tuple[int, ...]) -> Any:
    """Functions and classes of libraries that a function names stand for themselves; what is ours is walked."""
    if isinstance(value, dict):
        return [(name, _outside(part, above)) for name, part in value.items()]
    if isinstance(value, list):
        return [_outside(part, above) for part in value]
    if isinstance(value, type | FunctionType) and _installed(value):
        return f"{value.__module__}.{value.__qualname__}"
    return _flat(value, above)


def _code(code: CodeType, doc: str | None, above: tuple[int, ...]) -> Any:
    constants = [_code(c, None, above) if isinstance(c, CodeType) else _flat(c, above)
                 for c in code.co_consts if c is None or c != doc]  # fmt: skip
    return [code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars]


def _writes(code: CodeType) -> bool:
    """Whether it appends to something or sets an entry of something."""
    steps = any(step.opname == "STORE_SUBSCR" or (step.opname in ("LOAD_METHOD", "LOAD_ATTR") and step.argval in WRITERS)
                for step in dis.get_instructions(code))  # fmt: skip
    return steps or any(_writes(c) for c in code.co_consts if isinstance(c, CodeType))


def _names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def _installed(thing: type | FunctionType) -> bool:
    """Whether somebody's library holds its code, whose version is not the experiment: anything but a script or notebook."""
    name = thing.__module__ or ""
    file = getattr(sys.modules.get(name), "__file__", None)
    return name.split(".")[0] == "fl_course" or (name != "__main__" and (file is None or file.startswith(INSTALLED)))


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _digest(data: bytes) -> str:
    return "#" + hashlib.sha256(data).hexdigest()[:32]


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:40]}… {_digest(text.encode())}"
