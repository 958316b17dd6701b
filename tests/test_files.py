"""Files: whole or not at all, whoever writes them; and files from outside are read, never run."""

import ast
import errno
import json
import os
import pickle
import stat
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from small import experiment, federation

import fl_course as fl
from fl_course.federation.telemetry import from_json_line, json_line, prometheus
from fl_course.files import write, write_all
from fl_course.workbook.commands import runner, sweep
from fl_course.workbook.grading import intake
from fl_course.workbook.grading.cards import RESULT_MIME, reported
from fl_course.workbook.grading.gradebook import Gradebook
from fl_course.workbook.grading.roster import read_roster

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="devices and rights of POSIX")


@pytest.fixture(scope="module")
def run():
    it = experiment()
    return it, it.train(2)


WRITERS = {
    "save": lambda run, path: fl.save(path, run[1].state, run[0]),
    "to_json": lambda run, path: run[1].to_json(path),
    "to_csv": lambda run, path: run[1].to_csv(path),
    "to_notebook": lambda run, path: run[1].to_notebook(path, run[0]),
    "telemetry": lambda run, path: write(path, prometheus(run[1].records[-1])),
    "table of a sweep": lambda run, path: sweep.write_table([{"lr": 0.1, "loss": 1.0}], path),
    "figure of a sweep": lambda run, path: sweep.draw([{"lr": 0.1, "loss": 1.0}], ["lr"], path, "a sweep"),
    "two at once": lambda run, path: write_all({path.with_name("first"): "one", path: "two"}),
}  # fmt: skip


@pytest.fixture(params=["open", "fdopen", "fsync", "replace"])
def full(request, monkeypatch):
    """A disk that is full when a file is made, written, flushed or renamed."""
    true = getattr(os, request.param)

    def no(*arguments, **more):
        if request.param == "open" and not str(arguments[0]).endswith(".part"):
            return true(*arguments, **more)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, request.param, no)
        yield
    assert getattr(os, request.param) is true


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_told_and_the_older_file_stays(name, older, run, full, tmp_path):
    path = tmp_path / "out.ipynb"
    if older:
        with path.open("wb") as file:
            file.write(b"the older one")
    before, records = run[1].state.server.params.copy(), list(run[1].records)
    with pytest.raises(OSError, match="No space left on device") as why:
        WRITERS[name](run, path)
    assert why.value.errno == errno.ENOSPC
    assert why.value.filename in (str(path), str(path.with_name("first")))        # the file that was asked for
    assert [p.name for p in tmp_path.iterdir()] == ["out.ipynb"] * older
    assert not older or path.read_bytes() == b"the older one"
    assert run[1].records == records                                              # what was trained is still there
    assert np.array_equal(run[1].state.server.params, before)


@pytest.mark.parametrize("name", WRITERS)
def test_where_there_is_room_it_is_whole_and_alone(name, run, tmp_path):
    path = tmp_path / "out.ipynb"
    path.write_bytes(b"the older one")
    WRITERS[name](run, path)
    assert {p.name for p in tmp_path.iterdir()} <= {"out.ipynb", "first", "out.npz"}
    assert path.read_bytes() != b"the older one"


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "to_notebook"])
def test_a_folder_that_is_none_is_told(name, run, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "file" / "out", tmp_path / "nowhere" / "out"):
        with pytest.raises((OSError, fl.CheckpointError), match=str(path.parent.name)) as why:
            WRITERS[name](run, path)
        assert ".part" not in str(why.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_was_computed_is_kept_elsewhere_and_said(tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    kept, sentence = runner.keep({"fedavg.json": b"{}"}, tmp_path / "out")
    assert kept[0].read_bytes() == b"{}"
    assert sentence.startswith(f"{tmp_path / 'out'} cannot be written")
    assert str(kept[0].parent) in sentence


@posix
def test_devices_links_and_rights(run, tmp_path):
    if Path("/dev/full").exists():
        for name in ("to_json", "to_csv", "telemetry"):
            with pytest.raises(OSError, match="No space left"):
                WRITERS[name](run, Path("/dev/full"))
        assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    run[1].to_json("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)                         # a device is written to, and stays one
    (tmp_path / "true").write_text("old")
    (tmp_path / "true").chmod(0o640)
    (tmp_path / "link").symlink_to("true")
    write(tmp_path / "link", "new")
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "true").read_text()) == (True, "new")
    assert stat.S_IMODE((tmp_path / "true").stat().st_mode) == 0o640
    write(tmp_path / "link", "mine", secret=True)
    assert stat.S_IMODE((tmp_path / "true").stat().st_mode) == 0o600
    mask = os.umask(0o027)
    try:
        write(tmp_path / "fresh", "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="rights that hold for oneself")
@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_without_rights_is_told(name, run, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="out"):
        WRITERS[name](run, tmp_path / "out.ipynb")
    tmp_path.chmod(0o700)


def test_all_files_are_written_in_one_place():
    """`open(…, "w")`, `write_text` and the like stand where a comment or this list says why."""
    own = {
        "files.py": "the place itself",
        "workbook/commands/kernels.py": "a folder of the moment", "workbook/commands/orphans.py": "likewise",
        "workbook/commands/validate.py": "likewise", "workbook/grading/worker.py": "the null device",
        "workbook/grading/gradebook.py": "lines that are added, and a trial",
        "deploy/environment.py": "a fresh environment", "deploy/export.py": "a fresh folder", "deploy/local.py": "likewise",
        "deploy/certificates.py": "a fresh folder", "deploy/scenes.py": "a fresh folder",
    }  # fmt: skip
    found = set()
    for path in (ROOT / "fl_course").rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)):
            name = dotted(call.func).split(".")[-1]
            words = [part.value for part in (*call.args[:2], *(k.value for k in call.keywords)) if isinstance(part, ast.Constant)]
            opens = name == "open" and any(word in ("w", "wb", "wt", "a", "ab", "x", "xb", "r+b") for word in words)
            saves = name == "savefig" and not (call.args and isinstance(call.args[0], ast.Name | ast.NamedExpr))
            if name in ("write_text", "write_bytes", "mkstemp", "savez", "savez_compressed") or opens or saves:
                found.add(path.relative_to(ROOT / "fl_course").as_posix())
    found -= {"federation/notebook.py"}                                           # savez_compressed, into memory
    assert found <= set(own), found - set(own)


# --- files from outside ----------------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def torn(reader, kind=ValueError):
    def read(path):
        with pytest.raises(kind):
            reader(path)
    return read  # fmt: skip


READERS = {
    "checkpoint": torn(lambda path: fl.load(path, experiment()), fl.CheckpointError),
    "history": torn(lambda path: fl.History.from_json("{" + path.read_text(encoding="latin-1"))),
    "history's file": torn(fl.History.from_json),
    "a record": torn(lambda path: from_json_line(path.read_text(encoding="latin-1"))),
    "trace": torn(fl.Trace.read),
    "class list": torn(read_roster),
    "submission": lambda path: intake.cells_of(path.name, path.read_bytes()),
    "marks": lambda path: Gradebook(path.parent, {}).open(),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_never_opened(name, protocol, tmp_path):
    path = tmp_path / "marks.jsonl"
    for content in (pickle.dumps(Bomb(tmp_path / "executed"), protocol), b"\x80\x04N.", b"cposix\nsystem\n(S'true'\ntR."):
        path.write_bytes(content)
        READERS[name](path)
        assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("checkpoint", "trace", "class list")])
def test_json_without_an_end_is_told_too(name, tmp_path):
    path = tmp_path / "marks.jsonl"
    path.write_text('{"records": ' + "[" * 100_000, encoding="utf-8")
    READERS[name](path)


@pytest.mark.parametrize("bundle", [
    [1, 2], "no json", "[3]", 7, "[" * 100_000, None, {"x": [1]}, {"x": {"y": "__import__('os')"}},
], ids=lambda bundle: repr(bundle)[:20])  # fmt: skip
def test_numbers_that_somebody_elses_notebook_reports_are_numbers_or_nothing(bundle):
    output = {"output_type": "execute_result", "data": {RESULT_MIME: bundle}, "metadata": {}}
    found = reported(SimpleNamespace(cells=[nbformat.from_dict({"cell_type": "code", "source": "", "outputs": [output]})]))
    assert found == (bundle if isinstance(bundle, dict) else {})


def dotted(node):
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


# file: what it calls, and why no stranger has a say in it
NAMED = {
    "federation/processes.py": {"pickle.loads"},             # this program's own children, through a pipe
    "federation/notebook.py": {"eval", "compile"},           # the text that it has just made of the experiment at hand
    "workbook/own.py": {"exec", "compile"},                  # a learner's own library, on the learner's own machine and wish
    "workbook/grading/worker.py": {"shell.system"},          # IPython's, which is replaced here so that nothing is started
    # What comes from a student's side is read by carry.py's Unpacker, which knows a few types by name and refuses all others.
    "workbook/grading/judge.py": {"pickle.Unpickler.__init__", "pickle.Pickler.__init__"},
    "../tools/exercise_cells.py": {"compile"}, "../tools/notebook_sources.py": {"compile"},       # to a tree; nothing is run
}  # fmt: skip
RUNS = {"eval", "exec", "compile", "__import__", "execfile"}
LOADS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "pty"}


def calls(path):
    """What in a file could run a stranger's bytes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name, options = dotted(node.func), {keyword.arg: keyword.value for keyword in node.keywords}
        last, says = name.split(".")[-1], {key: getattr(value, "value", None) for key, value in options.items()}
        dangerous = (
            name in RUNS or (name.split(".")[0] in LOADS and last not in ("dumps", "PicklingError", "UnpicklingError"))
            or (name == "torch.load" and says.get("weights_only") is not True) or says.get("allow_pickle", False) is not False
            or (last in ("load", "load_all", "unsafe_load") and name.startswith("yaml.")) or says.get("shell", False) is not False
            or (last in ("system", "popen") and not name.startswith("platform.")) or last in ("run_path", "exec_module", "spawnl")
        )  # fmt: skip
        if dangerous:
            yield name


def test_no_file_of_ours_runs_what_it_reads():
    files = [*(ROOT / "fl_course").rglob("*.py"), *(ROOT / "tools").glob("*.py"), ROOT / "course.py"]
    found = {os.path.relpath(path, ROOT / "fl_course").replace(os.sep, "/"): set(calls(path)) for path in files}
    assert {name: what - NAMED.get(name, set()) for name, what in found.items() if what - NAMED.get(name, set())} == {}


@pytest.mark.parametrize("line", [
    "pickle.loads(x)", "torch.load(x)", "np.load(x, allow_pickle=True)", "eval(x)", "exec(x)", "yaml.load(x)", "os.system(x)",
    "subprocess.run(x, shell=True)", "marshal.loads(x)", "runpy.run_path(x)", "torch.load(x, weights_only=False)",
    "np.load(x, allow_pickle=yes)",
])  # fmt: skip
def test_this_test_sees_it(line, tmp_path):
    (tmp_path / "x.py").write_text(f"y = {line}\n")
    assert list(calls(tmp_path / "x.py")) == [line.partition("(")[0]]
    for harmless in ("torch.load(x, weights_only=True)", "np.load(x)", "json.loads(x)", "ast.literal_eval(x)",
                     "platform.system()"):  # fmt: skip
        (tmp_path / "x.py").write_text(f"y = {harmless}\n")
        assert list(calls(tmp_path / "x.py")) == []


def test_arrays_that_a_notebook_needs_hold_no_objects(tmp_path):
    data = federation()
    it = experiment(data)
    history = it.train(1)
    history.to_notebook(tmp_path / "run.ipynb", it)
    with np.load(tmp_path / "run.npz", allow_pickle=False) as stored:
        assert all(array.dtype.kind in "fiubU" for array in stored.values())
    assert "allow_pickle" not in (tmp_path / "run.ipynb").read_text(encoding="utf-8")
    assert json.loads(json_line(history.records[0]))["version"] == 1
