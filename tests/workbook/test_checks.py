"""Checks answer at once and rightly; every exercise of every chapter goes through the gate."""

import dataclasses

import numpy as np
import pytest
import torch
from workbook_fixtures import gate

from fl_course.workbook.grading import checks
from fl_course.workbook.grading.cards import Result, report, reported
from fl_course.workbook.grading.checks import Exercise, Mistake, Wrong, agrees_with, examine, expect
from fl_course.workbook.grading.compare import recorded, repeats, same, short

EVERY = [exercise for number in checks.chapters() for exercise in checks.chapter(number)]
AVERAGE = checks.find("99.weighted_average")


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    monkeypatch.setattr(checks, "_states", {})
    monkeypatch.setattr(checks, "_hints", {})
    monkeypatch.setattr(checks, "_asked", set())
    monkeypatch.delenv("FL_COURSE_STRICT", raising=False)


def ask(fn, exercise=AVERAGE, seed=0):
    return examine(exercise, fn, np.random.default_rng(seed))


@pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.name)
def test_every_exercise_passes_the_gate(exercise):
    assert gate(exercise) == []
    assert exercise.solution.__name__ == exercise.name[3:], "the grader looks the student's function up by this name"


def test_names_belong_to_their_chapter_and_are_unique():
    assert {exercise.chapter for exercise in EVERY} == set(checks.chapters())
    assert len({exercise.name for exercise in EVERY}) == len(EVERY)


# --- the gate itself can turn red ---


def test_gate_is_red_if_a_check_passes_on_a_stub():
    lax = dataclasses.replace(AVERAGE, test=lambda fn, rng: None)
    assert any("the stub is answered 'pass'" in line for line in gate(lax, 1))


def test_gate_is_red_for_a_wrong_solution():
    wrong = dataclasses.replace(AVERAGE, solution=AVERAGE.mistakes[0].fn)
    assert any("the solution does not pass" in line for line in gate(wrong, 1))


def test_gate_is_red_if_a_mistake_gets_another_ones_hint():
    first = AVERAGE.mistakes[0]
    twice = dataclasses.replace(AVERAGE, mistakes=(first, Mistake(first.fn, "another hint")))
    assert any("not met with its own hint" in line for line in gate(twice, 1))


# --- what a student is told ---


def test_general_difference_names_input_expected_and_got():
    result = ask(lambda updates, counts: np.zeros(3))
    assert result.state == "fail"
    assert result.hint == ""
    assert all(word in result.message for word in ("tried updates =", "counts =", "expected [", "got [0. 0. 0.]"))


def test_inputs_are_fresh():
    messages = {ask(lambda updates, counts: np.zeros(3), seed=seed).message for seed in range(5)}
    assert len(messages) == 5


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda updates, counts: None, "got None, which is also what a function without `return` gives"),
        (lambda updates, counts: np.zeros(2), "expected shape (3,), got shape (2,)"),
        (lambda updates, counts: 1 / 0, "ZeroDivisionError: division by zero in line"),
        (lambda updates, counts: 1 / 0, "tried updates = shape "),                      # what a check raises on, it shows
        (lambda updates: 1, "TypeError"),
        (lambda updates, counts: np.zeros, "got the function zeros"),
        (lambda updates, counts: "text", "got 'text'"),
        (np.zeros(3), "hand over the function itself"),
    ],
)
def test_failures_say_what_happened(fn, words):
    result = ask(fn)
    assert result.state == "fail"
    assert words in result.message


def test_error_names_the_line_of_the_students_code():
    def careless(updates, counts):
        total = 0
        return updates / undefined(total)  # noqa: F821

    message = ask(careless).message
    assert f"line {careless.__code__.co_firstlineno + 2}" in message
    assert "return updates / undefined(total)" in message


def test_a_function_that_cannot_be_called_so_is_said_to_have_raised():
    message = ask(lambda updates: 1).message
    assert "your function raised TypeError" in message
    assert "takes 1 positional argument but 2 were given" in message


def test_an_unwritten_function_is_not_a_failure_but_a_torch_refusal_is():
    def stub(updates, counts):
        raise NotImplementedError()

    def refuses(updates, counts):
        raise NotImplementedError("this operator is missing")

    assert ask(stub).state == "todo"
    assert ask(refuses).state == "fail"


def test_a_changed_argument_is_noticed():
    def in_place(updates, counts):
        answer = AVERAGE.solution(updates, counts)
        updates[0] = 0
        return answer

    assert "argument 1 was changed in place" in ask(in_place).message


def test_randomness_comes_in_through_the_arguments_so_that_mistakes_are_recognised():
    exercise = checks.find("99.sample_clients")
    result = ask(lambda clients, count, rng: rng.choice(clients, size=count, replace=True), exercise)
    assert result.hint == exercise.mistakes[0].hint


# --- the verbs ---


def test_check_hint_reveal_progress():
    assert "nothing has been checked" in repr(checks.progress())
    assert checks.check("99.clip", checks.find("99.clip").solution).passed
    assert checks.check("99.weighted_average", lambda u, c: u).state == "fail"
    text = repr(checks.progress())
    assert "1 of 3 solved" in text
    assert "✓ PASS     99.clip" in text
    assert "✗ FAIL     99.weighted_average" in text
    assert "… NOT YET  99.sample_clients" in text
    hints = [checks.hint("99.clip").text for _ in range(4)]
    assert hints[0] == "What if the norm is already small?"
    assert hints[2] == hints[3]
    assert 'reveal("99.clip")' in hints[3]
    assert "def clip" not in repr(checks.reveal("99.clip"))
    source = 'def clip(delta, bound):\n    """(d,) -> (d,) of norm at most `bound`."""\n    norm'
    assert source in repr(checks.reveal("99.clip"))


def test_strict_raises_for_anything_but_a_pass(monkeypatch):
    monkeypatch.setenv("FL_COURSE_STRICT", "1")
    with pytest.raises(checks.CheckFailed, match="expected"):
        checks.check("99.clip", lambda delta, bound: delta * 0)

    def stub(delta, bound):
        raise NotImplementedError

    with pytest.raises(checks.CheckFailed, match="not written yet"):
        checks.check("99.clip", stub)


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match=r"did you mean '99\.clip'"):
        checks.find("99.clipp")
    with pytest.raises(ValueError, match=r"there are chapters .*99"):
        checks.find("98.clip")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "clip"}, "named like"),
        ({"difficulty": 6}, "difficulty"),
        ({"hints": ("one", "two")}, "exactly three hints"),
        ({"mistakes": ()}, "at least one mistake"),
    ],
)
def test_authors_mistakes_are_refused(change, words):
    fields = {field.name: getattr(AVERAGE, field.name) for field in dataclasses.fields(AVERAGE)}
    with pytest.raises(ValueError, match=words):
        Exercise(**{**fields, **change})


def test_cards_speak_without_colour_and_escape_what_students_write():
    page = Result("99.x", "fail", "expected <b>", "a hint")._repr_html_()
    assert 'role="status"' in page
    assert "FAIL" in page
    assert "✗" in page
    assert "expected &lt;b&gt;" in page
    assert "background" not in page
    assert "color:inherit" in page


# --- comparing and replaying ---


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1.0, 1.0 + 1e-9, True),
        ([1, 2.0], np.array([1, 2]), True),
        (torch.ones(2), np.ones(2), True),
        ({"a": [1, 2]}, {"a": (1, 2)}, True),
        (2**61, 2**61 + 1, False),
        (2**70, 2**70 + 1, False),
        (np.array([2**61]), np.array([2**61 + 1]), False),
        (np.ones((2, 1)), np.ones(2), False),
        ([[1], [1, 2]], [[1], [1, 3]], False),
        ("a", "b", False),
        (None, 0, False),
        (float("nan"), float("nan"), True),
        (np.random.default_rng(1), np.random.default_rng(1), True),
    ],
)
def test_same(a, b, equal):
    assert same(a, b) is equal


def test_replaying_sees_answers_errors_and_changed_arguments():
    def append(values):
        values.append(1)
        return 2

    spy, calls = recorded(append)
    spy([0])
    assert repeats(calls[0], append)
    assert not repeats(calls[0], lambda values: 2)
    spy, calls = recorded(lambda x: 1 / x)
    with pytest.raises(ZeroDivisionError):
        spy(0)
    assert repeats(calls[0], lambda x: 2 / x)
    assert not repeats(calls[0], lambda x: x)


def test_short_is_one_line():
    assert short(np.arange(100.0).reshape(10, 10)).count("\n") == 0
    assert len(short(list(range(10_000)))) <= 110
    assert "shape (10, 10) [[" in short(np.zeros((10, 10)))


def test_expect_and_agrees_with():
    expect(np.float32(1), 1.0, "x")
    with pytest.raises(Wrong, match="tried x = 3: expected 6, got 4"):
        agrees_with(lambda x: 2 * x, lambda rng: (3,))(lambda x: x + 1, np.random.default_rng())


def test_report_carries_numbers_through_a_notebook(tmp_path):
    import nbformat

    bundle = report(accuracy=np.float32(0.5), epsilon=float("inf"), name="a", shape=torch.tensor(2))._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data=bundle, execution_count=1)
    cell = nbformat.v4.new_code_cell("x", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    numbers = reported(nbformat.read(tmp_path / "a.ipynb", as_version=4))
    assert numbers == {"accuracy": 0.5, "epsilon": float("inf"), "name": "a", "shape": 2}
    with pytest.raises(TypeError, match=r"report\(curve="):
        report(curve=[1, 2])


