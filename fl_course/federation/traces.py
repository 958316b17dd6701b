"""Traces: what devices did, read from a CSV file, as text and numbers only.

    client,time,event                  client,time,rate
    7,0,on                             7,0,120.5           examples a second from then on; 0 is away
    7,3600,off                         7,3600,0
"""

from __future__ import annotations

import csv
import io
import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from ..core import ClientId


@dataclass(frozen=True)
class Trace:
    """What devices did: for each client the instants at which something changed, and its rate from then on.

    events: {client: ((time in s, rate), …)}, times rising. A rate of 0 is away. With `rated` the rates are examples a second,
    and a job of the client takes as long as at its mean rate while it is there; else they say nothing but there or not. A
    client is away before its first line. period: after so many seconds everything begins again, for ever.
    """

    events: Mapping[ClientId, Sequence[tuple[float, float]]]
    rated: bool = False
    period: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.events, Mapping):
            raise TypeError(f"events must be a mapping of clients to their changes, not {self.events!r}; see Trace.read"[:200])
        if not self.events:
            raise ValueError("a trace must have at least one line")
        if self.period is not None and not 0 < self.period < math.inf:
            raise ValueError(f"period must be a positive number of seconds, not {self.period}")
        for client, changes in self.events.items():
            last = -1.0
            if not isinstance(changes, Sequence) or not all(isinstance(c, Sequence) and len(c) == 2 for c in changes):
                raise TypeError(f"client {client!r}: its changes must be pairs (time, rate), not {changes!r}"[:200])
            for time, rate in changes:
                if why := self._wrong(time, rate, last):
                    raise ValueError(f"client {client!r}: {why}")
                last = time
        object.__setattr__(self, "events", {client: tuple(changes) for client, changes in self.events.items()})

    def _wrong(self, time: float, rate: float, last: float) -> str:
        if not (isinstance(time, Real) and isinstance(rate, Real)):
            return f"a change is a time and a rate, two numbers, not {time!r} and {rate!r}"[:200]
        if not 0 <= time < math.inf:
            return f"the time is {time}; it must be a number of seconds from 0"
        if time <= last:
            return f"the time is {time:g}, and the line before says {last:g}; the times of a client must rise"
        if self.period is not None and time >= self.period:
            return f"the time is {time:g}, beyond the period of {self.period:g} s"
        return "" if 0 <= rate < math.inf else f"the rate is {rate}; it must be a finite number from 0"

    @classmethod
    def read(cls, path: str | Path, period: float | None = None) -> Trace:
        """From a CSV file in UTF-8, see `parse`."""
        try:
            return cls.parse(Path(path).read_text(encoding="utf-8-sig"), period)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8: {error}") from error

    @classmethod
    def parse(cls, text: str, period: float | None = None) -> Trace:
        """From CSV text with the header client,time,event (on or off) or client,time,rate (examples a second, 0 is away).

        Clients that are written as whole numbers are ints, others strings. Nothing in the text is ever run. ValueError with
        the number of the line for whatever is wrong with it; lines that are empty or begin with # say nothing.
        """
        events: dict[ClientId, list[tuple[float, float]]] = {}
        rated, blank = None, cls({0: ()}, period=period)
        for line, row in _rows(text):
            if rated is None:
                header = ",".join(row).lower()
                if header not in ("client,time,event", "client,time,rate"):
                    raise ValueError(f"line {line}: the header must be client,time,event or client,time,rate, not {header}"[:200])
                rated = header.endswith("rate")
                continue
            if len(row) != 3 or not row[0]:
                raise ValueError(f"line {line}: it must have a client, a time and one thing more, not {','.join(row)}"[:200])
            client = int(row[0]) if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", row[0]) else row[0]
            if not rated and row[2].lower() not in ("on", "off"):
                raise ValueError(f"line {line}: the event is {row[2]!r}; it must be on or off"[:200])
            time = _number(row[1], f"line {line}: the time")
            rate = _number(row[2], f"line {line}: the rate") if rated else float(row[2].lower() == "on")
            mine = events.setdefault(client, [])
            if why := blank._wrong(time, rate, mine[-1][0] if mine else -1.0):
                raise ValueError(f"line {line}: {why}")
            mine.append((time, rate))
        if not events:
            raise ValueError("line 1: the trace is empty; it must have a header and at least one line")
        return cls(events, bool(rated), period)

    @property
    def clients(self) -> tuple[ClientId, ...]:
        return tuple(self.events)

    def there(self, client: ClientId, when: float) -> bool:
        return self.away(client, when) == 0

    def away(self, client: ClientId, when: float) -> float:
        """Seconds from `when` until the client is there: 0 if it is, infinity if it never comes again."""
        changes = self._of(client)
        now = when if self.period is None else math.fmod(when, self.period)
        i = bisect_right(changes, now, key=lambda change: change[0]) - 1
        last = changes[i][1] if i >= 0 else changes[-1][1] if self.period is not None and changes else 0.0
        if last > 0:
            return 0.0
        ahead = [time - now for time, rate in changes[i + 1 :] if rate > 0]
        if not ahead and self.period is not None:
            ahead = [self.period - now + time for time, rate in changes if rate > 0]
        return max(ahead[0], math.ulp(when)) if ahead else math.inf

    def rate(self, client: ClientId) -> float:
        """Mean rate while the client is there, each rate by the seconds that it lasts; the last one of a trace that does not
        repeat counts as long as all before. 0 if it never is."""
        changes = self._of(client)
        if not changes:
            return 0.0
        first, last = changes[0][0], changes[-1][0]
        end = first + self.period if self.period is not None else last + ((last - first) or 1.0)
        ends = [*(time for time, _ in changes[1:]), end]
        lasts = [(rate, until - time) for (time, rate), until in zip(changes, ends, strict=True) if rate > 0]
        total = math.fsum(seconds for _, seconds in lasts)
        return math.fsum(rate * (seconds / total) for rate, seconds in lasts) if lasts else 0.0

    def _of(self, client: ClientId) -> Sequence[tuple[float, float]]:
        if client not in self.events:
            some = ", ".join(repr(known) for known in self.clients[:5]) + (", …" if len(self.events) > 5 else "")
            raise ValueError(f"the trace has no line of client {client!r}; it has {len(self.events)} clients: {some}")
        return self.events[client]


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that say something, with the numbers of their lines."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            row = [word.strip() for word in row]
            if any(row) and not row[0].startswith("#"):
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{what} is {text!r}, no number"[:200]) from None
