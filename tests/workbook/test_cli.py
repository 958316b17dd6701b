"""The command fl-course: what it writes, what it says, and its exit codes."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import typer
from workbook_fixtures import built, write_notebook

from fl_course.workbook import commands
from fl_course.workbook.commands import cli, doctor, export, kernels, parameters, places, sweep
from fl_course.workbook.commands.doctor import PACKAGE
from fl_course.workbook.grading.cards import RESULT_MIME

PARAMETERS = "epsilon: float = 2.0  # privacy budget\nrounds: int = 3\nname: str = 'a'\nfast = True\nsizes: list = [1]"
NUMBERS = "{'product': epsilon * rounds, 'sum': epsilon + rounds}"
REPORT = f"display({{'{RESULT_MIME}': {NUMBERS}, 'text/plain': 'numbers'}}, raw=True)"


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "lesson.ipynb", "print(epsilon, rounds)", REPORT, parameters=PARAMETERS)


@pytest.mark.parametrize("verb", ["", "train", "run", "sweep", "check", "grade", "start", "lab", "export", "doctor", "test"])
def test_help_has_examples(run, verb):
    code, said = run(*filter(None, [verb]), "--help")
    assert code == 0
    assert "Usage: " in said
    if verb:
        assert f"fl-course {verb}" in said


def test_run_writes_pages_goes_on_after_a_failure_and_fails(run, notebook, tmp_path):
    broken = write_notebook(tmp_path / "broken.ipynb", "x = 1", "# why\nraise ValueError('no')")
    code, said = run("run", broken, notebook, "-p", "rounds", "5", "--parameter", "epsilon=0.5", "--out", "out")
    assert code == 1
    assert "ValueError: no" in said
    assert "cell [2]" in said
    assert re.search(r"lesson.ipynb.*4/4.*ok", said)
    text = "".join(output.get("text", "") for output in nbformat.read("out/lesson.ipynb", 4).cells[2].outputs)
    assert text == "0.5 5\n"
    assert {path.name for path in Path("out").glob("*.html")} == {"broken.html", "lesson.html", "index.html"}
    assert not list(Path("out").glob("*.part.*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "round", "5"], "no parameter 'round'. Allowed: lesson.ipynb: epsilon: float = 2.0, rounds: int = 3"),
        (["-p", "rounds", "2.5"], "rounds = '2.5' does not fit; rounds: int = 3"),
        (["-p", "epsilon", "big"], "takes a value of type float"),
        (["-p", "fast", "perhaps"], "takes a value of type bool"),
        (["-p", "sizes", "(1,)"], "takes a value of type list"),
        (["-p", "rounds"], "-p takes a name and a value"),
    ],
)
def test_parameters_are_checked_before_anything_runs(run, notebook, words, said):
    code, text = run("run", notebook, *words)
    assert code == 2
    assert said in text
    assert not Path("reports").exists()


def test_parameters_have_the_types_of_the_notebook(notebook):
    asked = [("epsilon", "1"), ("rounds", "4"), ("name", "b c"), ("fast", "false"), ("sizes", "[1, 2]")]
    chosen = parameters.choose([notebook], asked)[notebook]
    assert chosen == {"epsilon": 1.0, "rounds": 4, "name": "b c", "fast": False, "sizes": [1, 2]}
    assert type(chosen["epsilon"]) is float


def test_a_parameter_goes_to_the_notebooks_that_have_it(notebook, tmp_path):
    other = write_notebook(tmp_path / "other.ipynb", "1", parameters="clients: int = 1")
    assert parameters.choose([notebook, other], [("clients", "2")]) == {notebook: {}, other: {"clients": 2}}


def test_unknown_notebooks_are_named(run):
    code, said = run("run", "no_such_notebook")
    assert code == 2
    assert "no notebook 'no_such_notebook'; there are " in said


@pytest.mark.slow
def test_sweep_resumes_and_gathers(run, notebook, monkeypatch):
    words = ("sweep", notebook, "-p", "epsilon", "1,2", "-p", "rounds", "5", "--jobs", "2", "--out", "out")
    code, said = run(*words)
    assert code == 0, said
    with Path("out/lesson.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"epsilon": "1.0", "rounds": "5", "product": "5.0", "sum": "6.0"},
        {"epsilon": "2.0", "rounds": "5", "product": "10.0", "sum": "7.0"},
    ]
    assert Path("out/lesson.png").read_bytes().startswith(b"\x89PNG")
    ran = []

    def count(path, point):
        ran.append(point.parameters)
        return sweep.Outcome("x", 0, 1, 0.0, "interrupted")

    monkeypatch.setattr(sweep, "_run", count)
    code, said = run(*words[:4], "1,2,4", *words[5:8], "--jobs", "1", "--out", "out")
    assert ran == [{"epsilon": 4.0, "rounds": 5}], "finished points are not run again, missing ones are"
    assert code == 1
    assert "3 points, 2 of them finished before" in said


def test_a_failed_point_leaves_no_finished_notebook(notebook, monkeypatch, tmp_path):
    (point,) = sweep.grid(notebook, [("epsilon", "1")], tmp_path / "out")

    def fail(path, output, chosen):
        output.parent.mkdir(parents=True)
        output.write_text("half")
        return sweep.Outcome("x", 0, 1, 0.0, "died", output)

    monkeypatch.setattr(sweep, "run_notebook", fail)
    assert [outcome.ok for _, outcome in sweep.run_points(notebook, [point])] == [False]
    assert not point.output.exists()


@pytest.mark.parametrize(
    ("swept", "words"),
    [([("x", "1")], "no parameter 'x'"), ([], "at least one"), ([("rounds", "1"), ("rounds", "2")], "given twice")],
)
def test_a_bad_grid_is_refused(notebook, tmp_path, swept, words):
    with pytest.raises(parameters.BadParameter, match=words):
        sweep.grid(notebook, swept, tmp_path)


def test_a_changed_notebook_is_another_sweep(notebook, tmp_path):
    before = sweep.grid(notebook, [("epsilon", "1,2")], tmp_path)
    write_notebook(notebook, "print(rounds)", parameters=PARAMETERS)
    after = sweep.grid(notebook, [("epsilon", "1,2")], tmp_path)
    assert not {point.output for point in before} & {point.output for point in after}


def test_start_copies_and_never_overwrites(run, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "course", built)
    code, said = run("start", "mine")
    assert code == 0
    mine = tmp_path / "mine" / "exercises" / "99_tiny.ipynb"
    assert mine.exists()
    assert not (tmp_path / "mine" / "solutions").exists()
    mine.write_text("my work")
    code, said = run("start", "mine", "--solutions")
    assert mine.read_text() == "my work"
    assert "2 were there already" in said
    assert (tmp_path / "mine" / "solutions" / "99_tiny.ipynb").exists()
    assert run("start", "mine", "--force")[0] == 0
    assert mine.read_text() != "my work"


def test_lab_opens_the_first_notebook_of_the_folder(run, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "course", built)
    calls = []
    monkeypatch.setattr("subprocess.call", lambda command, env: calls.append((command, env)) or 0)
    run("start", "mine")
    assert run("lab", "--dir", "mine", "--no-browser")[0] == 0
    ((command, environment),) = calls
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert command[-2:] == ["--no-browser", str(tmp_path / "mine" / "notebooks" / "99_tiny.ipynb")]
    assert environment["OMP_NUM_THREADS"]
    assert run("lab", "--dir", "nowhere")[0] == 2


def test_pages_need_no_network(tmp_path):
    node = nbformat.read(built() / "notebooks" / "99_tiny.ipynb", as_version=4)
    text = "Costs \\$5, `$code$`, $x^2$ and $$\\frac{a}{b}$$ and $\\unknown{x}$"
    node.cells.insert(0, nbformat.v4.new_markdown_cell(text))
    node.cells[4].outputs[0]["data"] = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "W"}
    nbformat.write(node, tmp_path / "a.ipynb")
    page = export.to_html(tmp_path / "a.ipynb", tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.search(r"""<(?!a )[^>]*(src|href)=["']?(https?:)?//""", page)
    assert "data:image/png;base64," in page
    assert 'alt="x^2"' in page
    assert r'alt="\frac{a}{b}"' in page
    assert r"<code>\unknown{x}</code>" in page
    assert "<code>$code$</code>" in page
    assert "Costs $5" in page


def test_a_page_that_would_load_from_the_network_is_refused(tmp_path):
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('<img src="https://example.org/a.png">')])
    nbformat.write(node, tmp_path / "a.ipynb")
    with pytest.raises(ValueError, match="from the network"):
        export.to_html(tmp_path / "a.ipynb", tmp_path / "a.html")


@pytest.mark.slow
def test_doctor(run, monkeypatch, tmp_path):
    command, environment = [sys.executable, "-m", "fl_course", "doctor"], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert f"{sys.executable} runs {PACKAGE / '__init__.py'}" in done.stdout
    assert "ok    widget: drawn" in done.stdout
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    monkeypatch.setattr(doctor, "_kernel_runs", lambda: iter([doctor.Finding("kernel", "dead", "install it again")]))
    code, said = run("doctor")
    assert code == 1
    assert "WRONG kernel: dead" in said
    assert "mend: install it again" in said


def test_a_look_that_fails_is_a_finding(monkeypatch):
    def broken():
        raise OSError("no such thing")
        yield

    looks = ("_course", "_kernel_found", "_packages", "_torch", "_optional", "_threads", "_places", "_signs", "_loopback",
             "_kernel_runs", "_page")  # fmt: skip
    for look in looks:
        monkeypatch.setattr(doctor, look, broken)
    findings = list(doctor.examine())
    assert [finding.ok for finding in findings] == [True] + [False] * len(looks)


BREAKABLE = ["anywidget", "ipywidgets", "papermill", "jupytext", "matplotlib", "dp_accounting", "jupyterlab"]


@pytest.mark.parametrize("broken", BREAKABLE)
def test_a_package_that_is_installed_and_broken_is_found(broken, tmp_path, monkeypatch):
    """Metadata cannot tell. Every other package is taken for granted here, which saves the time to import it."""
    (tmp_path / f"{broken}.py").write_text("raise ImportError('half of it is missing')")
    for name in {doctor.MODULES.get(name, name.replace("-", "_")) for name, _ in doctor.requirements()} - {broken}:
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "lab_python", lambda: sys.executable)
    wrong = [finding for finding in doctor._packages() if not finding.ok]
    assert [finding.subject.replace("-", "_") for finding in wrong] == [broken]
    assert "half of it is missing" in wrong[0].found
    assert "pip install --force-reinstall" in wrong[0].mend


def test_a_package_that_kills_python_is_named(tmp_path, monkeypatch):
    for name in {doctor.MODULES.get(name, name.replace("-", "_")) for name, _ in doctor.requirements()}:
        (tmp_path / f"{name}.py").write_text("import os; os._exit(3)" if name == "scipy" else "")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "lab_python", lambda: sys.executable)
    found = {finding.subject: finding.found for finding in doctor._packages()}
    assert "Python died" in found["scipy"]
    assert "the package before it ended Python" in found["torch"]


@pytest.mark.slow
def test_the_doctor_needs_neither_torch_nor_rich_nor_typer(tmp_path):
    for name in ("torch", "rich", "typer"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('gone')")
    environment, options = {**os.environ, "PYTHONPATH": str(tmp_path)}, {"capture_output": True, "text": True, "check": False}
    said = subprocess.run([sys.executable, doctor.__file__], env=environment, timeout=300, **options)
    for name in ("torch", "rich", "typer"):
        assert re.search(rf"WRONG {name}: .*ImportError: gone", said.stdout), said.stdout + said.stderr
    assert said.returncode == 1
    imported = subprocess.run([sys.executable, "-c", "import fl_course"], env=environment, **options)
    assert "torch is missing or broken (gone); what to do, says: python" in imported.stderr


def test_a_foreign_kernel_that_wins_is_named(tmp_path, monkeypatch):
    other = tmp_path / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"argv": ["/other/bin/python", "-m", "ipykernel"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    (finding,) = doctor._kernel_found()
    assert "/other/bin/python" in finding.found
    assert str(other.parent) in finding.mend
    assert doctor.lab_python() == "/other/bin/python"


def test_nothing_to_check_or_export_is_no_success(run, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "course", lambda: tmp_path)
    assert run("check") == (2, "fl-course: there is nothing to check: no notebooks here\n")
    assert run("export") == (2, "fl-course: there is nothing to export: no notebooks here\n")


def test_a_folder_that_happens_to_be_called_notebooks_is_not_the_course(run, tmp_path):
    write_notebook(tmp_path / "notebooks" / "01_mine.ipynb", "1 / 0")
    assert places.here() == places.course()
    shutil.copy(built() / "notebooks" / "99_tiny.ipynb", tmp_path / "notebooks")
    assert places.here() == tmp_path


def test_a_parameter_that_is_given_twice_is_refused(run, notebook):
    code, said = run("run", notebook, "-p", "rounds", "3", "-p", "rounds", "4")
    assert code == 2
    assert "'rounds' is given twice" in said


def test_a_sweep_says_which_points_failed_and_why(run, tmp_path):
    claim = "assert rounds < 2, 'the claim did not reproduce'"
    bad = write_notebook(tmp_path / "bad.ipynb", claim, REPORT, parameters=PARAMETERS)
    code, said = run("sweep", bad, "-p", "rounds", "3,4", "--jobs", "1", "--out", "out")
    assert code == 1
    assert "2 of 2 failed" in said
    assert "the claim did not reproduce" in said
    assert "must end a cell" not in said
    code, said = run("sweep", bad, "-p", "rounds", "1,4", "--jobs", "1", "--out", "out")
    assert code == 1
    assert re.search(r"Not in the table, it failed: rounds = 4: .*did not reproduce", said)


def test_the_kernel_is_this_interpreter_whatever_is_installed(tmp_path, monkeypatch):
    from jupyter_client.kernelspec import KernelSpecManager

    other = tmp_path / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"argv": ["/other/python"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert KernelSpecManager().get_kernel_spec("python3").argv == ["/other/python"]
    with kernels.own_kernel(FL_COURSE_STRICT="1"):
        spec = KernelSpecManager().get_kernel_spec("python3")
        assert spec.argv[0] == sys.executable
        assert spec.env["FL_COURSE_STRICT"] == "1"
    assert KernelSpecManager().get_kernel_spec("python3").argv == ["/other/python"]


def test_run_without_arguments_shows_the_demo_then_the_tour(run, monkeypatch, notebook):
    shown = []
    monkeypatch.setattr(cli, "_demo", lambda rounds, out: shown.append(out) or 0)
    monkeypatch.setattr(places, "tour", lambda: notebook)
    code, said = run("run")
    assert (code, shown) == (0, [Path("reports")])
    assert "lesson.ipynb" in said


def test_grade_and_check_refuse_what_is_not_there(run, tmp_path):
    assert run("grade", "nowhere") == (2, "fl-course: there are no notebooks in nowhere\n")
    write_notebook(tmp_path / "in" / "a.ipynb", "1")
    code, said = run("grade", "in")
    assert code == 2
    assert "name the chapter with --chapter" in said
    assert run("grade", "in", "--chapter", "98")[0] == 2
    assert run("check", "nothing")[0] == 2


@pytest.mark.parametrize("known", [True, False])
def test_start_says_how_to_go_on_where_the_command_is_not_known(run, monkeypatch, known):
    monkeypatch.setattr(places, "course", built)
    monkeypatch.setattr("shutil.which", lambda name: "/bin/fl-course" if known else None)
    said = run("start", "my course")[1]
    assert 'Next: fl-course lab --dir "my course"\n' in said
    where = str(Path(sys.executable).parent)
    assert (where in said) != known
    assert f"finds it in `{where}`" in Path("my course/README.md").read_text("utf-8")


# --- whatever is asked, of every verb --------------------------------------------------------------------------------

CALLS = {
    "train": [], "run": ["good.ipynb"], "sweep": ["good.ipynb", "-p", "rounds", "1,2"], "check": ["good.ipynb"],
    "export": ["good.ipynb"], "grade": ["box", "--chapter", "99"], "start": ["mine"], "lab": [], "doctor": [], "test": [],
    "judge": ["file"], "classroom": [], "deploy export": ["app"], "deploy local": [],
}  # fmt: skip
SPOILED = {"empty": b"", "list": b"[]", "bytes": b"\xff\xfe\x00", "half": b'{"cells": ['}
STRANGE = ["nowhere", "no where/课", "folder", "", "-1", "0", "inf", "a" * 300, "a\nb", "file", "file/below", "=", "\udcff",
           "folder.ipynb", *(f"{name}.ipynb" for name in SPOILED)]  # fmt: skip


def verbs():
    """Every command by its words, as typer knows it."""
    found = {}
    for name, command in typer.main.get_command(cli.app).commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {sub}": one for sub, one in inner.items()} if inner else {name: command}
    return found


def strange_calls(verb, command):
    """The good call with a strange word more, with one in place of its first argument, and as the value of each option."""
    good = [*verb.split(), *CALLS[verb]]
    taken = [param for param in command.params if param.param_type_name == "option" and not param.is_flag]
    for word in STRANGE:
        yield [*good, word]
        if CALLS[verb]:
            yield [*verb.split(), word, *CALLS[verb][1:]]
        for param in taken:
            yield [*good, param.opts[0], *([word] if param.opts[0] != "-p" else [word, "3"])]
            yield [*good, param.opts[0], *([word] if param.opts[0] != "-p" else ["rounds", word])]


@pytest.fixture
def idle(monkeypatch, tmp_path):
    """A folder of good and of strange things, in which nothing takes time: what would run is said to have run."""
    from fl_course.deploy import environment, local
    from fl_course.workbook.commands import desk, runner, validate
    from fl_course.workbook.grading import classroom as graders
    from fl_course.workbook.room import room

    write_notebook(tmp_path / "good.ipynb", "print(rounds)", parameters="rounds: int = 3")
    write_notebook(tmp_path / "box" / "a.ipynb", "check('99.clip', len)")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "file").write_text("in the way")
    for name, content in SPOILED.items():
        (tmp_path / f"{name}.ipynb").write_bytes(content)
    monkeypatch.setattr(places, "course", built)
    monkeypatch.setattr(runner, "run_notebook", lambda path, output, *more: runner.Outcome(path.name, 1, 1, 0.0))
    skipped = runner.Outcome("good.ipynb", 1, 1, 0.0, "not run")
    monkeypatch.setattr(sweep, "run_points", lambda path, points, jobs: ((point, skipped) for point in points))
    monkeypatch.setattr(export, "to_html", lambda path, output, beside: output)
    monkeypatch.setattr(cli, "_demo", lambda rounds, out: 0)
    monkeypatch.setattr(validate, "validate", lambda path: validate.Verdict(path.name, 1, 0))
    monkeypatch.setattr(graders, "grade_files", lambda *all_of_it: iter(()))
    monkeypatch.setattr(doctor, "main", lambda: 0)
    monkeypatch.setattr(desk.subprocess, "call", lambda *command, **more: 0)
    monkeypatch.setattr(environment, "flower", lambda say: sys.executable)
    monkeypatch.setattr(local.Local, "__enter__", lambda here: here)
    monkeypatch.setattr(local.Local, "__exit__", lambda here, *why: None)
    monkeypatch.setattr(local.Local, "run", lambda here, *how, **more: None)

    def shut(*how):
        raise ValueError("the room is not opened in this test")

    monkeypatch.setattr(room, "Room", shut)


def test_the_list_of_files_names_every_file():
    files = {path.name for path in Path(cli.__file__).parent.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\w+\.py", commands.__doc__)) == files


def test_every_verb_has_its_strange_calls():
    assert set(verbs()) == set(CALLS)


@pytest.mark.parametrize("verb", CALLS)
def test_whatever_is_asked_the_answer_is_a_sentence_and_an_exit_code(run, idle, verb):
    """A traceback would be another exception than SystemExit. A refusal says once what is wrong, and ends with 2 or 1."""
    assert run(*verb.split(), *CALLS[verb])[0] in (0, 1, 2)
    for words in strange_calls(verb, verbs()[verb]):
        code, said = run(*words)
        assert code in (0, 1, 2), words
        assert "Traceback" not in said, words
        assert "Warning" not in said, words
        if code == 2:
            assert len(re.findall(r"^fl-course: \S|^Usage: ", said, re.M)) == 1, (words, said)


def test_one_is_not_many(run, idle):
    assert run("export", "good.ipynb", "--out", "site")[1].startswith("1 page: ")
    write_notebook(Path("other.ipynb"), "1")
    assert run("export", "good.ipynb", "other.ipynb", "--out", "site")[1].startswith("2 pages: ")


def test_a_notebook_that_was_cut_off_is_named_before_the_others_run(run, idle):
    code, said = run("run", "good.ipynb", "half.ipynb", "--out", "out")
    assert code == 2
    assert re.search(r"^fl-course: \S+half\.ipynb is no notebook that can be read: .*save it once more$", said, re.M)
    assert run("run", "file")[1].endswith("file is no notebook: its name does not end in .ipynb\n")


def test_a_sign_that_the_terminal_cannot_write_is_no_end():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "fl_course", "run", "Größe 课.ipynb"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("fl-course: no notebook 'Gr??e ?.ipynb'")
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_that_cannot_be_written_is_no_traceback(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "fl_course", "run", "nowhere"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert done.returncode
    assert "Traceback" not in done.stderr
