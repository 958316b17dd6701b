"""A record for other programs: a line of JSON, or the text that Prometheus reads.

    for state, record in fed.run(100):
        print(json_line(record), file=log)                   # one line a round; tail -f, jq, pandas.read_json(lines=True)
    records = [from_json_line(line) for line in log]         # … and back, equal
        write("fl.prom", prometheus(record))                 # of fl_course.files: whoever collects it finds a whole one
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..core import FATES, Record, Span

UNITS = {"clock": "simulated seconds since the start of the run", "version": "server steps taken"}


def json_line(record: Record) -> str:
    """All that the record says, on one line without a line break; metrics that are not finite become strings."""
    row = asdict(record)
    row["metrics"] = {name: value if math.isfinite(value) else str(value) for name, value in record.metrics.items()}
    return json.dumps(row, allow_nan=False, separators=(",", ":"))


def from_json_line(line: str) -> Record:
    """The record that json_line wrote. ValueError for any other text."""
    try:
        return record_of(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"this is not a line that json_line wrote: {type(error).__name__}: {error}") from error


def record_of(row: Mapping[str, Any]) -> Record:
    """A record from what JSON makes of it. KeyError, TypeError, ValueError or AttributeError for anything else."""
    tuples = {name: tuple(row[name]) for name in ("clients", "staleness", "upload", "events")}
    metrics = {name: float(value) for name, value in row["metrics"].items()}
    return Record(**{**row, **tuples, "metrics": metrics, "spans": tuple(Span(**span) for span in row.get("spans", ()))})


def prometheus(record: Record, prefix: str = "fl", labels: dict[str, str] | None = None) -> str:
    """Gauges in Prometheus' text format (version 0.0.4): every metric, the bytes of the round by direction and purpose, how many
    were heard, how old their answers were, and what became of the jobs. labels: put on every line, e.g. {"run": "hospital"}."""
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", prefix):
        raise ValueError(f"prefix must be letters, digits and underscores, not {prefix!r}")
    lines: list[str] = []
    taken: Counter[str] = Counter()

    def gauge(name: str, text: str, values: list[tuple[dict[str, str], float]]) -> None:
        name = f"{prefix}_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}"
        while taken[name]:                                   # "a b" and "a_b" are one name there, and a name may stand once
            name += "_"
        taken[name] += 1
        lines.extend([f"# HELP {name} {_escaped(text)}", f"# TYPE {name} gauge"])
        lines.extend(f"{name}{_labels({**(labels or {}), **more})} {_number(value)}" for more, value in values)

    gauge("version", UNITS["version"], [({}, record.version)])
    gauge("clock_seconds", UNITS["clock"], [({}, record.clock)])
    gauge("clients", "clients whose updates are in the step", [({}, len(record.clients))])
    if record.staleness:
        gauge("staleness", "mean age of the updates, in server steps", [({}, sum(record.staleness) / len(record.staleness))])
    both = {"up": record.bytes_up, "down": record.bytes_down}
    sent = [({"direction": way, "purpose": what}, float(size)) for way, table in both.items() for what, size in table.items()]
    gauge("bytes", "bytes of encoded messages in this step", sent)
    gauge("events", "events in this step", [({}, len(record.events))])
    ended = Counter(span.fate for span in record.spans)
    gauge("jobs", "jobs that ended in this step, by what became of them", [({"fate": fate}, ended[fate]) for fate in FATES])
    for name, value in record.metrics.items():
        gauge(name, f"metric {name} of the record", [({}, value)])
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    for name in labels:
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
            raise ValueError(f"a label's name is letters, digits and underscores, not {name!r}")
    inside = ",".join(f'{name}="{_escaped(str(value), quotes=True)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    return "NaN" if value != value else f"{'-' if value < 0 else '+'}Inf" if math.isinf(value) else repr(float(value))
