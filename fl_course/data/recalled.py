"""Data that remember the call that made them, so that a run can be written down and made again elsewhere.

    digits().partition(Shards(2), clients=10, seed=0).source == "digits().partition(Shards(per_client=2), clients=10, seed=0)"

`source` is "" for data that somebody brought, and for what `dataclasses.replace` makes of others. It is no promise: who uses it
makes the data again and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def recalled(make: Callable[P, R]) -> Callable[P, R]:
    """The same function or method, whose data (also several in a tuple) remember the call. It must be a public name."""

    @wraps(make)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        made = make(*args, **kwargs)
        text = _call(make.__qualname__.split("."), args, kwargs)
        several = isinstance(made, tuple)
        for i, data in enumerate(made if isinstance(made, tuple) else (made,)):
            object.__setattr__(data, "source", f"{text}[{i}]" if text and several else text)
        return made

    return called


def _call(name: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """ "few_examples(digits().partition(IID(), 10), train=30)"; "" if data among the arguments do not know theirs."""
    words = [*map(_word, args), *(f"{key}={word}" if (word := _word(value)) else "" for key, value in kwargs.items())]
    if not all(words):
        return ""
    return f"{name[-1]}({', '.join(words)})" if len(name) == 1 else f"{words[0]}.{name[-1]}({', '.join(words[1:])})"


def _word(value: Any) -> str:
    return value.source if hasattr(type(value), "source") else repr(value)
