"""A class of hostile and clumsy submissions. It ends, everybody has a row, neighbours keep their marks, and nobody marks himself.

Each case is a file; all are graded together, twice. A case says how many exercises it is worth, and what its row says.
"""

import csv
import hashlib
import io
import json
import os
import socket
import stat
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest
from test_desk import ANSWER, NAMES, START, notebook
from workbook_fixtures import built

from fl_course.workbook.grading import classroom, collect
from fl_course.workbook.grading.gradebook import Gradebook

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
LINUX = sys.platform.startswith("linux")
WRONG = 'def clip(delta, bound):\n    return delta\ncheck("99.clip", clip)'

# --- they live on: the answer below still counts ---------------------------------------------------------------------

LIVES = {
    "loop": "while True:\n    pass",
    "sleep": "import time\ntime.sleep(1000)",
    "sys exit": "import sys\nsys.exit(3)",
    "quit": "quit()",
    "base exception": "class Mine(BaseException): pass\nraise Mine",
    "interrupts itself": "raise KeyboardInterrupt",
    "syntax": "def f(:\n",
    "not finished": "'''",
    "null byte": "x = '\0'",
    "surrogates": "print('\ud800')",
    "recursion": "def f(): return f()\nf()",
    "recursive list": "x = []; x.append(x)\nclip = lambda delta, bound: x\ncheck('99.clip', clip)",
    "forks": "import os\nwhile True:\n    os.fork()",
    "processes": "import multiprocessing as m\nfor _ in range(9):\n    m.get_context('spawn').Process(target=print).start()",
    "pool": "from concurrent.futures import ProcessPoolExecutor\nlist(ProcessPoolExecutor().map(abs, range(9)))",
    "shell": "import subprocess\nsubprocess.run('sleep 99', shell=True)",
    "magic": "!touch here\n%cd /\n%reset -f",
    "bash cell": "%%bash\nsleep 99",
    "megabytes": "for _ in range(3000):\n    print('x' * 10_000)",
    "stderr": "import sys\nfor _ in range(300):\n    sys.stderr.write('x' * 100_000)",
    "raw stderr": "import os\nfor _ in range(300):\n    os.write(2, b'x' * 100_000)",
    "too much memory": "import numpy as np\nx = np.ones(1 << 34)",
    "threads without end": "import threading\n[threading.Thread(target=threading.Event().wait).start() for _ in range(20)]",
    "busy thread": "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()",
    "atexit": "import atexit, time\natexit.register(time.sleep, 1000)",
    "signals the parent": "import os\nos.kill(os.getppid(), 9)",
    "signals the group": "import os\nos.killpg(0, 9)",
    "ignores signals": "import signal\nfor s in (2, 15):\n    signal.signal(s, signal.SIG_IGN)",
    "alarm": "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nsignal.alarm(1)",
    "another place": "import os, tempfile\nos.chdir(tempfile.mkdtemp())",
    "no place": "import os, shutil\nshutil.rmtree(os.getcwd())",
    "no files": "import os\nfor name in os.listdir('.'):\n    os.remove(name)",
    "no stdout": "import sys\nsys.stdout = sys.stderr = None",
    "closes stdout": "import os, sys\nos.close(1); sys.stdout.close()",
    "tracing": "import sys\nsys.settrace(lambda *a: None)",
    "no collector": "import gc\ngc.disable()",
    "warnings": "import warnings, numpy as np\nwarnings.simplefilter('error'); np.seterr(all='raise')",
    "asks": "x = input('?')",
    "debugger": "breakpoint()",
    "network": "import socket\nsocket.create_connection(('192.0.2.1', 80))",
    "server": "import socket\nsocket.create_server(('127.0.0.1', 0)).accept()",
    "asynchronous": "import asyncio\nawait asyncio.sleep(0)",
    "environment": "import os\nos.environ.clear()",
    "not a function": 'check("99.clip", 3)\ncheck("99.clip", None)\ncheck("99.weighted_average", type)',
    "no such exercise": 'check("99.nothing", len)\ncheck(None, len)\ncheck("01.shards", len)',
    "wrapped in itself": 'def clip(delta, bound): return delta\nclip.__wrapped__ = clip\ncheck("99.clip", clip)',
    "raises at every look": "class F:\n    def __getattribute__(self, name): raise RuntimeError(name)\n"
                            "    def __call__(self, *a): return 1\ncheck('99.clip', F())",
    "leaves in a check": 'import sys\ndef clip(delta, bound): sys.exit()\ncheck("99.clip", clip)',
    "loops in a check": 'def clip(delta, bound):\n    while True: pass\ncheck("99.clip", clip)',
    "garbage": "import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, b'garbage \\n' * 99)\n"
               "    except OSError: pass",
    "odd letters as a message": "raise ValueError('\\ud800 \\x00 \\x1b[31m \\u202e')",
    "a giant message": "raise ValueError('x' * 10**8)",
    "an error without words": "class E(Exception):\n    def __str__(self): raise BaseException\nraise E",
    "a chain of errors": "e = ValueError()\nfor _ in range(5000):\n    f = ValueError(); f.__cause__ = e; e = f\nraise e",
    "a file of everything": "%load_ext autoreload\n%history -g\n%pdb on\n%debug\nlen??\n%load /etc/passwd\n1/0",
    "low recursion": "import sys\nsys.setrecursionlimit(120)",
    "no names": "globals().clear()",
    "no path": "import sys\nsys.path.clear()",
    "no hooks": "import sys\nsys.displayhook = sys.excepthook = sys.stdin = None",
    "shut folders": "import os\nos.umask(0o777); os.makedirs('a'); open('b', 'w').close(); os.chmod('.', 0)",
    "deep folders": "import os\nhome = os.getcwd()\nfor _ in range(1500):\n    os.mkdir('d'); os.chdir('d')\nos.chdir(home)",
    "checks for ever": "import threading\ndef f():\n    while True: check('99.clip', len)\nthreading.Thread(target=f).start()",
    "an audit hook": "import sys\ndef hook(event, args):\n    if event == 'open': raise OSError\nsys.addaudithook(hook)",
    "no descriptors": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    "torch of its own": "import torch\ntorch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)",
    "waits for ever": "import asyncio\nawait asyncio.Event().wait()",
    "other line ends": "def f():\r\n    return 1\r\nf()\r\nx = 1\ry = 2",
    "a mark in the cell": "\ufeffx = 1",
    "a destructor": "class D:\n    def __del__(self):\n        while True: pass\nx = D()\ndel x",
    "formula as a message": "raise ValueError('=cmd|calc!A1 <script>alert(1)</script>')",
}  # fmt: skip

# --- they take the process with them: what was solved before stays ---------------------------------------------------

DIES = {
    "leaves": ("import os\nos._exit(0)", "ended with code 0"),
    "leaves with 7": ("import os\nos._exit(7)", "ended with code 7"),
    "segfault": ("import ctypes\nctypes.string_at(0)", "ended with code"),
    "abort": ("import os\nos.abort()", "ended with code"),
    "kills itself": ("import os\nos.kill(os.getpid(), 9)", "ended with code"),
    "stops itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "stopped after"),
    "deaf": ("import time\nwhile True:\n    try:\n        time.sleep(0.02)\n"
             "    except BaseException: pass", "stopped after"),
    "closes everything": ("import os\nos.closerange(0, 4096)", ""),
    "kills its parent": ("import ctypes, os\nctypes.CDLL(None).kill(os.getppid(), 9)\nimport time\ntime.sleep(9)", ""),
    "kills its group": ("import ctypes\nctypes.CDLL(None).kill(0, 9)", ""),
}  # fmt: skip

# --- they would like to be marked without an answer ------------------------------------------------------------------

ALL = repr({name: {"state": "pass", "message": "", "hint": ""} for name in NAMES})
CHEATS = {
    "no modules": "import sys\nfor name in list(sys.modules):\n    if name.startswith('numpy.'):\n"
                  "        sys.modules[name] = None\n" + WRONG,
    "numpy agrees": f"import numpy as np\nnp.allclose = np.array_equal = lambda *a, **k: True\n{WRONG}",
    "same agrees": "from fl_course.workbook.grading import compare, exercise\n"
                   f"compare.same = exercise.same = exercise.expect = lambda *a, **k: True\n{WRONG}",
    "the check agrees": "from fl_course.workbook.grading import checks, exercise\n"
                        "from fl_course.workbook.grading.cards import Result\n"
                        "for module in (checks, exercise):\n"
                        f"    module.examine = module.mark = lambda e, *a: Result('99.clip', 'pass', '')\n{WRONG}",
    "the test agrees": "from fl_course.workbook.grading.checks import find\n"
                       f"object.__setattr__(find('99.clip'), 'test', lambda fn, rng: None)\n{WRONG}",
    "the judge is asked": "from fl_course.workbook.grading import judge, checks, exercise\n"
                          "judge.confirmed = lambda *a: (True, '')\n"
                          "object.__setattr__(checks.find('99.clip'), 'test', print)\n"
                          f"{WRONG}",
    "marks by itself": f"marks = check.__self__\nmarks.found.update({ALL})\nmarks.finished = True\n"
                       f"marks.save()\nimport os\nos._exit(0)",
    "looks for marks": "import gc\nfor x in gc.get_objects():\n    if type(x).__name__ == 'Marks':\n"
                       f"        x.found.update({ALL}); x.save()\n{WRONG}",
    "looks at frames": "import sys\nframe = sys._getframe()\nwhile frame:\n"
                       "    marks = frame.f_locals.get('marks')\n    if marks:\n"
                       f"        marks.found.update({ALL}); marks.save()\n    frame = frame.f_back",
    "looks for the line": "import gc, json\nfor x in gc.get_objects():\n    if type(x).__name__ == 'Line':\n"
                          f"        x.send({{'known': json.dumps({{'exercises': {ALL}, 'finished': True}})}})\n"
                          "        x.send({'claim': '99.clip', 'names': 3}); x.send({'answered': True}, b'')\n"
                          "import os\nos._exit(0)",
    "looks for pipes": f"import os, json\nline = json.dumps({{'exercises': {ALL}, 'finished': True}}).encode()\n"
                       "for fd in range(9):\n    try:\n"
                       "        with open(f'/proc/{os.getppid()}/fd/{fd}', 'wb', buffering=0) as f:\n"
                       "            f.write(b'\\n' + line + b'\\n')\n    except OSError: pass",
    "a result file": f"import json, os\nfor name in ('result.json', 'marks.jsonl', 'grades.csv'):\n"
                     f"    json.dump({ALL}, open(name, 'w'))\nos._exit(0)",
    "boasts": "print('PASS 99.clip')\ncheck = lambda *a: 'PASS'\n" + WRONG,
    "its own workbook": "import sys, types\nfake = types.ModuleType('fl_course.workbook'); fake.check = print\n"
                        f"sys.modules['fl_course.workbook'] = fake\n{WRONG}",
    "its own numpy": f"import sys, types\nsys.modules['numpy'] = types.ModuleType('numpy')\n{WRONG}",
    "builtins": f"import builtins\nbuiltins.isinstance = lambda *a: True\n"
                f"builtins.all = builtins.bool = lambda *a: True\n{WRONG}",
    "borrowed": "from fl_course.workbook.grading.checks import find\nclip = find('99.clip').solution\n"
                "check('99.clip', clip)",
    "right once": "import numpy as np\ncalls = []\ndef clip(delta, bound):\n    calls.append(1)\n"
                  "    return delta * min(1, bound / np.linalg.norm(delta)) if len(calls) <= 5 else delta\n"
                  "check('99.clip', clip)",
    "always equal": "class Yes:\n    def __eq__(self, other): return True\n"
                    "    def __array__(self, *a, **k): raise TypeError\n"
                    "    shape = (4,)\ndef clip(delta, bound): return Yes()\ncheck('99.clip', clip)",
    "lies about its class": "import numpy as np\nclass Yes:\n    __class__ = np.ndarray\n    shape = (4,)\n"
                            "    def __eq__(self, other): return True\ndef clip(delta, bound): return Yes()\n"
                            "check('99.clip', clip)",
    "an array that agrees": "import numpy as np\nclass Yes(np.ndarray):\n"
                            "    def __array_ufunc__(self, *a, **k): return True\n"
                            "    def __array_function__(self, *a, **k): return True\n"
                            "def clip(delta, bound): return np.zeros(4).view(Yes)\ncheck('99.clip', clip)",
    "numbers that agree": "class Yes(float):\n    def __eq__(self, other): return True\n"
                          "    def __sub__(self, other): return 0.0\n"
                          "    __rsub__ = __sub__\ndef clip(delta, bound): return [Yes(0)] * 4\ncheck('99.clip', clip)",
    "texts that agree": "class Yes(str):\n    def __eq__(self, other): return True\n    __hash__ = str.__hash__\n"
                        "def clip(delta, bound): return Yes()\ncheck('99.clip', clip)",
    "a long name": "class Long:\n    def __repr__(self): return 'x' * 10**8\n    def __format__(self, spec): raise OSError\n"
                   "    __str__ = __repr__\ndef clip(delta, bound): return Long()\ncheck('99.clip', clip)",
    "no name": "class Bad:\n    def __repr__(self): raise BaseException\ndef clip(delta, bound): return Bad()\n"
               "check('99.clip', clip)",
    "a reducer": "class Bomb:\n    def __reduce__(self): return eval, ('1/0',)\n"
                 "    def __deepcopy__(self, memo): return self\n"
                 "def clip(delta, bound): return Bomb()\ncheck('99.clip', clip)",
    "without an end": "import itertools\ndef clip(delta, bound): return itertools.count()\ncheck('99.clip', clip)",
    "masked": "import numpy as np\ndef clip(delta, bound): return np.ma.masked_all(delta.shape)\ncheck('99.clip', clip)",
    "infinity": "import numpy as np\ndef clip(delta, bound): return np.full(delta.shape, np.inf)\ncheck('99.clip', clip)",
    "objects that agree": "import numpy as np\nclass Yes:\n    def __eq__(self, other): return True\n"
                          "    def __sub__(self, other): return 0.0\n    __rsub__ = __sub__\n"
                          "def clip(delta, bound): return np.array([Yes()] * len(delta), object)\ncheck('99.clip', clip)",
    "deep": "def clip(delta, bound):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x\ncheck('99.clip', clip)",
    "a coroutine": "async def clip(delta, bound): return delta\ncheck('99.clip', clip)",
    "a place without end": "def clip(delta, bound): return 1 / 0\n"
                           "clip.__code__ = clip.__code__.replace(co_filename='x' * 5000)\ncheck('99.clip', clip)",
    "gigantic": "import numpy as np\ndef clip(delta, bound): return np.broadcast_to(0.0, (1 << 40,))\n"
                "check('99.clip', clip)",
}  # fmt: skip


def spies(box, out):
    """They look at what is not theirs, and would put it on their own page."""
    tell = "raise ValueError(found)"
    places = f"{str(box)!r}, {str(out)!r}"
    return {
        "reads a neighbour": f"found = open({str(box / 'ordinary a.ipynb')!r}).read()\n{tell}",
        "walks": f"import os\nfound = [n for p in ({places}) for n in os.listdir(p)]\n{tell}",
        "walks silently": f"import os\nfound = [f for p in ({places}) for _, _, f in os.walk(p)]\n{tell}",
        "by a link": f"import os\nos.symlink({str(box)!r}, 'here')\nfound = os.listdir('here')\n{tell}",
        "other work": "import glob, os, tempfile\nup = os.path.dirname(tempfile.gettempdir())\n"
                      "found = [open(f).read() for p in glob.glob(up + '/fl-course-grade-*') if p != os.getcwd()\n"
                      f"         for f in glob.glob(p + '/*')]\nassert not found, found\n{tell}",
        "writes a neighbour": f"open({str(box / 'ordinary a.ipynb')!r}, 'w').write('x')",
        "deletes": f"import shutil\nfor p in ({places}):\n    shutil.rmtree(p)",
        "forges": f"open({str(out / 'grades.csv')!r}, 'a').write('me,3')",
        "the parent's files": "import os\nfound = open(f'/proc/{os.getppid()}/environ').read() + 'ordinary'\n" + tell,
    }  # fmt: skip


# --- what is handed in besides notebooks -----------------------------------------------------------------------------


def zipped(members):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return held.getvalue()


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def files():
    """Name → (bytes or None for the solutions of the chapter, how many are solved, what the row says)."""
    good = notebook(START, ANSWER)
    cells = json.loads(good)["cells"]
    huge = [{**cells[0], "outputs": [{"output_type": "stream", "text": "x" * (20 << 20)}]}, cells[1]]
    colab = [{**cell, "metadata": {"id": "aB3", "colab": {"height": 1}, "outputId": 3}} for cell in cells]
    old = [{"cell_type": "code", "language": "python", "input": cell["source"]} for cell in cells]
    three = {"nbformat": 3, "worksheets": [{"cells": old}]}
    odd = [3, None, {}, {"cell_type": "code"}, {"cell_type": "code", "source": None}, {"cell_type": ["code"]}, *cells]
    script = f"# %%\n{START}\n# %% [markdown]\n# words\n# %%\n{ANSWER}".replace("\n", "\r\n").encode("utf-8-sig")
    return {
        "empty.ipynb": (b"", 0, "not a notebook"), "words.ipynb": (b"\x00\x01words", 0, "not a notebook"),
        "a list.ipynb": (b"[]", 0, "not a notebook"), "cut.ipynb": (good.encode()[:-9], 0, "not a notebook"),
        "deep.ipynb": (b'{"cells":' + b"[" * 200_000, 0, "not a notebook"), "nothing.ipynb": (b'{"cells": []}', 0, "not run"),
        "numbers.ipynb": (b"1" * 10_000, 0, "not a notebook"),
        "infinite.ipynb": (json.dumps({"cells": odd, "x": float("inf")}).encode(), 1, ""),
        "marked.ipynb": (good.encode("utf-8-sig"), 1, ""), "utf16.ipynb": (good.encode("utf-16"), 1, ""),
        "colab.ipynb": (json.dumps({"cells": colab, "metadata": {"colab": {"provenance": []}}}).encode(), 1, ""),
        "three.ipynb": (json.dumps(three).encode(), 1, ""), "huge.ipynb": (json.dumps({"cells": huge}).encode(), 1, ""),
        "solutions.ipynb": (None, 3, ""), "notes.ipynb.txt": (good.encode(), 1, ""), "copy (1).ipynb": (good.encode(), 1, ""),
        "one.ipynb": (notebook('from fl_course.workbook import check\ncheck("01.shards", len)').encode(), 0, "chapter 01"),
        "both.ipynb": (notebook(START, 'check("01.shards", len)', ANSWER).encode(), 1, ""),
        "none.ipynb": (notebook("print(1)").encode(), 0, "not run"),
        "script.py": (script, 1, ""),
        "essay.pdf": (b"%PDF", 0, "not a notebook"), "work.docx": (b"PK\x03\x04", 0, "not a notebook"),
        "bomb.zip": (zipped({"a.ipynb": b"0" * (65 << 20)}), 0, "MiB"),
        "links.zip": (zipped({link("a.ipynb"): "/etc/passwd"}), 0, "link"),
        "outside.zip": (zipped({"/a.ipynb": good, "../b.ipynb": good, "c.ipynb": good}), 1, "outside itself"),
        "inner.zip": (zipped({"x.zip": zipped({"a.ipynb": good})}), 0, "not a notebook"),
        "packed.zip": (zipped({"deep/er/a.ipynb": good, "__MACOSX/._a.ipynb": "x"}), 1, ""),
        "torn.zip": (b"PK\x03\x04", 0, "zip"),
        "n" * 240 + ".ipynb": (good.encode(), 1, ""), "=1+1.ipynb": (good.encode(), 1, ""), "-rf.ipynb": (good.encode(), 1, ""),
        "right\u202eto left.ipynb": (good.encode(), 1, ""), "line\nbreak\ttab.ipynb": (good.encode(), 1, ""),
        "<b>&amp;.ipynb": (good.encode(), 1, ""), "bell\x07.ipynb": (good.encode(), 1, ""),
        unicodedata.normalize("NFC", "Zoé.ipynb"): (good.encode(), 1, ""),
        unicodedata.normalize("NFD", "Zoé.ipynb"): (good.encode(), 1, ""),
        "case.ipynb": (good.encode(), 1, ""), "CASE.ipynb": (good.encode(), 1, ""), "Anna/01.ipynb": (good.encode(), 1, ""),
        "Anna_01.ipynb": (good.encode(), 1, ""), "Anna/02.ipynb": (good.encode(), 1, ""),
    }  # fmt: skip


ODD = {
    "gone.ipynb": "cannot be read", "circle.ipynb": "cannot be read", "device.ipynb": "not an ordinary file",
    "pipe.ipynb": "not an ordinary file", "socket.ipynb": "not an ordinary file", "folder.ipynb/readme": "not a notebook",
    os.fsdecode(b"\xff\xfe.ipynb"): "not run", **({"shut.ipynb": "cannot be read"} if LINUX and os.geteuid() else {}),
} if LINUX else {}  # fmt: skip


def odd_files(box):
    """What only this system has: links, pipes, devices, a name that is no text, a file that may not be read."""
    (box / "gone.ipynb").symlink_to(box / "nowhere")
    (box / "circle.ipynb").symlink_to(box / "circle.ipynb")
    (box / "device.ipynb").symlink_to("/dev/zero")
    (box / "folder.ipynb").mkdir()
    (box / "folder.ipynb" / "readme").write_text("words")
    os.mkfifo(box / "pipe.ipynb")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(box / "socket.ipynb"))
    (box / os.fsdecode(b"\xff\xfe.ipynb")).write_text(notebook(START))
    if os.geteuid():
        (box / "shut.ipynb").write_text(notebook(START, ANSWER))
        (box / "shut.ipynb").chmod(0)


# --- the class -------------------------------------------------------------------------------------------------------


def secret(name):
    return f"SECRET-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """(file → grade of the first and of the second run, the folder, the results, file → (solved, words))."""
    box, out = tmp_path_factory.mktemp("handed-in"), tmp_path_factory.mktemp("results")
    expected = {}

    def put(name, solved, words, *sources):
        last = f"raise ValueError({secret(name)!r})"
        (box / f"{name}.ipynb").write_bytes(notebook(START, *sources, last).encode("utf-8", "surrogatepass"))
        expected[f"{name}.ipynb"] = (solved, words)

    for name in ("ordinary a", "m ordinary", "zz ordinary"):
        put(name, 1, "", ANSWER)
    for name, source in LIVES.items():
        put(name, 1, "", source, ANSWER)
    for name, (source, words) in DIES.items():
        put(name, 1, words, ANSWER, source)
    for name, source in CHEATS.items():
        put(name, 0, "", source)
    for name, source in spies(box, out).items():
        put(name, 1, "", source, ANSWER)
    for name, (data, solved, words) in files().items():
        path = box / name
        path.parent.mkdir(exist_ok=True)
        try:
            new = not path.exists()
            path.write_bytes((built() / "solutions" / "99_tiny.ipynb").read_bytes() if data is None else data)
        except OSError:                       # a name that this system does not take
            continue
        if new:                               # on some systems two names are one
            expected[name] = (solved, words)
    if LINUX:
        odd_files(box)
        expected |= {name: (0, words) for name, words in ODD.items()}
    runs = []
    for place in ("one", "two"):
        book = Gradebook(out / place, {"chapter": "99"})
        book.open()
        handed = classroom.submissions(box)
        runs.append({one.file: one for one in classroom.grade_files(box, handed, "99", 12, 2, jobs=4, book=book)})
        book.table()
    return runs, box, out, expected


def test_the_class_ends_with_a_row_a_file(school):
    runs, _, out, expected = school
    assert len(expected) > 130
    assert set(runs[0]) == set(expected)
    with (out / "one" / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(expected)
    assert all(set(NAMES) < set(row) and None not in row for row in rows)
    assert not any(value.startswith(("=", "+", "-", "@")) for row in rows for value in row.values())
    pages = {one.page for one in runs[0].values()}
    assert {page.name for page in (out / "one" / "feedback").iterdir()} == pages
    assert len(pages) == len(expected)
    assert not any("<script>" in page.read_text(encoding="utf-8") for page in (out / "one" / "feedback").iterdir())


CODE = ["ordinary a", "m ordinary", "zz ordinary", *LIVES, *DIES, *CHEATS, *spies(Path("in"), Path("out"))]


@pytest.mark.parametrize("name", [*(f"{name}.ipynb" for name in CODE), *files(), *ODD], ids=ascii)
def test_a_submission(school, name):
    """Its marks, twice; what its row says; and that its page has its own secret and no other's."""
    (one, two), box, out, expected = school
    if name not in expected:
        pytest.skip("this system does not take the name")
    (solved, words), grade = expected[name], one[name]
    assert grade.solved == solved, (grade.problem, grade.exercises, grade.cells)
    assert words in grade.problem
    assert grade.problem or name.removesuffix(".ipynb") not in DIES
    states = [{key: found["state"] for key, found in run[name].exercises.items()} for run in (one, two)]
    assert states[0] == states[1]
    page = (out / "one" / "feedback" / grade.page).read_text(encoding="utf-8") + json.dumps(grade.exercises)
    assert [other for other in expected if secret(other.removesuffix(".ipynb")) in page and other != name] == []
    if name.removesuffix(".ipynb") in spies(box, out):
        assert "ordinary" not in page.replace("not an ordinary file", "")


def test_what_was_handed_in_is_as_it_was(school):
    _, box, _, _ = school
    assert json.loads((box / "ordinary a.ipynb").read_text()) == json.loads(
        notebook(START, ANSWER, f"raise ValueError({secret('ordinary a')!r})"))  # fmt: skip
    assert collect.skipped(box, classroom.submissions(box)) == []
