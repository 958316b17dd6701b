"""A Flower app in a folder: pyproject.toml, and a package of three files of a few lines, of which you change one.

    fl-course deploy export my-app                                 with a small experiment on digits, to begin with
    fl-course deploy export my-app --experiment mine.py            with your own: a file that has a function `experiment`
    flwr run my-app …                                              where Flower and this package are installed
"""

from __future__ import annotations

import ast
import keyword
import re
from pathlib import Path

EXAMPLE = '''"""What is trained, by whom, and how: the only file here that you change. Server and nodes build the same."""

from fl_course import Coordinator, Dirichlet, LocalSGD, Synchronous, digits, mlp


def experiment() -> Coordinator:
    data = digits().partition(Dirichlet(0.5), clients=4, seed=0)
    return Coordinator(data, mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=1, batch_size=10), Synchronous(1.0))
'''
SIDE = '''"""The {side} side. All of it is the experiment's; Flower carries the messages."""

from fl_course.deploy.flower import {side}_app

from {package}.experiment import experiment

app = {side}_app(experiment)
'''
PROJECT = '''[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.0.0"
description = "An experiment of fl_course as a Flower app"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = ["fl-course", "flwr>=1.40,<2"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "fl-course"

[tool.flwr.app.components]
serverapp = "{package}.server_app:app"
clientapp = "{package}.client_app:app"

[tool.flwr.app.config]
rounds = 3
nodes = 2              # the run begins when so many SuperNodes are connected
clock = "simulated"    # or "real": answers count as they come, and a deadline is one of real seconds
out = ""               # a folder for history.json and model.ckpt, on the server
lost-after = 600.0     # seconds after which a node that has not answered is given up
gather-for = 300.0     # seconds to wait for the nodes
'''


def export(folder: str | Path, experiment: str | Path | None = None) -> Path:
    """Write the app. experiment: a Python file that defines `experiment`, a function without arguments that returns a
    Coordinator. Refuses (ValueError, FileExistsError) what would not run, and a folder that has something in it."""
    folder = Path(folder)
    package = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower())[:24].strip("_") or "app"
    if not package[0].isalpha() or keyword.iskeyword(package) or package in ("fl_course", "flwr"):
        package = f"app_{package}"
    text = EXAMPLE if experiment is None else _read(Path(experiment))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty; name a new folder")
    (folder / package).mkdir(parents=True)
    files = {
        "pyproject.toml": PROJECT.format(package=package, name=package.replace("_", "-")),
        f"{package}/__init__.py": "",
        f"{package}/experiment.py": text,
        f"{package}/server_app.py": SIDE.format(side="server", package=package),
        f"{package}/client_app.py": SIDE.format(side="client", package=package),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def _read(path: Path) -> str:
    """The text of an experiment's file, once it is plain that it is one. It is not run here."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as why:
        raise ValueError(f"{path} cannot be read as Python: {getattr(why, 'strerror', None) or why}") from why
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "experiment":
            needed = len(node.args.args) + len(node.args.posonlyargs) - len(node.args.defaults)
            needed += sum(default is None for default in node.args.kw_defaults)
            if needed:
                raise ValueError(f"experiment() in {path} is called without arguments, so all of them need defaults")
            return text
    raise ValueError(f"{path} has no function experiment() that returns the Coordinator; see `fl-course deploy export`'s example")
