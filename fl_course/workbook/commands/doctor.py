"""What is wrong with this installation, and how to mend it. Needs nothing but the standard library to begin with:

    fl-course doctor            or, if that does not even start,            python path/to/doctor.py

Metadata say what was installed, not whether it works. So every package is imported by the Python of the kernel that
JupyterLab would start, that kernel runs a cell with a widget, and a page is made.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
SPACE = 500_000_000                                              # bytes that reports and a data cache may take
MODULES = {"scikit-learn": "sklearn", "ipython": "IPython"}      # distributions whose module has another name
MEMORY = 2_000_000_000                                           # bytes; a lesson in Lab takes about one
SIGNS = "εσμαδ ≤ × → − ² ᵀ"                                      # that pictures write
TORCH = """
import torch
print(torch.__version__, torch.version.cuda, int(torch.cuda.is_available()), float((torch.ones(2, 3) @ torch.ones(3)).sum()))
"""
CELL = """
import sys
import fl_course
from fl_course.workbook.widgets import Chart, Explorer, Point, Slider
explorer = Explorer(lambda n: iter([Point({"a": (1, n)})]), [Slider("n", 1, 2)], [Chart("a", x="x", y="y")], title="doctor")
print(sys.executable)
print(fl_course.__file__)
print(sorted(explorer._repr_mimebundle_()[0]))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `mend` is empty when it is fine."""

    subject: str
    found: str
    mend: str = ""

    @property
    def ok(self) -> bool:
        return not self.mend


def examine() -> Iterator[Finding]:
    """Look at everything, one finding after the other. A look that fails is a finding too."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _course, _kernel_found, _packages, _torch, _optional, _threads,
                                                         _places, _signs, _loopback, _kernel_runs, _page)  # fmt: skip
    for look in looks:
        try:
            yield from look()
        except Exception as error:
            said = " ".join(str(error).split())[-300:]
            yield Finding(look.__name__.strip("_"), f"{type(error).__name__}: {said}", "mend what is named above first")


def _python() -> Iterator[Finding]:
    old = sys.version_info < (3, 11)
    where = "" if sys.prefix != sys.base_prefix else ", not in an environment of its own"
    found = f"{platform.python_version()} on {platform.system()} ({sys.executable}{where})"
    yield Finding("Python", found, "install Python 3.11 or newer" if old else "")


def _course() -> Iterator[Finding]:
    try:
        yield Finding("fl-course", f"{metadata.version('fl-course')} in {PACKAGE}")
    except metadata.PackageNotFoundError:
        mend = "python3 course.py setup" if _in_checkout() else "python -m pip install --force-reinstall fl-course"
        yield Finding("fl-course", f"in {PACKAGE}, but not installed for this Python", mend)


# --- the kernel that Lab would start ---------------------------------------------------------------------------------


def lab_python() -> str:
    """The interpreter of the kernel "python3" as JupyterLab finds it; ours, if it says only "python", or if Jupyter is broken."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager

        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except Exception:
        return sys.executable
    return program if os.path.isabs(program) else sys.executable


def _kernel_found() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    python = lab_python()
    mine = os.path.dirname(python) == os.path.dirname(sys.executable)
    mend = f"another Python's kernel wins: remove the folder {spec.resource_dir}, or start JupyterLab by `fl-course lab`"
    yield Finding("kernel for JupyterLab", f"{python} (from {spec.resource_dir})", "" if mine else mend)


def requirements(extra: str = "") -> Iterator[tuple[str, str]]:
    """(name, versions asked for) of everything that the course needs, or that an extra brings: as the checkout says, if we are
    in one, since what was installed from it may be older; else as the installed package says of itself."""
    if _in_checkout():
        project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
        lines = project["optional-dependencies"].get(extra, []) if extra else project["dependencies"]
    else:
        of = re.compile(r"extra == ['\"](.+?)['\"]")
        lines = [line for line in metadata.requires("fl-course") or [] if "".join(of.findall(line)) == extra]
    for line in sorted(lines):
        name = re.match(r"[\w.-]+", line)
        assert name is not None
        yield name.group(), line[name.end() :].partition(";")[0].strip()


def _in_checkout() -> bool:
    return (PACKAGE.parent / "source").is_dir() and (PACKAGE.parent / "pyproject.toml").is_file()


def _packages() -> Iterator[Finding]:
    """Each is imported by Lab's Python, one after the other in one process: if that dies, the last name says where."""
    wanted = {name: (asked, MODULES.get(name, name.replace("-", "_"))) for name, asked in requirements()}
    program = (
        "import importlib, sys, warnings; warnings.simplefilter('ignore')\n"
        "for name in sys.argv[1:]:\n"
        "    print(name, end=' ', flush=True)\n"
        "    try: importlib.import_module(name); said = 'ok'\n"
        "    except BaseException as error: said = type(error).__name__ + ': ' + ' '.join(str(error).split())[:200]\n"
        "    print(said, flush=True)\n"
    )
    names = [module for _, module in wanted.values()]
    said = subprocess.run([lab_python(), "-c", program, *names], capture_output=True, text=True, timeout=300, check=False)
    answers = dict(line.partition(" ")[::2] for line in said.stdout.splitlines())
    for name, (asked, module) in wanted.items():
        install = f'python -m pip install --force-reinstall "{name}{asked}"'
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "missing", f'python -m pip install "{name}{asked}"')
            continue
        answer = answers.get(module, "not tried: the package before it ended Python").strip()
        if answer != "ok":
            yield Finding(name, f"{version}, but it cannot be imported: {answer or 'Python died'}", install)
        elif not _fits(asked, version):
            yield Finding(name, f"{version}, asked for is {asked}", install)
        else:
            yield Finding(name, version)


def _fits(asked: str, version: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True                                              # said by its own line
    return SpecifierSet(asked).contains(version, prereleases=True)


def _torch() -> Iterator[Finding]:
    """Whether it computes, which build it is, and whether that fits the machine."""
    said = subprocess.run([lab_python(), "-c", TORCH], capture_output=True, text=True, timeout=120, check=False)
    words = said.stdout.split()
    if said.returncode or len(words) != 4 or words[3] != "6.0":
        why = " ".join((said.stdout + said.stderr).split())[-200:] or f"Python ended with {said.returncode}"
        yield Finding("torch computes", why, "python3 course.py setup, or python -m pip install --force-reinstall torch")
        return
    version, cuda, usable, gpu = words[0], words[1] != "None", words[2] == "1", _gpu()
    if not cuda:
        found = "for the CPU" + ("; pip's default build would use the GPU that is here" if gpu else ", all that the lessons need")
    elif usable:
        found = "with CUDA, and it sees a GPU"
    else:
        found = "with CUDA" + (", and it cannot use the GPU that is here" if gpu else "; there is no GPU, so it is only larger")
    mend = "renew NVIDIA's driver; until then everything runs on the CPU" if cuda and gpu and not usable else ""
    yield Finding("torch build", f"{version}, {found}", mend)


def _gpu() -> bool:
    try:
        said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.returncode == 0 and "No devices" not in said.stdout


def _optional() -> Iterator[Finding]:
    try:
        from fl_course.workbook.commands import optional
    except ImportError as error:
        yield Finding("extras", f"not looked at, since fl_course cannot be imported: {str(error)[:100]}")
        return
    for said in (*optional.extras(requirements, _fits), optional.flower(_fits), optional.sandbox()):
        yield Finding(*said)


def _threads() -> Iterator[Finding]:
    asked, ours = os.environ.get("OMP_NUM_THREADS"), os.environ.get("FL_COURSE_THREADS")
    mend = "set OMP_NUM_THREADS=1 before you start Python: small steps are far slower on several threads"
    found = f"OMP_NUM_THREADS={asked or 'not set'}, {os.cpu_count()} processors; fl-course runs notebooks with 1"
    yield Finding("threads", found, mend if asked not in (None, "1") else "")
    if ours is not None and not (ours.isdecimal() and int(ours) > 0):
        yield Finding("FL_COURSE_THREADS", repr(ours), "unset it, or set it to a whole number from 1 on; 1 is mostly the fastest")


def _places() -> Iterator[Finding]:
    root = PACKAGE.parent if _in_checkout() else PACKAGE / "course"
    count = len(list((root / "notebooks").glob("*.ipynb")))
    mend = "" if count else "build them: python tools/build_notebooks.py"
    yield Finding("notebooks", f"{count} in {root / 'notebooks'}", mend)
    free = shutil.disk_usage(Path.cwd()).free
    mend = "" if free > SPACE else "free some space: reports need up to 500 MB"
    yield Finding("disk", f"{free / 1e9:.1f} GB free here", mend)
    from jupyter_core.paths import jupyter_runtime_dir  # where a kernel leaves its connection file

    folders = {"this folder": (Path.cwd(), "go to a folder of your own: fl-course start my-course"),
               "temporary files": (Path(tempfile.gettempdir()), "set TMPDIR to a folder that can be written to"),
               "Jupyter's files": (Path(jupyter_runtime_dir()), "set JUPYTER_RUNTIME_DIR to a folder of your own")}  # fmt: skip
    for subject, (folder, cure) in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
            yield Finding(subject, f"{folder} can be written to")
        except OSError as error:
            yield Finding(subject, f"{folder}: {error.strerror or error}", cure)
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):                                          # not on Windows
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Finding("memory", f"{memory / 1e9:.1f} GB", "" if memory > MEMORY else "close what else runs, other notebooks too")


def _signs() -> Iterator[Finding]:
    """Can a terminal and a picture write Greek? Old terminals of Windows cannot, nor fonts of somebody's own matplotlibrc."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    greek = SIGNS.encode(encoding, "ignore").decode(encoding) == SIGNS
    yield Finding("terminal", f"{encoding}, with{'' if greek else 'out'} Greek letters", "" if greek else "set PYTHONUTF8=1")
    import warnings

    from matplotlib import font_manager, matplotlib_fname
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0, 0, SIGNS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FigureCanvasAgg(figure).draw()
    font = Path(font_manager.findfont(font_manager.FontProperties())).name
    lacks = sum("missing from" in str(one.message).lower() for one in caught)
    cure = f"take font.family out of {matplotlib_fname()}, or python -m pip install --force-reinstall matplotlib"
    yield Finding("fonts", f"{font}" + (f" lacks {lacks} of the signs {SIGNS}" if lacks else ", with Greek letters and signs"),
                  cure if lacks else "")  # fmt: skip


def _loopback() -> Iterator[Finding]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()[:2], timeout=5).close()
    yield Finding("loopback", "connections to 127.0.0.1 work")


# --- does it work together? ------------------------------------------------------------------------------------------


def _kernel_runs() -> Iterator[Finding]:
    """The kernel as JupyterLab would start it runs a cell that makes a widget."""
    import nbformat
    from nbclient import NotebookClient

    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}                   # quiet: a kernel's advice to administrators mends nothing
        NotebookClient(node, kernel_name="python3", timeout=120, resources=where, extra_arguments=["--log-level=50"]).execute()
    said = "".join(output.get("text", "") for output in node.cells[0].outputs if output.output_type == "stream")
    if len(said.split()) < 3:
        yield Finding("kernel", f"ran a cell and said only {said!r}", "mend the packages named above first")
        return
    python, package, bundle = said.strip().splitlines()[-3:]
    right = Path(package).parent == PACKAGE
    mend = "" if right else "another copy of fl_course is found first: uninstall it there, or start JupyterLab by `fl-course lab`"
    yield Finding("kernel", f"{python} runs {package}", mend)
    picture = "image/png" in bundle and "widget-view" in bundle
    yield Finding("widget", "drawn, with its picture" if picture else f"draws only {bundle}",
                  "" if picture else "python -m pip install --force-reinstall anywidget ipywidgets")  # fmt: skip


def _page() -> Iterator[Finding]:
    import nbformat
    from nbconvert import HTMLExporter

    cell = nbformat.v4.new_markdown_cell("# It works: $x^2$")
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    mend = "" if "It works" in page else "python -m pip install --force-reinstall nbconvert"
    yield Finding("page", f"{len(page):,} characters of HTML", mend)


def main() -> int:
    """Print what was found; 1 if something is to be mended."""
    getattr(sys.stdout, "reconfigure", dict)(errors="replace")   # a path that this terminal cannot write costs a "?"
    wrong = 0
    for finding in examine():
        wrong += not finding.ok
        print(f"{'ok   ' if finding.ok else 'WRONG'} {finding.subject}: {finding.found}", flush=True)
        if not finding.ok:
            print(f"      mend: {finding.mend}", flush=True)
    print(f"{wrong} to mend" if wrong else "All is well.")
    return int(wrong > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
