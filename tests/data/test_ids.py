"""Names of clients: what the wire can carry, and nothing else, refused when the data are made."""

import enum
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import experiment, federation

from fl_course import IID, Synchronous, Update, from_clients
from fl_course.data.federated import client_ids
from fl_course.wire.messages import decode_update, encode_update

anything = st.deferred(lambda: (
    st.integers(-(2**70), 2**70) | st.text(max_size=4) | st.characters() | st.binary(max_size=3) | st.floats() | st.none()
    | st.booleans() | st.sampled_from([np.int8(3), np.uint64(2**64 - 1), np.str_("a"), np.float32(1), np.bool_(1), date.today()])
    | st.tuples(anything)
))  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(anything)
def test_an_id_is_refused_or_comes_back_from_the_wire_as_it_was(client):
    try:
        (name,) = client_ids([client])
    except (TypeError, ValueError):
        return
    back = decode_update(encode_update(Update(name, 0, np.zeros(1, np.float32)))).client
    assert (type(name), type(back)) == (type(back), type(back))
    assert type(back) in (int, str)
    assert back == name == client


class Ward(enum.StrEnum):
    A = "a"


@pytest.mark.parametrize(("client", "error", "cure"), [
    (("A",), TypeError, "groupby"), (b"A", TypeError, "decode"), (1.0, TypeError, "use str"), (None, TypeError, "use str"),
    (True, TypeError, "use str"), (np.bool_(True), TypeError, "use str"), (np.float64(3), TypeError, "use str"),
    (2**64, ValueError, "64 bits"), (2**70, ValueError, "use str"), (-(2**63) - 1, ValueError, "64 bits"),
    ("\ud800", ValueError, "half of a character"),
])  # fmt: skip
def test_three_doors_refuse_it_and_say_what_to_do(client, error, cure):
    x, y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])
    doors = (
        lambda: from_clients("x", {client: (x, y)}, 2, x, y),
        lambda: federation(ids=[client, *range(10, 15)]),
        lambda: pool().partition(IID(), [client, "b"]),
    )
    for door in doors:
        with pytest.raises(error, match=cure):
            door()


def pool():
    from fl_course.data.federated import Dataset

    x, y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])
    return Dataset("pool", x, y, 2, x, y)


def test_what_pandas_groups_by_one_column_trains_and_by_a_list_is_refused():
    table = pd.DataFrame({"hospital": ["A", "B", "A", "B"], "x": [0.0, 1.0, 2.0, 3.0], "y": [0, 1, 0, 1]})
    held = np.zeros((1, 1), np.float32), np.zeros(1, np.int64)

    def by(column):
        return {name: (part[["x"]].to_numpy(np.float32), part["y"].to_numpy()) for name, part in table.groupby(column)}

    with pytest.raises(TypeError, match=r"client id \('A',\) is a tuple"):
        from_clients("wards", by(["hospital"]), 2, *held)
    assert from_clients("wards", by("hospital"), 2, *held).ids == ("A", "B")


@pytest.mark.parametrize("ids", [[np.int64(5), 2**64 - 1, -(2**63), "", "é", Ward.A]])
def test_every_kind_of_id_that_is_accepted_takes_part(ids):
    record = experiment(federation(ids=ids), schedule=Synchronous(1.0)).train(1).records[0]
    assert set(record.clients) == set(client_ids(ids))
    assert record.events == ()
