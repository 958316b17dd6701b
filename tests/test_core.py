"""Named random streams, and that nothing else is random."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import experiment, final

from fl_course import Buffered, LogNormal, PoissonSelection
from fl_course.core import Aggregate, Context, Meter, Server, Task, fingerprint, stream

words = st.recursive(
    st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=2).map(tuple),
    max_leaves=2,
)


def typed(word):
    """A word with its type, so that Python's 1 == True does not blur the comparison."""
    return (type(word).__name__, tuple(map(typed, word)) if isinstance(word, tuple) else word)


@given(st.lists(words, max_size=2), st.lists(words, max_size=2))
def test_streams_are_equal_exactly_when_their_names_are(a, b):
    assert (fingerprint(*a) == fingerprint(*b)) == (typed(tuple(a)) == typed(tuple(b)))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((7,), (7, 0)),                            # NumPy's SeedSequence gives these two the same stream
        ((7, 1), (7 + 2**32,)),                    # … and these
        ((0,), (2**32,)),                          # torch.manual_seed gives these the same stream
        ((1, 2), (2, 1)),
        ((0, "a", "b"), (0, "ab")),
        ((0, ("a", "b")), (0, "a", "b")),
        ((0, 3), (0, "3")),
        ((0, "3"), (0, b"3")),
        ((0, 1), (0, True)),
        ((0, None), (0, "None")),
        ((0, -1), (0, 1)),
        ((0, "select", 1), (1, "select", 0)),      # seed + version does not collide either
    ],
)
def test_names_that_elsewhere_collide_give_different_streams(a, b):
    assert not np.array_equal(stream(*a).random(4), stream(*b).random(4))


def test_numpy_words_count_as_pythons():
    assert fingerprint(np.int64(3), np.uint8(4), np.str_("x")) == fingerprint(3, 4, "x")
    assert fingerprint([1, 2]) == fingerprint((1, 2))
    assert stream(np.int32(5), "a").random() == stream(5, "a").random()


@pytest.mark.parametrize("word", [1.0, np.float32(1), {"a": 1}, object(), np.arange(3)])
def test_words_without_one_spelling_are_refused(word):
    with pytest.raises(TypeError, match="random stream is named by"):
        stream(0, word)


def test_golden_values():
    assert fingerprint(0, "select", 3).hex()[:32] == "638595a4e4dc4065477ac9ced8dec0ad"
    assert stream(0, "select", 3).integers(0, 2**31, 4).tolist() == [1621346487, 183320912, 699449477, 1528809275]
    assert stream(1, "drop", 0, "hospital").random(2).tolist() == [0.3780481662927825, 0.203936204431184]


def test_asking_for_one_stream_changes_no_other():
    alone = stream(0, "a").random(3)
    first = stream(0, "a")
    stream(0, "b").random(1000)
    assert np.array_equal(first.random(3), alone)


def test_a_task_and_a_context_name_purpose_version_and_client():
    server = Server(np.zeros(2, np.float32), version=4)
    draws = [
        Task("x", server, 9).rng("noise").random(),
        Context(9, server, client="x").rng("noise").random(),
        stream(9, "noise", 4, "x").random(),
    ]
    assert len(set(draws)) == 1
    others = [
        Context(9, server).rng("noise"),
        Context(9, server, client="x").rng("other"),
        Context(8, server, client="x").rng("noise"),
    ]
    assert len({draws[0], *(rng.random() for rng in others)}) == 4


def test_a_meter_adds_up_by_purpose():
    meter = Meter()
    for purpose, nbytes in (("keys", 3), ("update", 4), ("keys", 5)):
        meter.sent_up(purpose, nbytes)
    meter.sent_down("model", 7)
    assert (meter.up, meter.down) == ({"keys": 8, "update": 4}, {"model": 7})


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_sum_without_weight_has_no_mean(weight):
    with pytest.raises(ValueError, match="no mean"):
        _ = Aggregate(np.zeros(3), weight).mean


def global_states():
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), (kind, keys.tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


@pytest.mark.parametrize(
    "parts",
    [{}, {"selection": PoissonSelection()}, {"schedule": Buffered(3, 2), "fleet": LogNormal(jitter=0.3, drop=0.2)}],
    ids=["synchronous", "poisson", "buffered"],
)
def test_a_whole_run_neither_changes_nor_reads_the_global_generators(parts):
    before = global_states()
    first = final(experiment(**parts))
    assert global_states() == before
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert final(experiment(**parts)) == first
