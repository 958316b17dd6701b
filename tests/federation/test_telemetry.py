"""Records for other programs: lines of JSON that come back equal, and text that a strict reader of Prometheus' format accepts."""

import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from small import experiment, federation

from fl_course import Buffered, CentralDP, LogNormal, MultiKrum, SecureSum, SignFlip, Synchronous, Uniform
from fl_course.core import FATES, Notes, Record, Span
from fl_course.federation.telemetry import from_json_line, json_line, prometheus

RUNS = {
    "drop-outs": {"fleet": LogNormal(drop=0.3)},
    "a buffer": {"schedule": Buffered(4, 2, max_staleness=1), "fleet": LogNormal()},
    "private and masked": {"weights": Uniform(), "stages": [CentralDP(1.0, 0.0), SecureSum(2.0, rounding="toward zero")]},
    "attacked": {"attack": SignFlip((1,), 9.0), "aggregation": MultiKrum(1), "schedule": Synchronous(1.0)},
}


def records(name):
    data = federation(ids=["x", 1, 'y "z"', 3, "a\\b", 5]) if name != "attacked" else federation()
    return experiment(data, **RUNS[name]).train(5).records


@pytest.mark.parametrize("name", RUNS)
def test_a_record_is_one_line_of_json_and_comes_back_equal(name):
    for record in records(name):
        line = json_line(record)
        assert "\n" not in line
        assert json.loads(line)["clients"] == list(record.clients)
        again = from_json_line(line)
        assert again == record
        assert json_line(again) == line
        assert (type(again.spans), type(again.clients), type(again.events)) == (tuple, tuple, tuple)


@given(st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False)), st.lists(st.text()))
def test_so_does_whatever_a_stage_notes(notes, events):
    kept = Notes()
    for name, value in notes.items():
        try:
            kept[name] = value
        except ValueError:
            continue
    record = Record(1, 0.5, (0, "b"), (0, 2), (9, 9), {"update": 18}, {}, tuple(events), dict(kept), (Span(0, 0, 0, 1, 2, 3),))
    assert from_json_line(json_line(record)) == record
    assert len(json_line(record).splitlines()) == 1 or re.search("[\x0b-\x1e\x85\u2028\u2029]", "".join([*notes, *events]))
    assert "\n" not in json_line(record)
    read(prometheus(record))


@pytest.mark.parametrize("line", ["", "[]", "3", "{}", "no", '{"version": 1}'])
def test_another_line_is_refused(line):
    with pytest.raises(ValueError, match="not a line that json_line wrote"):
        from_json_line(line)


LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({LABEL}(?:,{LABEL})*)?\}})? ([-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|Inf)|NaN)")


def read(text):
    """{name: {labels: value}} by the grammar of the text format 0.0.4: a name stands once, its HELP and TYPE before its lines.
    The client library's own parser must read the same."""
    families, now = {}, None
    assert text.endswith("\n")
    lines = text.removesuffix("\n").split("\n")
    for line in lines:
        if line.startswith("# HELP "):
            now = line.split(" ")[2]
            assert now not in families, f"{now} stands twice"
            families[now] = None
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {now} gauge"
            assert families[now] is None
            families[now] = {}
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert found[1] == now
            assert found[2] not in families[now], "the same labels twice"
            families[now][found[2]] = float(found[3])
    theirs = {family.name: sorted(repr(s.value) for s in family.samples) for family in text_string_to_metric_families(text)}
    assert theirs == {name: sorted(map(repr, values.values())) for name, values in families.items()}
    return families


@pytest.mark.parametrize("name", RUNS)
def test_prometheus_reads_it(name):
    for record in records(name):
        found = read(prometheus(record, labels={"run": 'a "b"\n\\'}))
        run = 'run="a \\"b\\"\\n\\\\"'
        assert found["fl_version"] == {run: record.version}
        assert found["fl_clients"] == {run: len(record.clients)}
        for what, size in record.bytes_up.items():
            assert found["fl_bytes"][f'{run},direction="up",purpose="{what}"'] == size
        assert sum(found["fl_bytes"].values()) == record.nbytes
        assert sum(found["fl_jobs"].values()) == len(record.spans)
        assert len(found["fl_jobs"]) == len(FATES)
        for metric, value in record.metrics.items():
            assert found[f"fl_{metric}"] == {run: value}


def test_odd_names_and_numbers():
    odd = replace(records("drop-outs")[0], bytes_up={'odd "purpose"\\': 3},
                  metrics={"epsilon": math.inf, "a b-c": -math.inf, "a_b_c": 1e-300, "bytes": 2.0, "ε": 5.0})  # fmt: skip
    found = read(prometheus(odd, prefix="my"))
    assert found["my_epsilon"] == {None: math.inf}
    assert found["my_a_b_c"] == {None: -math.inf}
    assert found["my_a_b_c_"] == {None: 1e-300}
    assert found["my_bytes_"] == {None: 2.0}
    assert found["my__"] == {None: 5.0}
    assert found["my_bytes"]['direction="up",purpose="odd \\"purpose\\"\\\\"'] == 3
    with pytest.raises(ValueError, match="prefix"):
        prometheus(odd, prefix="a b")
    with pytest.raises(ValueError, match="label"):
        prometheus(odd, labels={"a b": "1"})
