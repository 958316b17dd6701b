"""Arguments and answers between the judge and the process that runs a submission (judge.py), as messages on a socket.

To the student's side they go as pickles. What comes back is read without trust: numbers, texts, arrays, containers of these
and the dataclasses of the course; no name in it can call anything else. The rest comes as `Strange`, which equals nothing.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import io
import itertools
import json
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

LARGEST = 256 << 20                           # bytes of a message
LONGEST = 1_000_000                           # elements of a generator that are carried over
HEAD = struct.Struct("<8sII")                 # a mark, so that a message is found behind whatever else was written there
MARK = b"\n\xf1\xc0rse\0\n"
PLAIN = (int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
LAZY = (collections.abc.Iterator, collections.abc.MappingView)
NUMPY = {("_reconstruct", "multiarray"), ("scalar", "multiarray"), ("_frombuffer", "numeric")}
KNOWN = {("numpy", "ndarray"), ("numpy", "dtype"), *(("builtins", name) for name in (
    "complex", "set", "frozenset", "bytearray", "range", "slice"))}  # fmt: skip


class Line:
    """One end of the socket. A message is a head, which is JSON, and a body of bytes. EOFError when the other end is gone."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel

    def send(self, head: dict[str, Any], body: bytes = b"") -> None:
        text = json.dumps(head).encode()
        with _uninterrupted():
            self.channel.sendall(HEAD.pack(MARK, len(text), len(body)) + text + body)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """ValueError for what is no message."""
        with _uninterrupted():
            start = self._read(HEAD.size)
            while not start.startswith(MARK):
                start = start[1:] + self._read(1)
            sizes = HEAD.unpack(start)[1:]
            if max(sizes) > LARGEST:
                raise ValueError(f"a message of {max(sizes)} bytes")
            text, body = self._read(sizes[0]), self._read(sizes[1])
        try:
            head = json.loads(text)
        except RecursionError as error:
            raise ValueError("a head without an end") from error
        if not isinstance(head, dict):
            raise ValueError("a head that is no table")
        return head, body

    def _read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            try:
                chunk = self.channel.recv(min(size - len(found), 1 << 20))
            except OSError as error:
                raise EOFError from error
            if not chunk:
                raise EOFError
            found += chunk
        return bytes(found)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """The bell of a time limit waits until the message is whole."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- from the student's side -----------------------------------------------------------------------------------------


class Strange:
    """An answer that cannot be carried over."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Packer(pickle.Pickler):
    """Makes of subclasses what they are subclasses of, of generators lists, of tensors arrays, of the rest `Strange`."""

    def reducer_override(self, value: Any) -> Any:                # not asked for plain numbers, texts and containers
        kind = type(value)
        if any(value is one for one in (*OURS.values(), range, slice, complex, bytearray)):
            return NotImplemented
        if kind is Strange:
            return Strange, (value.text,)
        if isinstance(value, np.ndarray):
            return NotImplemented if kind is np.ndarray else (same, (np.array(value, subok=False),))
        if isinstance(value, np.random.Generator):
            return generator, (type(value.bit_generator).__name__, value.bit_generator.state)
        for plain in PLAIN:
            if isinstance(value, plain) and not isinstance(value, np.generic):
                return NotImplemented if kind is plain else (same, (_plain(plain, value),))
        if isinstance(value, np.generic | np.dtype) or str(getattr(value, "__module__", "")).startswith("numpy"):
            return NotImplemented                                 # of these the judge knows the ones that arrays are made with
        if kind.__module__.startswith("torch") and hasattr(value, "detach"):
            value = value.detach().cpu()
            return tensor, ((value.float() if value.is_floating_point() and value.element_size() < 4 else value).numpy(),)
        if isinstance(value, LAZY):
            values: Iterable[Any] = value                         # type: ignore[assignment]
            return lazy, (list(itertools.islice(values, LONGEST)),)
        if isinstance(value, range | slice | bytearray):
            return NotImplemented
        if dataclasses.is_dataclass(value) and of_course(kind):
            fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
            return made, (kind.__module__, kind.__qualname__, fields)
        return Strange, (f"the function {kind.__name__}" if callable(value) else f"an object of {kind.__name__}",)


def packed(args: Any, kwargs: Any, answer: Any) -> bytes:
    """For the other side; an answer that makes trouble on the way is `Strange` as a whole."""
    for one in (answer, Strange("an answer that cannot be carried over")):
        with contextlib.suppress(Exception):
            held = io.BytesIO()
            Packer(held, protocol=4).dump((args, kwargs, one))
            if held.tell() <= LARGEST:
                return held.getvalue()
    return b""


def _plain(plain: Any, value: Any) -> Any:
    if plain in (int, float, complex, str, bytes):
        return plain.__add__(value, plain())
    if plain is dict:
        return dict(dict.items(value))
    return plain(plain.__iter__(value))


# --- on the judge's side ---------------------------------------------------------------------------------------------


class Unpacker(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in KNOWN:
            return getattr(sys.modules[module], name)
        if (name, module.rpartition(".")[2]) in NUMPY and module.split(".")[0] == "numpy":
            return super().find_class(module, name)
        if module == __name__ and name in OURS:
            return OURS[name]
        raise pickle.UnpicklingError(f"an answer holds {module}.{name}"[:200])


def unpacked(data: bytes) -> Any:
    """The value; ValueError with a sentence for what is none."""
    try:
        return Unpacker(io.BytesIO(data)).load()
    except Exception as error:
        raise ValueError(f"the answer cannot be read: {type(error).__name__}: {error}"[:300]) from error


def generator(bits: str, state: dict[str, Any]) -> np.random.Generator:
    made = {"PCG64": np.random.PCG64, "Philox": np.random.Philox, "MT19937": np.random.MT19937, "SFC64": np.random.SFC64,
            "PCG64DXSM": np.random.PCG64DXSM}[bits](0)  # fmt: skip
    made.state = state
    return np.random.Generator(made)


def tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.array(array))


def lazy(values: list[Any]) -> Any:
    return iter(list(values))


def made(module: str, name: str, values: dict[str, Any]) -> Any:
    """A dataclass of the course, as its fields say; its own checks see to the rest."""
    kind = getattr(sys.modules.get(module), name, None)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and of_course(kind)):
        raise ValueError(f"no dataclass {module}.{name}"[:200])
    value = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(value, field.name, values[field.name])
    return value


def same(value: Any) -> Any:
    return value


def of_course(kind: type) -> bool:
    """A class of the library or of a chapter's exercises, not of the desk."""
    desk = ("fl_course.workbook.grading", "fl_course.workbook.commands")
    return kind.__module__.startswith("fl_course.") and not kind.__module__.startswith(desk)


OURS = {"generator": generator, "tensor": tensor, "lazy": lazy, "made": made, "same": same, "Strange": Strange}


def merged(old: Any, new: Any) -> Any:
    """An argument as the function has left its copy: `old`, changed in place as far as that goes, else `new`."""
    if type(old) is not type(new):
        return new
    if isinstance(old, np.random.Generator) and type(old.bit_generator) is type(new.bit_generator):
        old.bit_generator.state = new.bit_generator.state
        return old
    if isinstance(old, np.ndarray) and old.shape == new.shape and old.dtype == new.dtype and old.flags.writeable:
        old[...] = new
        return old
    if hasattr(old, "detach") and old.shape == new.shape:
        old.detach().copy_(new)
        return old
    if isinstance(old, list):
        old[:] = [merged(a, b) for a, b in zip(old, new, strict=False)] + new[len(old) :]
        return old
    if isinstance(old, dict):
        kept = {key: merged(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(kept)
        return old
    if isinstance(old, set):
        old.symmetric_difference_update(old ^ new)
        return old
    if isinstance(old, tuple):
        return tuple(merged(a, b) for a, b in zip(old, new, strict=False)) + new[len(old) :]
    if dataclasses.is_dataclass(old):
        for field in dataclasses.fields(old):
            merged(getattr(old, field.name), getattr(new, field.name))
    return new
