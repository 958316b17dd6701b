"""The judge sees what the student's side says: the same verdict as in one process, on everything that an answer may be."""

import dataclasses
import pickle
import socket
import threading

import numpy as np
import pytest
import torch
import workbook_fixtures  # noqa: F401  (chapter 99)
from hypothesis import given
from hypothesis import strategies as st

from fl_course.core import stream
from fl_course.federation.fleet import Equal
from fl_course.workbook.grading import carry, checks
from fl_course.workbook.grading.compare import clone, same
from fl_course.workbook.grading.exercise import examine
from fl_course.workbook.grading.judge import Judge, NotSent, confirmed, raised

pytestmark = pytest.mark.timeout(300)
EVERY = [exercise for number in checks.chapters() for exercise in checks.chapter(number)]


def verdict(exercise, fn, seed=0):
    """What the judge says of a function in another thread, and whether it could send the arguments."""
    ours, theirs = socket.socketpair()
    judge = Judge(carry.Line(ours), exercise.chapter, seed, lambda text: None)
    said = []

    def serve():
        with theirs:                          # whatever ends it, the judge hears
            said.append(confirmed(carry.Line(theirs), exercise.name, fn))

    student = threading.Thread(target=serve)
    student.start()
    head, _ = judge.line.receive()
    asking, sent = judge._asking, []

    def watched(names):
        fn = asking(names)

        def inner(*args, **kwargs):
            try:
                return fn(*args, **kwargs)
            except NotSent:
                sent.append("not")
                raise

        return inner

    judge._asking = watched
    judge.rule(head["claim"], head["names"])
    student.join(60)
    ours.close()
    assert not sent, f"{exercise.name}: its arguments cannot be sent over"
    return said[0]


@pytest.mark.parametrize("exercise", EVERY, ids=lambda one: one.name)
def test_solutions_and_mistakes_are_what_they_are_in_one_process(exercise):
    assert verdict(exercise, exercise.solution)[0]
    for mistake in exercise.mistakes[:2]:
        alone = examine(exercise, mistake.fn, stream(0, "grade", exercise.name))
        assert verdict(exercise, mistake.fn) == (False, alone.message)


class Float(float):
    pass


class Rows(np.ndarray):
    pass


def other_forms(answer):
    """The same answer as students write it."""
    if isinstance(answer, np.ndarray) and answer.ndim:
        yield from (list(answer), answer.tolist(), answer.view(Rows), torch.from_numpy(np.array(answer)))
    if isinstance(answer, float):
        yield from (np.float64(answer), Float(answer), np.array(answer), torch.tensor(answer, dtype=torch.float64))
    if isinstance(answer, int) and not isinstance(answer, bool):
        yield from (np.int64(answer), np.array(answer))
    if isinstance(answer, list):
        yield from (tuple(answer), np.array(answer, dtype=object) if not answer else list(answer))
        yield (part for part in answer)
    if isinstance(answer, tuple):
        yield list(answer)
    if isinstance(answer, dict):
        yield from (dict(reversed(answer.items())), answer.items())


@pytest.mark.parametrize("exercise", EVERY, ids=lambda one: one.name)
def test_the_same_answer_in_other_forms(exercise):
    for form in range(6):
        def fn(*args, **kwargs):
            answer = exercise.solution(*args, **kwargs)
            return next((one for i, one in enumerate(other_forms(answer)) if i == form), answer)  # noqa: B023

        alone = examine(exercise, fn, stream(0, "grade", exercise.name))
        assert verdict(exercise, fn)[0] == alone.passed, (form, alone)


@dataclasses.dataclass
class Own:
    x: int


NUMBERS = st.integers() | st.floats() | st.text(max_size=5) | st.none() | st.booleans() | st.complex_numbers() | st.binary()
VALUES = st.recursive(
    NUMBERS | st.lists(st.floats(width=32), max_size=4).map(np.array) | st.just(np.zeros((2, 0, 3), dtype="i2"))
    | st.floats(width=32).map(np.float32) | st.just(range(3)) | st.sampled_from([torch.ones(2), np.array("text"), slice(1, 2)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)  # fmt: skip


@given(VALUES)
def test_values_come_over_as_they_are(value):
    args, _, answer = carry.unpacked(carry.packed((value,), {}, value))
    assert same(answer, value)
    assert same(list(args), [value])
    assert type(answer) is type(value)


@pytest.mark.parametrize("value", [
    object(), Own(1), lambda: 1, len, int, np.sum, threading.Lock(), np.poly1d([1, 2]), type("T", (), {})(), Exception("x"),
    {Own}, [object()], open, pickle.loads, np.load,
])  # fmt: skip
def test_what_is_no_value_equals_nothing(value):
    try:
        answer = carry.unpacked(carry.packed((), {}, value))[2]
    except ValueError:
        return
    assert not same(answer, value)
    assert not same(answer, 1)


class Bomb:
    def __reduce__(self):
        return eval, ("open('/tmp/never', 'w')",)


class Lies(list):
    def __iter__(self):
        raise MemoryError


@pytest.mark.parametrize("data", [
    pickle.dumps(Bomb()), b"", b"\x80", b"cos\nsystem\n(S'true'\ntR.", pickle.dumps(np.load), pickle.dumps(print),
    pickle.dumps(checks.find), b"cfl_course.workbook.grading.template\nTemplate\n(S'01'\n}tR.",
    b"cfl_course.workbook.grading.carry\nmade\n(S'fl_course.workbook.grading.gradebook'\nS'Gradebook'\n}tR.",
    b"cfl_course.workbook.grading.carry\nmade\n(S'os'\nS'system'\n}tR.", b"(" * 100_000,
])  # fmt: skip
def test_no_name_in_an_answer_calls_anything(data):
    with pytest.raises(ValueError, match="cannot be read"):
        carry.unpacked(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_sentence(data):
    try:
        carry.unpacked(data)
    except ValueError:
        return


def test_subclasses_and_dataclasses():
    over = carry.unpacked(carry.packed((), {}, [Float(2), Lies([1]), np.ones(2).view(Rows), Equal()]))[2]
    assert type(over[0]) is float
    assert over[1] == [1]
    assert type(over[2]) is np.ndarray
    assert over[3] == Equal()


def test_arguments_are_changed_as_the_function_changed_its_copies():
    old = [np.zeros(2), {"a": [1], "b": np.ones(1)}, np.random.default_rng(1), {1}, torch.zeros(2)]
    new = clone(old)
    new[0][:] = 3
    new[1] = {"a": [1, 2], "c": 4}
    new[2].normal(size=5)
    new[3].add(2)
    new[4][0] = 1
    kept, inner = old[0], old[1]["a"]
    carry.merged(old, new)
    assert same(old, clone(new))
    assert old[0] is kept
    assert old[1]["a"] is inner


@pytest.mark.parametrize(("said", "kind"), [
    (["builtins", "ValueError", "x"], ValueError), (["numpy.linalg", "LinAlgError", "x"], np.linalg.LinAlgError),
    (["os", "system", "true"], RuntimeError), (["builtins", "SystemExit"], RuntimeError),
    (["builtins", "exec", "1"], RuntimeError), (None, RuntimeError), ([], RuntimeError),
    (["fl_course.core", "stream", "1"], RuntimeError),
])  # fmt: skip
def test_errors_come_over_as_errors(said, kind):
    assert type(raised(said)) is kind
