"""The build: reproducible, incremental, and strict about what a source may contain."""

import base64
import copy
import json
import random
import shutil
import struct
import zlib

import nbformat
import pytest
from workbook_fixtures import (
    ROOT,
    build_notebooks,
    built,
    exercise_cells,
    lesson_rules,
    notebook_outputs,
    write_notebook,
)


@pytest.fixture
def workbook(tmp_path):
    """A copy of the built fixture that a test may change."""
    shutil.copytree(built(), tmp_path / "course")
    return tmp_path / "course"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Write one exercise (or lesson) source; returns the root. It is too small to keep the rules of a lesson."""
    monkeypatch.setattr(lesson_rules, "FIRST_EDITION", {"01_x", "01_y"})
    monkeypatch.setattr(lesson_rules.lesson, "descriptions", lambda chapter: {})

    def write(text, kind="exercises"):
        path = tmp_path / "source" / kind / "01_x.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def run(root, *options):
    return build_notebooks.main(["--root", str(root), *options])


def test_the_repository_is_up_to_date():
    assert build_notebooks.problems(ROOT, build_notebooks.derive(ROOT)) == []


def test_no_sources_is_fine(tmp_path):
    assert run(tmp_path) == 0
    assert run(tmp_path, "--check") == 0


def test_building_twice_gives_the_same_bytes(tmp_path):
    shutil.copytree(built() / "source", tmp_path / "source")
    assert run(tmp_path) == 0
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.ipynb"))
    assert [path.as_posix() for path in files] == [f"{folder}/99_tiny.ipynb" for folder in sorted(build_notebooks.FOLDERS)]
    for path in files:
        assert (tmp_path / path).read_bytes() == (built() / path).read_bytes()
        assert b"\r" not in (tmp_path / path).read_bytes()


def test_what_is_built():
    lesson, stubs, solved = (nbformat.read(built() / folder / "99_tiny.ipynb", 4) for folder in build_notebooks.FOLDERS)
    text = "\n".join(cell.source for cell in stubs.cells)
    assert "    # YOUR CODE HERE\n    raise NotImplementedError()" in text
    assert "SOLUTION" not in text
    assert "rng.choice" not in text
    assert "for teachers" not in text
    assert "for teachers" in "\n".join(cell.source for cell in solved.cells)
    marks = [line.strip() for cell in solved.cells for line in cell.source.splitlines() if "SOLUTION" in line]
    assert marks == [exercise_cells.BEGIN, exercise_cells.END] * 3
    assert all(cell.execution_count is None and not cell.outputs for cell in stubs.cells if cell.cell_type == "code")
    counts = [cell.execution_count for cell in lesson.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert lesson.cells[3].outputs[0].text == "6.0\nan object of which nobody needs the address: <object object at 0x…>\n"
    assert lesson.cells[5].outputs[0].metadata["image/png"]["alt"].startswith("A straight line")
    assert [cell.metadata for cell in lesson.cells if "proof" in cell.metadata.get("tags", [])] == [
        {"tags": ["proof"], "jupyter": {"source_hidden": True}}
    ]
    assert all(set(cell.metadata) <= {"tags", "jupyter"} for cell in lesson.cells)
    assert set(lesson.metadata) == {"kernelspec", "language_info", "fl_course"}


def test_check_is_green_after_a_build_and_a_second_build_does_nothing(workbook, capsys):
    assert run(workbook, "--check") == 0
    assert run(workbook) == 0
    assert capsys.readouterr().out == ""


def test_editing_one_cell_changes_only_its_own_lines(workbook):
    path = workbook / "source" / "exercises" / "99_tiny.py"
    before = (workbook / "exercises" / "99_tiny.ipynb").read_text(encoding="utf-8").splitlines()
    path.write_text(path.read_text(encoding="utf-8").replace("of norm at most `bound`", "no longer than `bound`"), "utf-8")
    assert run(workbook, "--no-execute") == 0
    after = (workbook / "exercises" / "99_tiny.ipynb").read_text(encoding="utf-8").splitlines()
    assert len(before) == len(after)
    changed = [old for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 3
    assert all(word in line for word, line in zip(('"id"', "of norm at most", "source_sha256"), changed, strict=True))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda cell: cell.update(source=cell.source + "\n"), "cell 4 differs from its source"),
        (lambda cell: cell.update(execution_count=None), "cell 4 was not executed"),
        (lambda cell: cell.metadata.update(tags=["other"]), "cell 4 differs from its source"),
        (lambda cell: cell.update(id="abcdef012345"), "cell 4 differs from its source"),
        (lambda cell: cell.metadata.update(collapsed=True), "cell 4 differs from its source"),
        (lambda cell: cell.metadata.update(jupyter={"source_hidden": True}), "cell 4 differs from its source"),
        (
            lambda cell: cell.outputs.append(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])),
            "cell 4 ends in an error",
        ),
    ],
)
def test_check_finds_an_edited_notebook(workbook, capsys, spoil, words):
    path = workbook / "notebooks" / "99_tiny.ipynb"
    node = nbformat.read(path, 4)
    spoil(node.cells[3])
    nbformat.write(node, path)
    assert run(workbook, "--check") == 1
    said = capsys.readouterr().err
    assert f"notebooks/99_tiny.ipynb: {words}" in said
    assert "Run: python tools/build_notebooks.py" in said


def spots(value, path=()):
    """The way to every leaf, every list and every dict in the outputs of a notebook."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from spots(inner, (*path, key))


def edited(outputs, path, rng):
    """A copy of the outputs with one thing changed at that place: a letter, a number, an entry left out or doubled."""
    new = copy.deepcopy(outputs)
    *way, last = path
    at = new
    for key in way:
        at = at[key]
    old = at[last]
    if isinstance(old, str) and old:
        i = rng.randrange(len(old))
        at[last] = old[:i] + rng.choice([c for c in "059% " if c != old[i]]) + old[i + 1 :]
    elif isinstance(old, str):
        at[last] = "0"
    elif isinstance(old, int | float) or old is None:
        at[last] = (old or 0) + 1
    elif isinstance(old, dict) and old:
        old.pop(rng.choice(sorted(old)))
    elif isinstance(old, list) and old:
        rng.choice([lambda: old.pop(), lambda: old.append(old[0]), old.clear])()
    elif isinstance(old, list):
        at[last] = [{"output_type": "stream", "name": "stdout", "text": "accuracy 99.9 %"}]
    else:
        at[last] = {"alt": "another picture"}
    return new


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
def test_check_finds_any_edit_of_any_output(workbook, folder):
    """Every place in the outputs is edited once, as a hand (or a merge) would; all outputs deleted is one of them."""
    path, rng = workbook / folder / "99_tiny.ipynb", random.Random(0)
    wanted = build_notebooks.derive(workbook)[path.relative_to(workbook)]
    raw = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in raw["cells"] if cell["cell_type"] == "code"]
    places = [(cell, place) for cell in code for place in spots(cell["outputs"]) if place]
    assert len(places) > 20
    for cell, place in places:
        kept = cell["outputs"]
        cell["outputs"] = edited(kept, place, rng)
        path.write_text(json.dumps(raw), encoding="utf-8")
        cell["outputs"] = kept
        assert build_notebooks.stale(path, wanted, True), f"{place} was edited and --check saw nothing"
    for cell in code:
        cell["outputs"] = []
    path.write_text(json.dumps(raw), encoding="utf-8")
    assert build_notebooks.stale(path, wanted, True) == "its outputs are not those of its build (edited or deleted by hand?)"


def test_outputs_belong_to_their_source(workbook):
    """Outputs of another source with a right hash of their own are found, too; so is a notebook without a hash."""
    path = workbook / "notebooks" / "99_tiny.ipynb"
    wanted = build_notebooks.derive(workbook)[path.relative_to(workbook)]
    node = nbformat.read(path, 4)
    other = copy.deepcopy(node)
    other.metadata.fl_course.source_sha256 = "of another source"
    node.metadata.fl_course.outputs_sha256 = notebook_outputs.digest_of_outputs(other)
    nbformat.write(node, path)
    assert "not those of its build" in build_notebooks.stale(path, wanted, True)
    del node.metadata.fl_course["outputs_sha256"]
    nbformat.write(node, path)
    assert "not those of its build" in build_notebooks.stale(path, wanted, True)


def test_two_cells_that_swap_outputs_are_found(workbook):
    path = workbook / "notebooks" / "99_tiny.ipynb"
    wanted = build_notebooks.derive(workbook)[path.relative_to(workbook)]
    node = nbformat.read(path, 4)
    one, two = [cell for cell in node.cells if cell.get("outputs")][:2]
    one.outputs, two.outputs = two.outputs, one.outputs
    nbformat.write(node, path)
    assert "not those of its build" in build_notebooks.stale(path, wanted, True)


def test_the_glossary_is_built_and_checked(workbook, capsys):
    page = workbook / "notebooks" / "glossary.md"
    page.write_text(page.read_text(encoding="utf-8").replace("in all", "at most"), encoding="utf-8")
    assert run(workbook, "--check") == 1
    assert "notebooks/glossary.md: differs from its source" in capsys.readouterr().err
    assert run(workbook) == 0
    assert run(workbook, "--check") == 0
    (workbook / "source" / "glossary.md").write_text("# Words\n", encoding="utf-8")
    assert run(workbook, "--check") == 1
    assert "[[a tiny price]] is not in source/glossary.md" in capsys.readouterr().err


def test_check_finds_stale_missing_stray_broken_and_large(workbook, capsys, monkeypatch):
    lesson = workbook / "source" / "lessons" / "99_tiny.py"
    lesson.write_text(lesson.read_text(encoding="utf-8").replace("epsilon * rounds)\nprint", "rounds)\nprint"), "utf-8")
    (workbook / "exercises" / "99_tiny.ipynb").unlink()
    (workbook / "solutions" / "99_tiny.ipynb").write_text('{"cells": [')
    write_notebook(workbook / "notebooks" / "98_stray.ipynb", "1")
    monkeypatch.setattr(build_notebooks, "LIMIT", 1000)
    assert run(workbook, "--check") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "notebooks/98_stray.ipynb: no source, remove it"
    assert "notebooks/99_tiny.ipynb: built from another version of its source" in lines
    assert "exercises/99_tiny.ipynb: missing" in lines
    assert any(line.startswith("solutions/99_tiny.ipynb: unreadable") for line in lines)
    assert any("bytes together; stay below 1,000" in line for line in lines)


@pytest.mark.parametrize("text", ["# %% exercise 99.clip [markdown]\n# Clip.\n", "# %%\n### BEGIN SOLUTION\n1\n"])
def test_a_lesson_has_no_exercises(source, capsys, text):
    assert run(source(text, "lessons")) == 1
    assert "01_x.py, cell 1: an exercise belongs in source/exercises" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("fedavg.py", b"# %%\n1\n", "two digits first"),
        ("1_fedavg.py", b"# %%\n1\n", "two digits first"),
        ("01_x.py", b"\xef\xbb\xbf# %%\n1\n", "begins with a byte-order mark"),
        ("01_x.py", "# %%\n# caf\u00e9\n".encode("latin-1"), "line 2 is not UTF-8"),
        ("01_x.py", b"# %%\nx = (1\n", "cell 1: "),
    ],
)
@pytest.mark.parametrize("kind", ["lessons", "exercises"])
def test_a_source_that_cannot_be_read_is_named(tmp_path, capsys, name, raw, words, kind):
    path = tmp_path / "source" / kind / name
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    for options in ([], ["--check"]):
        assert run(tmp_path, *options) == 1
        said = capsys.readouterr().err
        assert said.startswith(name)
        assert words in said
        assert "Traceback" not in said


def test_two_sources_of_one_number_are_refused(source, capsys):
    root = source("# %%\n1\n", "lessons")
    (root / "source" / "lessons" / "01_y.py").write_text("# %%\n2\n")
    assert run(root) == 1
    assert "01_x.py and 01_y.py have the same number" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--only", "fedavgg"], ["--only", "fedavgg", "--check"], ["--only", "01_x.ipynb"]])
def test_only_must_name_a_source(source, capsys, options):
    assert run(source("# %%\n1\n", "lessons"), *options) == 1
    said = capsys.readouterr().err
    assert "no source has" in said
    assert "01_x" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "notebooks/01_x.ipynb, cell 2: ZeroDivisionError: division by zero"),
        ("import sys\nprint('careful', file=sys.stderr)", "cell 2: writes to stderr"),
    ],
)
def test_a_failing_or_noisy_cell_fails_the_build(source, capsys, text, words):
    root = source(f"# %%\nx = 1\n\n# %%\n{text}\n", "lessons")
    assert run(root) == 1
    assert words in capsys.readouterr().err
    assert not (root / "notebooks" / "01_x.ipynb").exists()


def test_outputs_are_made_reproducible(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head, end = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"0" * 13), chunk(b"IEND", b"")
    noted = base64.b64encode(head + chunk(b"tEXt", b"Software\0x") + chunk(b"tIME", b"0" * 7) + end).decode()
    assert base64.b64decode(notebook_outputs.plain_png(noted)) == head + end
    new = nbformat.v4.new_output
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "image/png": noted, "text/plain": "W"}
    outputs = [new("stream", text="a 0x7f00deadbeef\n"), new("stream", text=f"{tmp_path}/x"), new("display_data", data=widget)]
    cell = nbformat.v4.new_code_cell("x", outputs=outputs, metadata={"execution": {"t": "12:00"}, "tags": ["a"]})
    notebook_outputs.tidy(cell, str(tmp_path))
    assert [output.output_type for output in cell.outputs] == ["stream", "display_data"]
    assert cell.outputs[0].text == "a 0x…\n<folder>/x"
    assert set(cell.outputs[1].data) == {"image/png", "text/plain"}
    assert json.loads(json.dumps(cell.metadata)) == {"tags": ["a"]}
    with pytest.raises(notebook_outputs.Untidy, match="no PNG"):
        notebook_outputs.plain_png(base64.b64encode(b"GIF89a").decode())
