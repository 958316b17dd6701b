"""Chapter 10's projects take every sound answer; a library of one's own is judged part by part by the checks of its chapters."""

import importlib
import inspect
import sys
from dataclasses import replace

import numpy as np
import pytest
from workbook_fixtures import built

from fl_course import DPSGD, LocalSGD, SecureSum, micro
from fl_course.workbook import my_fl, own
from fl_course.workbook.commands import places
from fl_course.workbook.exercises import ch10
from fl_course.workbook.grading.checks import find
from fl_course.workbook.grading.exercise import examine
from fl_course.workbook.own import PARTS, Micro, judge

pytestmark = pytest.mark.timeout(300)


def ask(name, fn, seed=0):
    return examine(find(name), fn, np.random.default_rng(seed))


# --- other right answers than ours ------------------------------------------------------------------------------------


def by_coins(epsilon, delta, rounds, largest):
    """Batches by coins that always fall on heads: the same releases, told otherwise; a wider sum."""
    private = DPSGD(1.0, 1.1 * ch10.noise_for(epsilon, delta, rounds), "poisson", delta)
    return LocalSGD(lr=0.9, epochs=1, batch_size=None, private=private), [SecureSum(4.0, max_weight=2 * largest)]


def two_epochs_paid(epsilon, delta, rounds, largest):
    z = ch10.noise_for(epsilon, delta, 2 * rounds)
    return ch10.stack_with(z, delta, largest, epochs=2, lr=0.7)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fn", [by_coins, two_epochs_paid])
def test_other_sound_stacks_pass(fn, seed):
    assert ask("10.hospital_stack", fn, seed).passed


def test_a_refused_stack_and_rubbish_are_told_in_a_sentence():
    training, stages = ch10.hospital_stack(2.0, 1e-5, 20, 300)
    for answer in (None, 3, (training, 3), (training,), (stages, training), (training, [object()]), (training, stages * 2)):
        result = ask("10.hospital_stack", lambda *args, answer=answer: answer)
        assert result.state == "fail"
        assert result.message.startswith("tried ε ="), result.message
    unequal = ask("10.hospital_stack", lambda *args: (replace(training, epochs=dict.fromkeys(range(10), 9)), stages))
    assert "epochs must be one whole number" in unequal.message
    with_momentum = ask("10.hospital_stack", lambda *args: (replace(training, momentum=0.9), stages))
    assert "refused: " in with_momentum.message


def test_the_price_of_a_stack_is_that_of_the_library():
    training, _ = ch10.hospital_stack(3.0, 1e-5, 20, 300)
    private = training.private
    cheaper = replace(training, private=replace(private, noise_multiplier=0.8 * private.noise_multiplier))
    for sampling in ("shuffle", "poisson"):
        for stack, right in ((training, True), (cheaper, False)):
            one = replace(stack, private=replace(stack.private, sampling=sampling))
            assert ch10.paid(one, 3.0, 1e-5, 20, [44, 300]) == right


def test_any_fair_order_of_the_needy_passes():
    def by_lot_among_the_needy(there, heard, m):
        return tuple(sorted(there, key=lambda car: (heard[car], hash(car) % 7))[:m])

    assert ask("10.whom_to_ask", by_lot_among_the_needy).passed
    assert ask("10.whom_to_ask", lambda there, heard, m: np.array(by_lot_among_the_needy(there, heard, m), dtype=str)).passed
    assert "expected a list of cars, got 3" in ask("10.whom_to_ask", lambda there, heard, m: 3).message


def test_the_refusals_of_the_second_exercise_are_the_librarys():
    assert "masks" in ch10.refused(["secure sum", "Multi-Krum"])
    assert "11" in ch10.refused(["Krum against 4"])
    assert ch10.refused(["top-k", "Multi-Krum", "8 bits down", "Power-of-Choice"]) is None


# --- build your own ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_micro_behind_its_adapter_passes_everything(seed):
    verdict = judge(Micro(), np.random.default_rng(seed))
    assert verdict.passed, repr(verdict)
    assert verdict.summary == "9 of 9 parts stand"
    assert micro.PRIME == 2**521 - 1, "what was lent is given back"


def mutated(old, new):
    """A copy of micro.py with one text replaced."""
    source = inspect.getsource(micro)
    assert source.count(old) == 1, old
    module = type(micro)("mutant")
    exec(compile(source.replace(old, new), "mutant.py", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize(("old", "new", "broken"), [
    ("sum(n * delta for n, delta in", "sum(delta for n, delta in", {"average"}),
    ("p[np.arange(len(y)), y] -= 1", "p[np.arange(len(y)), y] -= 2", {"local_step"}),
    ("delta * min(1.0, bound", "delta * (bound", {"clip", "private_mean"}),
    ("c * pow(x, i, PRIME)", "c * pow(x, i + 1, PRIME)", {"split"}),
    ("y = y * other *", "y = y * x *", {"join"}),
    ("np.argsort(-np.abs(meant)", "np.argsort(-meant", {"top_k"}),
])  # fmt: skip
def test_a_broken_part_of_micro_fails_the_right_check(monkeypatch, old, new, broken):
    monkeypatch.setattr(own, "micro", mutated(old, new))
    verdict = judge(Micro(), np.random.default_rng(0))
    failed = {result.name.split()[0] for result in verdict.results if result.state == "fail"}
    assert failed == broken
    assert len(verdict.results) == len(PARTS), "nothing stops at the first failure"


class NoNoise(Micro):
    def private_mean(self, updates, bound, z, m, rng):
        return super().private_mean(updates, bound, 0.0, m, rng)


class FirstRoundOnly(Micro):
    def epsilon(self, zs, delta):
        return super().epsilon(zs[:1], delta)


class Forgets(Micro):
    def remember(self, delta, residual, compress):
        sent = compress(delta)
        return sent, delta - sent


@pytest.mark.parametrize(("kind", "part"), [(NoNoise, "private_mean"), (FirstRoundOnly, "epsilon"), (Forgets, "remember")])
def test_a_broken_adapter_fails_the_right_check_with_its_hint(kind, part):
    verdict = judge(kind)
    assert [result.name.split()[0] for result in verdict.results if not result.passed] == [part]
    assert f"8 of 9 parts stand; still to do: {part}" == verdict.summary
    if kind is Forgets:
        assert "dropped" in verdict.results[-1].hint


def test_the_template_has_every_part_as_its_exercise_asks_and_nothing_is_written():
    for name, exercise in PARTS.items():
        solution = find(exercise).solution
        assert inspect.signature(getattr(my_fl, name)) == inspect.signature(solution)
        assert inspect.getdoc(getattr(my_fl, name)) == inspect.getdoc(solution)
    assert {result.state for result in judge(my_fl).results} == {"todo"}


def test_what_is_missing_or_leaves_or_raises_stops_nothing():
    class Odd:
        def avrage(self, deltas, counts):
            return 0

        def local_step(self, W, x, y, lr):
            raise SystemExit("I go")

        @property
        def clip(self):
            raise KeyError("no")

        top_k = 3

    results = {result.name.split()[0]: result for result in judge(Odd()).results}
    assert len(results) == len(PARTS)
    assert "def average(deltas, counts)" in results["average"].message
    assert "There is 'avrage': is that it?" in results["average"].message
    assert "SystemExit: I go" in results["local_step"].message
    assert results["clip"].state == "fail"
    assert "hand over the function itself" in results["top_k"].message
    assert results["join"].state == "todo"
    page = judge(Odd())._repr_html_()
    assert page.count('role="status"') == len(PARTS) + 1


def test_a_file_is_read_anew_with_those_beside_it(tmp_path):
    (tmp_path / "engine_room.py").write_text("def shorten(x, c):\n    return x\n")
    path = tmp_path / "my_fl.py"
    path.write_text("from engine_room import shorten\n\n\ndef clip(update, bound):\n    return shorten(update, bound)\n")
    clip = [result.state for result in judge(path).results if result.name.startswith("clip")]
    (tmp_path / "engine_room.py").write_text("def shorten(x, c):\n    return x * min(1, c / max((x @ x) ** 0.5, 1e-12))\n")
    assert clip + [result.state for result in judge(str(path)).results if result.name.startswith("clip")] == ["fail", "pass"]


CLIP = "def clip(update, bound):\n    return update * min(1, bound / max((update @ update) ** 0.5, 1e-12))\n"


def state_of_clip(path):
    return next(result.state for result in judge(path).results if result.name.startswith("clip"))


def test_what_is_imported_only_when_a_part_is_called_is_found_and_forgotten(tmp_path):
    (tmp_path / "boiler_room.py").write_text(CLIP)
    path = tmp_path / "my_fl.py"
    path.write_text("def clip(update, bound):\n    from boiler_room import clip\n    return clip(update, bound)\n")
    assert state_of_clip(path) == "pass"
    assert not {"boiler_room", "my_fl"} & set(sys.modules)
    assert str(tmp_path) not in sys.path


def test_what_the_notebook_has_imported_itself_is_read_anew_and_given_back(tmp_path, monkeypatch):
    (tmp_path / "coal_room").mkdir()                             # without __init__.py
    room, path = tmp_path / "coal_room" / "room.py", tmp_path / "my_fl.py"
    room.write_text(CLIP)
    path.write_text("from coal_room.room import clip\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("coal_room", "coal_room.room", "my_fl"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    known = {name: importlib.import_module(name) for name in ("coal_room.room", "my_fl")}
    assert state_of_clip(path) == "pass"
    room.write_text("def clip(update, bound):\n    return update\n")
    assert state_of_clip(path) == "fail"
    assert all(sys.modules[name] is module for name, module in known.items())


def test_a_file_that_removes_its_own_folder_is_judged_and_what_was_known_is_given_back(tmp_path, monkeypatch):
    path = tmp_path / "mine" / "my_fl.py"
    path.parent.mkdir()
    path.write_text(f"import shutil\nshutil.rmtree({str(path.parent)!r})\n\n\n{CLIP}")
    monkeypatch.setitem(sys.modules, "my_fl", my_fl)
    assert state_of_clip(path) == "pass"
    assert sys.modules["my_fl"] is my_fl
    assert str(path.parent) not in sys.path


def test_modules_of_an_environment_below_the_file_stay(tmp_path, monkeypatch):
    site = tmp_path / ".venv" / "site-packages"
    site.mkdir(parents=True)
    (site / "far_away.py").write_text("x = 1\n")
    (tmp_path / "my_fl.py").write_text(f"import far_away\n{CLIP}")
    monkeypatch.syspath_prepend(site)
    assert state_of_clip(tmp_path / "my_fl.py") == "pass"
    assert "far_away" in sys.modules
    monkeypatch.delitem(sys.modules, "far_away")


def test_a_file_may_hold_dataclasses_and_an_error_names_its_line(tmp_path):
    path = tmp_path / "my_fl.py"
    path.write_text("from __future__ import annotations\nfrom dataclasses import dataclass\n\n\n@dataclass\nclass Bound:\n"
                    "    x: float\n\n\ndef clip(update, bound):\n    return Bound(bound).y\n")
    clip = next(result for result in judge(path).results if result.name.startswith("clip"))
    assert "AttributeError" in clip.message
    assert "in line 11 of my_fl.py: return Bound(bound).y" in clip.message


def test_the_command_says_each_part_and_ends_with_1_until_all_stand(run, tmp_path):
    (tmp_path / "mine.py").write_text("from fl_course.workbook.own import Micro\nlibrary = Micro()\n"
                                      + "".join(f"{name} = library.{name}\n" for name in PARTS))
    code, said = run("judge", "--help")
    assert "fl-course judge my-course/exercises/my_fl.py" in said
    code, said = run("judge", "mine.py", "--seed", 0)
    assert code == 0
    assert "9 of 9 parts stand" in said
    assert all(exercise in said for exercise in PARTS.values())
    code, said = run("judge", own.TEMPLATE)
    assert code == 1
    assert "0 of 9 parts stand; still to do: average, local_step" in said
    (tmp_path / "mine.ipynb").write_text("{}")
    for name, words in {"nowhere.py": "there is no file 'nowhere.py'", "mine.ipynb": "mine.ipynb is a notebook"}.items():
        code, said = run("judge", name)
        assert code == 2
        assert f"fl-course: {words}" in said


def test_no_library_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*fl-course start"):
        judge(tmp_path / "nowhere.py")
    (tmp_path / "bad.py").write_text("def average(:\n")
    with pytest.raises(ValueError, match=r"bad\.py cannot be run: SyntaxError"):
        judge(tmp_path / "bad.py")
    for nothing in (None, micro.clip):
        with pytest.raises(TypeError, match="hand over a file, a module or an object"):
            judge(nothing)

    class Asks:
        def __init__(self, model):
            pass

    with pytest.raises(TypeError, match=r"Asks\(\) fails"):
        judge(Asks)


def test_start_copies_the_template_once(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "course", built)
    places.copy_workbook(tmp_path)
    copy = tmp_path / "exercises" / "my_fl.py"
    assert copy.read_text(encoding="utf-8") == own.TEMPLATE.read_text(encoding="utf-8")
    copy.write_text("# mine\n")
    places.copy_workbook(tmp_path, force=True)
    assert copy.read_text() == "# mine\n", "a learner's library is never overwritten"
    assert all(result.state == "todo" for result in judge(own.TEMPLATE).results)
