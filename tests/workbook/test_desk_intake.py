"""What is handed in: archives, scripts in cells, wrong types. Nothing is unpacked, nothing leads outside, everybody has a row."""

import io
import json
import os
import random
import stat
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_desk import ANSWER, START, notebook

from fl_course.workbook.grading import classroom, collect, fence, intake

pytestmark = pytest.mark.timeout(600)
PERCENT = f"""# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A title: `def not_code(`

# %% tags=["x"]
{START}

# %%
{ANSWER}
"""


def archive(path, members):
    """Members: name -> text or bytes, or (ZipInfo, text)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(*content) if isinstance(content, tuple) else file.writestr(name, content)


def rows(folder):
    files = classroom.submissions(folder)
    return {grade.file: grade for grade in classroom.grade_files(folder, files, "99", 20, 5)}


@pytest.mark.slow
def test_archives_and_scripts_have_marks(tmp_path):
    archive(tmp_path / "anna.ZIP", {"sub/01.ipynb": notebook(START, ANSWER), "__MACOSX/._01.ipynb": "x", "notes.txt": "x"})
    archive(tmp_path / "two.zip", {"a.ipynb": notebook(START, ANSWER), "b.py": PERCENT})
    archive(tmp_path / "tricky.zip", {"../../evil.ipynb": notebook(START), "good.ipynb": notebook(START, ANSWER)})
    (tmp_path / "ben.py").write_text(PERCENT.replace("\n", "\r\n"), encoding="utf-8-sig")
    (tmp_path / "eva.md").write_text(f"---\njupyter: x\n---\n# Title\n\n```python\n{START}\n{ANSWER}\n```\n")
    found = rows(tmp_path)
    solved = {name: grade.solved for name, grade in found.items()}
    assert solved == {"anna.ZIP": 1, "two.zip/a.ipynb": 1, "two.zip/b.py": 1, "tricky.zip": 1, "ben.py": 1, "eva.md": 1}
    assert "outside itself" in found["tricky.zip"].problem
    assert not any(found[name].problem for name in found if name != "tricky.zip")
    assert {path.name for path in tmp_path.iterdir()} == {"anna.ZIP", "two.zip", "tricky.zip", "ben.py", "eva.md"}
    assert not (tmp_path.parent / "evil.ipynb").exists()


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def encrypted():
    held = io.BytesIO()
    archive(held, {"a.ipynb": notebook(START)})
    data = bytearray(held.getvalue())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    return bytes(data)


def test_hostile_archives_have_a_row_with_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "LARGEST", 1 << 20)
    monkeypatch.setattr(intake, "ARCHIVE", 1 << 22)
    monkeypatch.setattr(intake, "MEMBERS", 50)
    archive(tmp_path / "link.zip", {"a": (link("a.ipynb"), "/etc/passwd")})
    archive(tmp_path / "absolute.zip", {"/etc/a.ipynb": notebook(START)})
    archive(tmp_path / "windows.zip", {"C:\\a.ipynb": notebook(START), "..\\b.ipynb": "x"})
    archive(tmp_path / "bomb.zip", {"a.ipynb": b"0" * (1 << 23)})
    archive(tmp_path / "large.zip", {"a.ipynb": b"0" * (1 << 21)})
    archive(tmp_path / "many.zip", {f"{i}.ipynb": "x" for i in range(60)})
    archive(tmp_path / "empty.zip", {})
    archive(tmp_path / "inner.zip", {"deep.zip": (tmp_path / "large.zip").read_bytes()})
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and then nothing")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "large.zip").read_bytes()[:-30])
    (tmp_path / "encrypted.zip").write_bytes(encrypted())
    found = rows(tmp_path)
    for name, words in {
        "link.zip": "a link", "absolute.zip": "outside itself", "windows.zip": "outside itself", "bomb.zip": "would grow",
        "large.zip": "larger than|grows to", "many.zip": "holds 60 files", "empty.zip": "no notebook", "broken.zip": "not a zip",
        "cut.zip": "not a zip", "encrypted.zip": "encrypted", "inner.zip": "not a notebook",
    }.items():  # fmt: skip
        assert any(word in found[name].problem for word in words.split("|")), (name, found[name].problem)
        assert found[name].solved == 0
    assert set(found) == {path.name for path in tmp_path.iterdir()}


def test_an_archive_whose_folders_are_divided_as_on_windows_is_read(tmp_path):
    members = {"hw\\": "", "hw\\a.ipynb": notebook(START), "hw\\sub\\b.ipynb": notebook("x = 1")}
    with zipfile.ZipFile(tmp_path / "anna.zip", "w") as file:
        for name, text in members.items():
            info = zipfile.ZipInfo("x", (2026, 1, 2, 3, 4, 6))
            info.filename = name              # past what this system's zipfile makes of it
            file.writestr(info, text)
    files = classroom.submissions(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["anna.zip/hw/a.ipynb", "anna.zip/hw/sub/b.ipynb"]
    assert [collect.cells(path) for path in files] == [([(1, START)], ""), ([(1, "x = 1")], "")]
    assert all(intake.date(path) > 0 for path in files)


def test_a_name_in_other_letters_is_the_name_that_python_takes_it_for(tmp_path):
    (tmp_path / "a.ipynb").write_text(notebook("def 𝐜𝐥𝐢𝐩(delta, bound): pass"), encoding="utf-8")
    assert "99" in collect.chapters_of(tmp_path / "a.ipynb")


def test_damaged_archives_never_stop_the_class(tmp_path):
    rng = random.Random(0)
    for k in range(80):
        path = tmp_path / f"{k}.zip"
        archive(path, {"a.ipynb": notebook("x = 1"), "b/c.ipynb": "{}"})
        good, noise = bytearray(path.read_bytes()), rng.randbytes(rng.choice([1, 4, 20, 60]))
        at = rng.randint(0, len(good))
        good[at : at + len(noise)] = noise
        path.write_bytes(bytes(good[: rng.choice([len(good), len(good), at])]))
    files = classroom.submissions(tmp_path)
    assert len(list(classroom.grade_files(tmp_path, files, "99"))) == len(files) >= 80


@settings(max_examples=60)
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_cells_or_none(text):
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    for name in ("a.py", "a.md", "a.ipynb"):
        found = intake.cells_of(name, data)
        assert found is None or all(isinstance(source, str) for _, source in found)


def test_percent_cells():
    text = "import a\n# %%\nx = 1\n# %% [markdown]\n# words\n#%% [raw]\n# w\n# %% a title\ny = 2\n"
    assert intake.cells_of("a.py", text.encode()) == [(1, "import a"), (2, "x = 1"), (5, "y = 2")]
    assert intake.cells_of("a.txt", text.encode()) is None
    assert intake.cells_of("a.py", b"\xff\xfe") is None


def test_everybody_has_a_row(tmp_path):
    for name in ("Anna B_1_assignsubmission_file_/essay.pdf", "Ben_2_assignsubmission_file_/data.xyz",
                 "Eva_3_assignsubmission_file_/a.ipynb", "Eva_3_assignsubmission_file_/plot.png", "group/ben.docx",
                 "group/a.ipynb", "group/helper.py", "lone/readme", "top.rar"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}" if name.endswith("nb") else "words")
    files = classroom.submissions(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "Anna B_1_assignsubmission_file_/essay.pdf", "Ben_2_assignsubmission_file_/data.xyz",
        "Eva_3_assignsubmission_file_/a.ipynb", "group/a.ipynb", "group/ben.docx", "lone/readme", "top.rar",
    ]  # fmt: skip
    assert classroom.skipped(tmp_path, files) == ["Eva_3_assignsubmission_file_/plot.png", "group/helper.py"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_make_us_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.ipynb")
    os.mkfifo(tmp_path / "pipe.py")
    os.mkfifo(tmp_path / "pipe")
    found = rows(tmp_path)
    assert "not an ordinary file" in found["pipe.ipynb"].problem


def test_a_folder_that_is_called_an_archive_is_a_folder(tmp_path):
    (tmp_path / "a.zip").mkdir()
    (tmp_path / "a.zip" / "b.ipynb").write_text(notebook("x = 1"))
    assert collect.cells(tmp_path / "a.zip" / "b.ipynb") == ([(1, "x = 1")], "")


# --- the fence -------------------------------------------------------------------------------------------------------

GREEDY = {
    "memory": "import numpy as np\nheld = np.empty(1 << 31)",                                           # 16 GiB
    "disk": "with open('big', 'wb') as file:\n    for _ in range(400):\n        file.write(b'0' * (1 << 20))",
    "raise the bound": "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))",
}


@pytest.mark.slow
@pytest.mark.skipif(not fence.words(False).endswith("processes bounded"), reason="not all bounds are known on this system")
def test_the_greedy_are_bounded_and_torch_lives(tmp_path):
    torch = "import torch\nlayer = torch.nn.Linear(512, 512)\nlayer(torch.randn(64, 512)).sum().backward()"
    sources = [torch, *list(GREEDY.values())[: 3 if os.geteuid() else 2]]
    (tmp_path / "a.ipynb").write_text(notebook(START, *sources, ANSWER))
    grade = classroom.grade_file(tmp_path / "a.ipynb", tmp_path, "99", 60, 30, 0)
    assert grade.solved == 1, grade
    assert not grade.problem
    assert [cell["cell"] for cell in grade.cells] == list(range(3, 2 + len(sources)))
    assert "Memory" in grade.cells[0]["error"]
    assert "too large" in grade.cells[1]["error"]
    assert "GiB" in grade.fence


@pytest.mark.slow
@pytest.mark.skipif(bool(fence.why_not()), reason=fence.why_not())
def test_in_the_sandbox_nothing_else_is_seen_or_written(tmp_path):
    box, out = tmp_path / "in", tmp_path / "out"
    box.mkdir()
    out.mkdir()
    (box / "other.ipynb").write_text(notebook("secret = 1"))
    (out / "grades.csv").write_text("marks")
    spy = (
        f"import os, pathlib, socket\nopen('mine', 'w').write('x')\n"
        f"assert not list(pathlib.Path({str(box)!r}).iterdir()) and not list(pathlib.Path({str(out)!r}).iterdir())\n"
        f"for place in ({str(tmp_path / 'x')!r}, '/etc/x', os.path.expanduser('~/x')):\n"
        "    try:\n        open(place, 'w')\n    except OSError:\n        continue\n    raise SystemExit('written ' + place)\n"
        "assert len([pid for pid in os.listdir('/proc') if pid.isdigit()]) < 5\n"
        "assert set(dict(socket.if_nameindex()).values()) <= {'lo'}"
    )
    (box / "spy.ipynb").write_text(notebook(START, spy, ANSWER))
    grade = classroom.grade_file(box / "spy.ipynb", box, "99", 60, 20, 0, [box, out], True)
    assert (grade.solved, grade.problem, grade.cells) == (1, "", [])
    assert grade.fence.startswith("bwrap")
    deaf = "import time\nwhile True:\n    try:\n        time.sleep(77)\n    except BaseException:\n        pass"
    (box / "slow.ipynb").write_text(notebook(START, ANSWER, deaf))
    grade = classroom.grade_file(box / "slow.ipynb", box, "99", 4, 2, 0, [box, out], True)
    assert grade.solved == 1
    assert "stopped after 4 s" in grade.problem


def test_a_sandbox_that_cannot_be_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(fence.shutil, "which", lambda name: None)
    assert "bwrap" in fence.why_not()
    monkeypatch.setattr(fence.sys, "platform", "darwin")
    assert "needs Linux" in fence.why_not()
    assert "sandbox" in fence.words(False)
    assert json.dumps(fence.words(True))
