"""Metrics of stages: converted and checked where they are written, so that every record can be exported."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import experiment

from fl_course import Evaluation, History, Stage
from fl_course.core import TAKEN, Meter, Notes, Record


@dataclass(frozen=True)
class Says(Stage):
    notes: tuple
    where: str = "server"

    def client(self, update, ctx):
        if self.where == "client":
            ctx.meter.notes |= dict(self.notes)
        return update

    def server(self, aggregate, ctx):
        if self.where == "server":
            for name, value in self.notes:
                ctx.meter.notes[name] = value
        if self.where == "replaced":
            ctx.meter.notes = dict(self.notes)
        return aggregate


NUMBERS = {
    "float32": np.float32(0.25), "float64": np.float64(0.25), "float16": np.float16(0.25), "int64": np.int64(3),
    "uint8": np.uint8(3), "bool": True, "bool_": np.bool_(False), "int": 7, "fraction": Fraction(1, 4),
    "array": np.array(0.25), "tensor": torch.tensor(0.25), "inf": math.inf, "f32 inf": np.float32(-np.inf), "large": 10**300,
}  # fmt: skip


@pytest.mark.parametrize("where", ["server", "client", "replaced"])
def test_every_kind_of_number_becomes_a_float_and_is_exported(where, tmp_path):
    history = experiment(stages=[Says(tuple(NUMBERS.items()), where)]).train(2)
    for record in history.records:
        assert {name: record.metrics[name] for name in NUMBERS} == {name: float(value) for name, value in NUMBERS.items()}
        assert {type(value) for value in record.metrics.values()} == {float}
    back = History.from_json(history.to_json(tmp_path / "run.json"))
    assert back.records == history.records
    history.to_csv(tmp_path / "run.csv")
    pd.testing.assert_frame_equal(History.read_csv(tmp_path / "run.csv"), history.to_pandas(), check_exact=True)


values = st.one_of(
    st.floats(), st.floats(width=32).map(np.float32), st.integers(-(2**63), 2**63 - 1).map(np.int64), st.booleans(),
    st.integers(), st.fractions(), st.none(), st.text(max_size=3), st.complex_numbers(), st.lists(st.floats(), max_size=2),
    st.floats().map(np.array), st.lists(st.floats(), max_size=2).map(np.array),
)  # fmt: skip
names = st.one_of(st.text(max_size=8), st.sampled_from(sorted(TAKEN)), st.sampled_from(["up_x", "down_model", "", " ", "a\nb"]),
                  st.integers(), st.none())  # fmt: skip


@given(st.dictionaries(names, values, max_size=4))
def test_what_is_taken_can_be_exported_and_the_rest_is_refused_with_its_name(tmp_path_factory, notes):
    """Random names and values: refused where written, or there and back through JSON, CSV and a table."""
    kept = Notes()
    for name, value in notes.items():
        try:
            kept[name] = value
        except (ValueError, TypeError) as why:
            assert repr(name) in str(why)  # noqa: PT017
    record = Record(1, 0.0, (0,), (0,), (9,), {"update": 9}, {"model": 9}, (), {k: v for k, v in kept.items() if v == v})
    history, path = History([record]), tmp_path_factory.mktemp("notes") / "run.csv"
    json.loads(history.to_json())
    assert History.from_json(history.to_json()).records == [record]
    history.to_csv(path)
    pd.testing.assert_frame_equal(History.read_csv(path), history.to_pandas(), check_exact=True)
    assert list(history.to_pandas().columns)[-len(record.metrics) - 1 :] == ["events", *record.metrics]


@pytest.mark.parametrize("name", [*sorted(TAKEN), "up_update", "down_x"])
@pytest.mark.parametrize("where", ["server", "client", "replaced"])
def test_names_that_are_taken_are_refused(name, where):
    with pytest.raises(ValueError, match=f"a note cannot be named {name!r}"):
        experiment(stages=[Says(((name, 1.0),), where)]).train(1)


def test_every_name_that_a_record_uses_is_taken():
    history = experiment(evaluation=Evaluation(federated=True)).train(1)
    columns = {"version", *history.to_pandas().columns}
    assert {name for name in columns if not name.startswith(("up_", "down_"))} <= TAKEN
    assert set(Record.__dataclass_fields__) <= TAKEN
    assert set(history.records[0].metrics) <= TAKEN


def test_what_an_evaluation_of_ones_own_measures_is_not_overwritten():
    class Measures(Evaluation):
        def measure(self, model, data, server, meter):
            return {"f1": np.float32(0.5)}

    assert experiment(evaluation=Measures()).train(1).records[0].metrics["f1"] == 0.5
    json.loads(experiment(evaluation=Measures()).train(1).to_json())
    with pytest.raises(ValueError, match=r"a stage notes \['f1'\], which the evaluation measures"):
        experiment(evaluation=Measures(), stages=[Says((("f1", 1.0),))]).train(1)


def test_notes_are_a_dictionary():
    notes = Notes({"a": 1})
    notes |= {"b": np.float32(2)}
    notes["a"] += np.int64(2)
    notes.setdefault("c", 0.0)
    notes.update(d=True)
    assert notes == {"a": 3.0, "b": 2.0, "c": 0.0, "d": 1.0}
    del notes["d"]
    assert (len(notes), repr(notes)) == (3, "Notes({'a': 3.0, 'b': 2.0, 'c': 0.0})")
    with pytest.raises(ValueError, match="beyond the range"):
        notes["e"] = 10**400


def test_a_note_that_is_no_number_is_left_out():
    assert "nothing" not in experiment(stages=[Says((("nothing", math.nan),))]).train(1).records[0].metrics


@pytest.mark.parametrize("nbytes", [1.5, -1, None, "3", True])
def test_bytes_are_whole_numbers_from_0(nbytes):
    with pytest.raises((TypeError, ValueError), match="bytes of 'keys'"):
        Meter().sent_up("keys", nbytes)


def test_bytes_and_events_of_a_stage_are_exported_too():
    class Counts(Stage):
        def server(self, aggregate, ctx):
            ctx.meter.sent_up("keys", np.int64(5))
            ctx.meter.sent_down("keys", np.uint8(7))
            ctx.meter.events.append(ValueError("odd"))
            return aggregate

    history = experiment(stages=[Counts()]).train(1)
    assert (history.records[0].bytes_up["keys"], history.records[0].bytes_down["keys"]) == (5, 7)
    assert History.from_json(history.to_json()).records == history.records
    for purpose in ("", "a\nb", 3, None, ["keys"]):
        with pytest.raises(ValueError, match="purpose"):
            Meter().sent_up(purpose, 1)


# --- reaching a value ----------------------------------------------------------------------------------------------


def row(version: int, **metrics: float) -> Record:
    return Record(version, 1.0, (0,), (0,), (9,), {"update": 9}, {"model": 9}, (), metrics)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1))
def test_a_loss_is_reached_from_above_and_an_accuracy_from_below(series, target):
    history = History([row(i + 1, loss=v, train_loss_last=v, rmse=v, accuracy=v, epsilon=v) for i, v in enumerate(series)])
    below = next((i + 1 for i, value in enumerate(series) if value <= target), None)
    above = next((i + 1 for i, value in enumerate(series) if value >= target), None)
    for metric in ("loss", "train_loss_last", "rmse"):
        assert history.rounds_to(target, metric) == history.rounds_to(target, metric, falling=True) == below
        assert history.rounds_to(target, metric, falling=False) == above
    for metric in ("accuracy", "epsilon"):
        assert history.rounds_to(target, metric) == above
        assert history.rounds_to(target, metric, falling=True) == below


def test_an_unknown_metric_is_refused_with_those_there_are():
    history = History([row(1, accuracy=0.5, loss=1.0), row(2)])
    with pytest.raises(ValueError, match="'acc'; there are accuracy, loss"):
        history.rounds_to(0.5, "acc")
    assert History([row(1, accuracy=0.5), row(2), row(3, accuracy=0.7)]).rounds_to(0.6) == 3
    assert History().rounds_to(0.5, "anything") is None
