"""Into the school's system: whose a file is, what it weighs, which of several counts, the tables for import, the class's page."""

import csv
import io
import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_desk import ANSWER, NAMES, START, entry, notebook
from typer.testing import CliRunner

from fl_course.workbook.commands.cli import app
from fl_course.workbook.grading import roster, school
from fl_course.workbook.grading.gradebook import Grade, percent
from fl_course.workbook.grading.overview import histogram, need, overview
from fl_course.workbook.grading.roster import Owner, Person

pytestmark = pytest.mark.timeout(600)
ANNA = Person("s1001", "Anna Müller", "anna@example.org", "annam")
BEN = Person("s1002", "Ben O'Neil", "ben@example.org", "b-n")
EVA = Person("s1003", "Eva Maria Groß", "eva@example.org", "n")
CLASS = [ANNA, BEN, EVA]


# --- the class list --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "\ufeffid,name,email\ns1001,Anna Müller,anna@example.org\n\n",
    "ID number;Full name;Email address;Group\r\ns1001;Anna Müller;anna@example.org;A\r\n",
    "First name\tSurname\tStudent ID\tE-Mail\nAnna\tMüller\ts1001\tanna@example.org\n",
    'Student,ID,SIS User ID,SIS Login ID\n"Anna Müller",s1001,x,anna@example.org\n',
])  # fmt: skip
def test_class_lists_of_several_makers(tmp_path, text):
    (tmp_path / "list.csv").write_bytes(text.encode())
    (person,) = roster.read_roster(tmp_path / "list.csv")
    assert (person.id, person.name, person.email) == ("s1001", "Anna Müller", "anna@example.org")


@pytest.mark.parametrize(("data", "words"), [
    (b"", "first line"), (b"a,b\n1,2\n", "first line"),
    ("id,name\n1,M\xfcller".encode("latin-1"), "UTF-8"), (b"id,name\n1,A\n1,B", "twice"),
    (b"id,name\n,A", "nobody's id in line 2"), (b"PK\x03\x04\0\0", "list.csv"), ("id,name\n1,A".encode("utf-16"), "UTF-8"),
])  # fmt: skip
def test_a_bad_class_list_is_refused_in_a_sentence(tmp_path, data, words):
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        roster.read_roster(tmp_path / "list.csv")
    with pytest.raises(ValueError, match="cannot be read"):
        roster.read_roster(tmp_path)


@given(st.binary(max_size=120) | st.text(alphabet='id,name;\n"\t1a ', max_size=60).map(str.encode))
def test_any_class_list_is_people_or_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("list") / "list.csv"
    path.write_bytes(data)
    try:
        people = roster.read_roster(path)
    except ValueError as error:
        people, said = [], str(error)
        if str(path) not in said:
            raise
    assert len({person.id for person in people}) == len(people)


@pytest.mark.parametrize(("name", "person"), [
    ("Anna Müller_1234567_assignsubmission_file_/01.ipynb", ANNA), ("Müller Anna_1234567_assignsubmission_file_/x.ipynb", ANNA),
    ("Anna Mueller_7_assignsubmission_file_/s1002.ipynb", None),                      # the system's part decides
    ("Ben O'Neil_99_assignsubmission_file_01.ipynb", BEN), ("mulleranna_123_4567_01.ipynb", ANNA),
    ("grossevamaria_LATE_3_4_Eva-2.ipynb", EVA), ("homework-1-annam/01.ipynb", ANNA), ("homework-1-b-n/01.ipynb", BEN),
    ("homework-1-n/01.ipynb", EVA), ("anna_mueller_01.ipynb", ANNA), ("Anna Müller/01.ipynb", ANNA), ("s1002.ipynb", BEN),
    ("eva@example.org.ipynb", EVA), ("zip/s1003.zip/01.ipynb", EVA), ("01_fedavg.ipynb", None), ("s10021.ipynb", None),
    ("xeva@example.org", None), ("", None),
])  # fmt: skip
def test_whose_is_it(name, person):
    beside = ["homework-1-q/x", "homework-1-annam/y"] if name.startswith("homework") else []
    assert roster.owners([name, *beside], CLASS)[name].person == person


def test_systems_without_a_class_list():
    found = roster.owners(["Jo X_12_assignsubmission_file_/a.ipynb", "xjo_LATE_5_6_a-3.ipynb", "hw-jo/a", "hw-al/a", "a.ipynb"])
    moodle, canvas, github, other, none = found.values()
    assert (moodle.key, moodle.name, moodle.system_id) == ("moodle 12", "Jo X", "12")
    assert (canvas.key, canvas.late, canvas.attempt, canvas.system) == ("canvas 5", True, 3, "canvas")
    assert (github.name, other.name, none) == ("jo", "al", Owner())


def test_two_of_one_name_are_nobody():
    people = [Person("1", "Jo X"), Person("2", "X Jo"), Person("01", "Q Q")]
    assert roster.owners(["Jo X_12_assignsubmission_file_/a", "jo_x.ipynb", "01_a.ipynb"], people)["jo_x.ipynb"] == Owner()
    found = roster.owners(["Jo X_12_assignsubmission_file_/a", "Jo X_13_assignsubmission_file_/a"], people)
    assert len({one.key for one in found.values()}) == 2
    assert roster.owners(["01_a.ipynb"], people)["01_a.ipynb"].person is None


@given(st.lists(st.text(max_size=60), max_size=6, unique=True))
def test_any_name_has_an_owner_or_none(names):
    assert set(roster.owners(names, CLASS)) == set(names)


# --- weights, duplicates ---------------------------------------------------------------------------------------------


def test_weights(tmp_path):
    assert set(school.weights_of("99", "").values()) == {1.0}
    assert school.weights_of("99", "difficulty").keys() == set(NAMES)
    path = tmp_path / "w.csv"
    path.write_text("exercise;weight\n" + "".join(f"{name};{i},5\n" for i, name in enumerate(NAMES)), encoding="utf-8-sig")
    weights = school.weights_of("99", str(path))
    assert weights == {name: i + 0.5 for i, name in enumerate(NAMES)}
    half = Grade("a", {name: {"state": "pass" if name == NAMES[0] else "fail", "message": "", "hint": ""} for name in NAMES}, 1.0)
    assert percent(half, weights) == round(100 * 0.5 / sum(weights.values()), 1)
    assert percent(half, {}) == 33.3


@pytest.mark.parametrize(("text", "words"), [
    ("", "no weight for"), ("clip,x", "a number"), ("clip", "a number"), ("nothing,1", "no exercise"),
    ("clip,-1", "not a number from 0"),
    ("clip,nan", "not a number from 0"), ("clip,1\n99.clip,2", "twice"), ("clip,1", "no weight for"),
    ("clip,0\nweighted_average,0\nsample_clients,0", "all weights are 0"),
])  # fmt: skip
def test_bad_weights_are_refused(tmp_path, text, words):
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        school.weights_of("99", str(tmp_path / "w.csv"))
    with pytest.raises(ValueError, match="difficulty"):
        school.weights_of("99", "dificulty")


def test_the_newest_that_can_be_graded_counts(tmp_path):
    names = {"old.ipynb": START + "\ncheck('99.clip', 1)", "new.ipynb": START + "\ncheck('99.clip', 1)", "newest.ipynb": "x = 1"}
    paths = {}
    for i, (name, source) in enumerate(names.items()):
        paths[name] = tmp_path / name
        paths[name].write_text(notebook(source))
        os.utime(paths[name], (1000 + i, 1000 + i))
    whose = {name: Owner("id 1", ANNA) for name in names}
    assert school.counting(paths, whose, "99") == {"old.ipynb": "new.ipynb", "new.ipynb": "", "newest.ipynb": "new.ipynb"}
    assert set(school.counting(paths, {name: Owner() for name in names}, "99").values()) == {""}
    whose["old.ipynb"] = Owner("id 1", ANNA, attempt=2, late=True)
    instead = school.counting(paths, whose, "99")
    assert instead["new.ipynb"] == "old.ipynb"
    assert school.notes("old.ipynb", whose, instead) == "late"
    assert "old.ipynb is newer" in school.notes("new.ipynb", whose, instead)


# --- tables ----------------------------------------------------------------------------------------------------------


def exported(tmp_path, kind):
    grades = [entry("a.ipynb"), entry("a_old.ipynb", "fail"), entry("=1+1.ipynb")]
    whose = {"a.ipynb": Owner("id s1001", ANNA, "mulleranna", "123", "canvas"), "a_old.ipynb": Owner("id s1001", ANNA)}
    instead = {"a_old.ipynb": "a.ipynb"}
    path = school.export(kind, tmp_path, grades, whose, instead, CLASS, {}, "Homework (7)")
    return path.read_bytes()


def test_what_moodle_imports(tmp_path):
    rows = list(csv.DictReader(io.StringIO(exported(tmp_path, "moodle").decode())))
    assert [(row["ID number"], row["Email address"], row["Grade"]) for row in rows] == [
        ("", "", "100"), ("s1001", "anna@example.org", "100"), ("s1002", "ben@example.org", ""), ("s1003", "eva@example.org", "")]
    assert rows[0]["Full name"] == "'=1+1.ipynb"


def test_what_canvas_imports(tmp_path):
    header, points, *rows = csv.reader(io.StringIO(exported(tmp_path, "canvas").decode()))
    assert header == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Homework (7)"]
    assert (points[0].strip(), points[-1]) == ("Points Possible", "100")
    assert rows[1] == ["Anna Müller", "123", "s1001", "anna@example.org", "", "100"]


def test_what_excel_opens(tmp_path):
    data = exported(tmp_path, "csv")
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert [row["note"] for row in rows] == ["", "", "nothing handed in", "nothing handed in"]


# --- the page of the class -------------------------------------------------------------------------------------------


def ran(name, states, hint=""):
    found = {one: {"state": state, "message": "m", "hint": hint} for one, state in zip(NAMES, states, strict=True)}
    return Grade(name, found, 1.0, fence="up")


def test_the_page_of_the_class():
    first, second, third = NAMES
    grades = [ran("<b>.ipynb", ["pass", "fail", "todo"], "<i>look</i>"), ran("b.ipynb", ["pass", "fail", "fail"], "<i>look</i>"),
              ran("old.ipynb", ["fail"] * 3), entry("pdf", "todo")]  # fmt: skip
    names, notes, instead = {"b.ipynb": "Ben & Co"}, {"old.ipynb": "does not count"}, {"old.ipynb": "b.ipynb"}
    page = overview(grades, "99", {}, names, notes, instead, ["Eva"], "up")
    assert need(grades[:2], "99") == [second, third]
    assert "4 files, 2 of them ran" in page
    assert re.search(rf"{second}.*?&lt;i&gt;look&lt;/i&gt; \(2\)", page)
    assert "<i>" not in page
    assert "<b>" not in page
    assert "Ben &amp; Co" in page
    assert "Eva" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"https?:|<script|@import", page)
    assert first in page
    assert "Everybody solved" in overview([ran("a", ["pass"] * 3)], "99", {})
    assert overview([], "99", {}).endswith("</html>\n")


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_the_histogram_counts_everybody_once(marks):
    bars = re.findall(r'>(\d+)</text><text x="\d+" y="168" text-anchor="middle">\d+</text>', histogram(marks))
    said = histogram(marks).split("On average")[1]
    for counts in (bars, re.findall(r"%: (\d+)", said)):
        assert sum(map(int, counts)) == len(marks)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_whole_way(tmp_path):
    box, out = tmp_path / "in", tmp_path / "out"
    handed = {
        "Anna Müller_1_assignsubmission_file_/a.ipynb": [START, ANSWER], "s1002.ipynb": [START],
        "s1002_v2.ipynb": [START, "check('99.clip', lambda delta, bound: delta)"], "who.ipynb": ["x = 1"],
    }  # fmt: skip
    for name, sources in handed.items():
        (box / name).parent.mkdir(parents=True, exist_ok=True)
        (box / name).write_text(notebook(*sources))
    people = "id,name,email\ns1001,Anna Müller,a@x\ns1002,Ben Y,b@x\ns1003,Eva Z,e@x\n"
    (tmp_path / "list.csv").write_text(people, encoding="utf-8-sig")
    command = ["grade", str(box), "--chapter", "99", "--out", str(out), "--roster", str(tmp_path / "list.csv")]
    command += ["--format", "moodle", "--weights", "difficulty"]
    for _ in range(2):                        # the second time from what is done
        result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        with (out / "moodle.csv").open(encoding="utf-8", newline="") as file:
            marks = {row["ID number"]: row["Grade"] for row in csv.DictReader(file)}
        with (out / "grades.csv").open(encoding="utf-8", newline="") as file:
            rows = {row["file"]: row for row in csv.DictReader(file)}
        anna = rows["Anna Müller_1_assignsubmission_file_/a.ipynb"]
        assert (anna["id"], anna["name"], anna["email"], float(anna["percent"])) == ("s1001", "Anna Müller", "a@x", 50)
        assert (marks["s1001"], marks["s1002"], marks["s1003"]) == ("50", "0", "")
        assert "Anna Müller, chapter 99" in (out / "feedback" / anna["page"]).read_text(encoding="utf-8")
        assert "Eva Z" in (out / "index.html").read_text(encoding="utf-8")
        assert "who.ipynb" in result.output
    assert json.loads((out / "marks.jsonl").read_text(encoding="utf-8").split("\n")[1])["grade"]["exercises"].keys() == set(NAMES)


@pytest.mark.parametrize(("words", "said"), [
    (["--format", "excel"], "--format takes"),
    (["--roster", "nowhere.csv"], "cannot be read"), (["--weights", "heavy"], "difficulty"),
])  # fmt: skip
def test_what_cannot_be_is_said_before_anything_runs(tmp_path, words, said):
    (tmp_path / "a.ipynb").write_text(notebook(START))
    result = CliRunner().invoke(app, ["grade", str(tmp_path), "--chapter", "99", "--out", str(tmp_path / "out"), *words])
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "out").exists()
