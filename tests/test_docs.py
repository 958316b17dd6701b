"""What the documents point to exists: files, folders, links, commands, the classes of the design map; and the numbers agree."""

import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import typer
import yaml

from fl_course.workbook.commands import parameters, sweep
from fl_course.workbook.commands.cli import app
from fl_course.workbook.grading import checks

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PLACES = (ROOT, ROOT / "fl_course", ROOT / "fl_course" / "federation", ROOT / "fl_course" / "data" / "datasets", ROOT / "docs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TORCH = next(line for line in PROJECT["dependencies"] if line.startswith("torch"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document):
    named = re.findall(r"`([\w./-]+/[\w./-]*|[\w/-]+\.(?:py|md|toml|txt|cff))`", document.read_text(encoding="utf-8"))
    made = {"reports/index.html", "reports/", ".bench/", ".venv/bin"}                # written by commands
    theirs = {"jupyterhub_config.py", "OWNER/NAME"}                                  # on the reader's machine
    missing = [name for name in named if name not in made | theirs and not re.search(r"NN|chNN", name)
               and not any((place / name).exists() for place in PLACES)]  # fmt: skip
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere_and_pictures_are_described(document):
    page = document.read_text(encoding="utf-8")
    assert all(len(" ".join(words.split())) >= 20 for words in re.findall(r"!\[([^\]]*)\]\(", page))
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        if not re.match(r"https?://", target):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_an_address_to_fill_in_says_so_beside_it(document):
    """A word in capitals in an address is no address: the section in which it stands says what to write for it."""
    for section in re.split(r"^## ", document.read_text(encoding="utf-8"), flags=re.M):
        for blank in re.findall(r"https?://\S*?/([A-Z]{3,}/[A-Z]{3,})\b", section):
            assert f"for `{blank}`" in section, blank


def test_nothing_else_has_an_address_to_fill_in():
    paths = ("README*.md", "CITATION.cff", "pyproject.toml", "Dockerfile", ".github/*/*", "source/*/*", "fl_course/**/*.py")
    files = [path for pattern in paths for path in ROOT.glob(pattern) if path.is_file()]
    assert len(files) > 100
    blank = re.compile(r"https?://[^\s\"')]*(?:OWNER|NAME|YOUR|example\.com|<\w+>)")
    assert [(path.name, found[0]) for path in files if (found := blank.search(path.read_text("utf-8")))] == []


def options():
    """Of every command of fl-course the options that it has, by the command's name."""
    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    found = {}
    for name, command in commands.items():
        parts = [command, *getattr(command, "commands", {}).values()]                               # deploy has two of its own
        found[name] = {"--help", *(word for part in parts for one in part.params for word in (*one.opts, *one.secondary_opts))}
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_that_are_named_have_the_options_that_are_named(document):
    known = options()
    page = document.read_text(encoding="utf-8")
    for line in re.findall(r"(?:(?:^ +|`)(?:\S*/)?fl-course|course\.py) ([a-z]+(?: [^\n`]*)?)(?:`|$)", page, re.M):
        verb, *rest = line.split("   ")[0].split()
        assert verb in {*known, "setup"}, line                                       # setup is course.py's own
        asked = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        passed_on = {"-k", "--no-browser"}  # to pytest, to JupyterLab
        assert asked <= known.get(verb, set()) | passed_on, line


def test_the_changes_name_every_command():
    [line] = re.findall(r"^- \*\*Commands\*\*: (.*?)\.", text("CHANGELOG.md"), re.M | re.S)
    assert set(re.findall(r"`(\w+)`", line)) == set(options())


def test_parameters_in_examples_are_those_of_the_lesson():
    """Of every document, and of what each command says of itself."""
    group = typer.main.get_command(app)
    pages = [path.read_text("utf-8") for path in DOCUMENTS] + [command.help or "" for command in group.commands.values()]
    lines = [line for page in pages for line in re.findall(r"fl-course (?:run|sweep) [^\n`·]* -p [^\n`·]*", page)]
    assert len(lines) > 3
    for line in lines:
        names = [word for word in line.split()[2:] if re.match(r"\d\d", word)]
        [verb, *_] = line.split()[1:]
        asked = re.findall(r"-p (\w+) (\S+)", line)
        lessons = [path for word in names for path in (ROOT / "notebooks").glob(f"{word[:2]}_*.ipynb")]
        assert lessons, line
        if verb == "run":
            parameters.choose(lessons, asked)
        else:
            sweep.grid(lessons[0], asked, ROOT)


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "docs/architecture.md"])
def test_the_experiment_that_is_shown_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", text(name), re.M | re.S)
    assert blocks
    for block in blocks:
        short = re.sub(r"rounds=\d+", "rounds=1", block)
        assert short != block
        exec(compile(short, name, "exec"), {})
    plt.close("all")


def told(name):
    """What a README tells in any language: headings, links, commands, names in code, and the experiment without its remarks."""
    page = text(name)
    prose = re.sub(r"^```.*?^```", "", page, flags=re.M | re.S)
    commands = re.findall(r"^    (?:\w+=\S+ )?((?:python3 course\.py|fl-course) .*?)(?: {3,}.*)?$", prose, re.M)
    return {
        "headings": re.findall(r"^(##?) ", prose, re.M),
        "links": sorted(set(re.findall(r"\]\(([^)\s]+)\)", prose)) - {"README.md", "README.zh-CN.md"}),
        "experiment": [re.sub(r" *#.*", "", block) for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)],
        "commands": set(commands),
        "code": {" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)},
        "files": re.findall(r"^ {4,6}([\w.]+(?:/|\.py))(?= )", prose, re.M),
    }


def test_both_readmes_tell_the_same():
    """The Chinese one may say more: mirrors, a list of words, what was wrong in the first sketches."""
    ours, theirs = told("README.md"), told("README.zh-CN.md")
    for what in ("headings", "links", "experiment", "files"):
        assert ours[what] == theirs[what], what
    for what in ("commands", "code"):
        assert ours[what] - theirs[what] == set(), what
    assert len(ours["headings"]) > 5
    assert min(map(len, ours.values())) > 0


# --- the design map --------------------------------------------------------------------------------------------------


def rows():
    lines = text("docs/design-map.md").splitlines()
    heads = ("| system", "| in the document")
    return [line.split("|")[2] for line in lines if line.startswith("| ") and not line.startswith(heads)]


def resolve(words, found):
    for word in words:
        if word in getattr(found, "__dataclass_fields__", ()):                      # a field without a default is no attribute
            return found
        found = getattr(found, word)
    return found


@pytest.mark.parametrize("cell", rows())
def test_the_design_map_names_what_exists(cell):
    """A dotted name is a module, or something in one; a bare name is in the module, the room or the class named before it."""
    homes = []
    for name in re.findall(r"`([\w.]+)`", cell):
        words = name.split(".")
        for cut in range(len(words), 0, -1):
            path = ROOT / "fl_course" / Path(*words[:cut])
            if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
                module = importlib.import_module(".".join(["fl_course", *words[:cut]]))
                room = importlib.import_module(module.__name__.rpartition(".")[0])
                homes = [resolve(words[cut:], module), module, room, importlib.import_module("fl_course")]
                break
        else:
            assert any(hasattr(home, words[0]) or words[0] in getattr(home, "__dataclass_fields__", ()) for home in homes), name


def names_of_the_document():
    """{class: its names}: a list of our own, made from the document once."""
    lines = [line for line in text("tests/fixtures/design_names.txt").splitlines() if line and not line.startswith("#")]
    return {kind: names.split() for kind, _, names in (line.partition(": ") for line in lines)}


@pytest.mark.parametrize("kind", names_of_the_document())
def test_every_name_of_the_design_document_has_its_row(kind):
    sections = dict(re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", text("docs/design-map.md"), re.M | re.S))
    section = sections["What it names in words" if kind == "words" else kind]
    left = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| "))
    there = set(re.findall(r"`(\w+)`", left)) if kind != "words" else left
    wanted = [kind, *names_of_the_document()[kind]] if kind != "words" else names_of_the_document()[kind]
    assert [name for name in wanted if name not in there] == []
    if kind != "words":
        assert there <= set(wanted), "the design map names what the document does not"


# --- numbers that stand in two places --------------------------------------------------------------------------------


def lessons():
    """{number: minutes} as the lessons themselves say."""
    found = {}
    for path in sorted((ROOT / "source" / "lessons").glob("[0-9]*.py")):
        found[path.name[:2]] = re.search(r"About (\d+) minutes", path.read_text("utf-8"))[1]
    return found


def table(name, key):
    """{number: cells} of the rows that begin with a lesson's number."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text(name).splitlines() if re.match(key, line)]
    return {re.search(r"\d\d", row[0])[0]: row for row in cells}


@pytest.mark.parametrize(("name", "column"), [("README.md", 2), ("README.zh-CN.md", 2), ("docs/teaching.md", 1)])
def test_the_tables_give_each_lesson_the_minutes_that_it_gives_itself(name, column):
    found = table(name, r"\| \[?\d\d\b")
    assert sorted(found) == [f"{number:02}" for number in range(13)]
    assert {number: found[number][column] for number in lessons()} == lessons()


@pytest.mark.parametrize(("name", "words"), [("README.md", r"(\w+teen) lessons"), ("CITATION.cff", r"(\w+) Jupyter lessons"),
                                             ("README.zh-CN.md", "(十.)课")])  # fmt: skip
def test_the_lessons_are_counted(name, words):
    said = {13: ("thirteen", "十三"), 14: ("fourteen", "十四")}[len(table("README.md", r"\| \[\d\d\b"))]
    assert re.search(words, text(name))[1] in said


def test_the_teachers_table_counts_the_exercises():
    for number, row in table("docs/teaching.md", r"\| \d\d\b").items():
        try:
            exercises = checks.chapter(number)
        except (LookupError, ValueError, ImportError):
            exercises = ()
        told = (str(len(exercises)), str(sum(one.minutes for one in exercises))) if exercises else ("–", "–")
        assert (row[2], row[3]) == told, number


# --- the front door: what other people's tools read ------------------------------------------------------------------


def test_the_film_is_small_enough_to_be_waited_for():
    assert (ROOT / "docs" / "explorer.gif").stat().st_size < 500_000
    assert (ROOT / "docs" / "explorer.gif").read_bytes()[:6] == b"GIF89a"


def test_the_citation_is_one_and_of_this_version():
    cited = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors", "version", "license", "date-released"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert f"## {PROJECT['version']}\n" in text("CHANGELOG.md")


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name)
def test_issue_templates_are_forms(path):
    form = yaml.safe_load(path.read_text("utf-8"))
    if path.name == "config.yml":
        assert set(form) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids)
    for part in form["body"]:
        assert part["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert part["attributes"]["label"]


PYTHON = re.search(r"on Python (\d\.\d+)", text("constraints.txt"))[1]


def requirements_of(command):
    """Does a pip command, or a file of requirements, take the CPU build, our constraints, and torch in our words?"""
    return all(part in command for part in ("--extra-index-url https://download.pytorch.org/whl/cpu", "constraints.txt", TORCH))


def test_the_container_takes_the_small_torch_the_constraints_and_no_rights():
    lines = [line for line in text("Dockerfile").splitlines() if line and not line.startswith("#")]
    [base] = [line for line in lines if line.startswith("FROM")]
    assert re.fullmatch(rf"FROM python:{PYTHON}-slim-\w+", base)                    # of that Python the constraints are
    installs = [line for line in lines if "pip install" in line]
    assert requirements_of(installs[0])
    assert all("-c constraints.txt" in line for line in installs)
    users = [number for number, line in enumerate(lines) if line.startswith("USER")]
    assert lines[users[-1]] == "USER learner"
    assert not any(line.startswith("USER root") for line in lines)
    assert users[-1] < next(number for number, line in enumerate(lines) if line.startswith("CMD"))
    assert text("course.py").count(f'"{TORCH}"') == 1


def test_all_that_the_container_copies_is_there_and_not_ignored():
    allowed = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = {name for line in text("Dockerfile").splitlines() if line.startswith("COPY") for name in line.split()[1:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    package = tomllib.loads(text("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*package["packages"], *package["force-include"]} <= copied


def test_binder_and_codespaces_take_the_same():
    assert text("binder/runtime.txt").strip() == f"python-{PYTHON}"
    wanted = [line for line in text("binder/requirements.txt").splitlines() if not line.startswith("#")]
    assert requirements_of("\n".join(wanted))
    assert "-c ../constraints.txt" in wanted                                         # pip reads it from the file's own folder
    assert wanted[-1] == "-e ."
    there = json.loads(text(".devcontainer/devcontainer.json"))
    assert there["image"].split(":")[1].startswith(PYTHON)
    assert there["postCreateCommand"] == "python3 course.py setup"
    assert there["remoteUser"] != "root"


ON_COLAB = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in "jupyterlab papermill nbclient nbconvert jupytext ipykernel typer rich".split():
            raise ImportError(f"{name} is not what it is here")

sys.meta_path.insert(0, Absent())
from fl_course import *
from fl_course.workbook import check, report
from fl_course.workbook.lesson import canvas, refusal, show
from fl_course.workbook.widgets.fraction import client_fraction_explorer
print(*client_fraction_explorer()._repr_mimebundle_()[0])
"""


def test_colab_gets_pinned_packages_and_lessons_need_none_of_jupyters_commands():
    [line] = [line for line in text("docs/elsewhere.md").splitlines() if "%pip install" in line]
    assert "--no-deps -c course/constraints.txt" in line                             # Colab's own must stay as they are
    for name in line.split("constraints.txt")[1].split()[:-1]:
        assert f"\n{name}==" in text("constraints.txt"), name
    said = subprocess.run([sys.executable, "-c", ON_COLAB], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "image/png" in said.stdout.split(), said.stderr[-2000:]


def test_what_is_fenced_is_said_for_each_thing_that_grading_bounds():
    page = text("SECURITY.md")
    for word in ("bwrap", "memory", "processes", "connections", "reading files", "writing files", "copied"):
        assert word in page, word


# --- the site --------------------------------------------------------------------------------------------------------


def test_the_site_leads_to_every_page_and_every_room():
    """Sphinx takes the rest of the folder by the star, and the rooms from the package; what is named by hand is there."""
    named = re.findall(r"^([\w/-]+)$", text("docs/index.md"), re.M)
    pages = [name for name in named if name not in ("LESSONS", "api/modules")]
    assert pages
    assert all((ROOT / "docs" / f"{name}.md").exists() for name in pages)
    assert "\n*\n" in text("docs/index.md")
    asked = [re.match(r"[\w-]+", line)[0] for line in PROJECT["optional-dependencies"]["docs"]]
    assert asked == ["sphinx", "myst-parser", "furo"]
    assert all(f"\n{name}==" in text("constraints.txt").lower() for name in asked)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="no Sphinx here (pip install -e .[docs])")
def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("api"))      # Sphinx writes into its source
    conf = text("docs/conf.py").replace("Path(__file__).resolve().parents[1]", f"Path({str(ROOT)!r})")
    (tmp_path / "docs" / "conf.py").write_text(conf, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", tmp_path / "docs", tmp_path / "site"]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert built.returncode == 0, built.stderr[-3000:]
    site = tmp_path / "site"
    assert "Federated averaging" in (site / "index.html").read_text("utf-8")
    asks = re.compile(r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+rel="stylesheet"[^>]+href="https?:')
    assert [page.name for page in site.rglob("*.html") if asks.search(page.read_text("utf-8"))] == []
    lessons = {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert lessons == {path.stem for path in (site / "lessons").glob("[0-9]*.html")}
    assert all(f'href="lessons/{name}.html"' in (site / "index.html").read_text("utf-8") for name in lessons)
    room = (site / "api" / "fl_course.drift.html").read_text("utf-8")
    assert "FedProx" in room
