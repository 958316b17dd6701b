"""What of the deployment needs no Flower: keys and certificates, the app that is written, sentences, processes that end."""

import ast
import datetime
import importlib
import os
import re
import signal
import ssl
import stat
import subprocess
import sys
import time
import tomllib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from fl_course import Coordinator
from fl_course.deploy import environment, local, stop
from fl_course.deploy.certificates import certificates, node_key
from fl_course.deploy.export import EXAMPLE, export
from fl_course.deploy.flower import at_home
from fl_course.workbook.commands.cli import app

posix = pytest.mark.skipif(os.name == "nt", reason="process groups are another thing on Windows")


# --- certificates --------------------------------------------------------------------------------------------------------


def test_the_servers_certificate_is_signed_for_the_hosts_and_for_some_days(tmp_path):
    certificates(tmp_path, ["fl.example", "10.0.0.7"], days=2)
    ca, leaf = (x509.load_pem_x509_certificate((tmp_path / name).read_bytes()) for name in ("ca.pem", "server.pem"))
    leaf.verify_directly_issued_by(ca)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    left = leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=1.9) < left <= datetime.timedelta(days=2)
    assert leaf.not_valid_before_utc < datetime.datetime.now(datetime.UTC)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for hosts, days in (([], 7), (["a"], float("inf")), (["a"], 1e9), (["a"], 0), (["a"], float("nan"))):
        with pytest.raises(ValueError, match="at least one host and some days"):
            certificates(tmp_path, hosts, days)
    for host in ("https://fl.example:9092", "two words", "ü.example", "", 5):
        with pytest.raises(ValueError, match="neither a DNS name nor an address"):
            certificates(tmp_path, [host])


def test_one_host_may_be_given_as_a_word(tmp_path):
    certificates(tmp_path, "::1")
    certificates(tmp_path, "fl.example")
    leaf = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example"]


def test_python_itself_trusts_the_right_authority_and_no_other(tmp_path):
    """A handshake in memory: the client trusts what its authority has signed, for the name that it asked for."""
    certificates(tmp_path / "ours")
    certificates(tmp_path / "theirs")

    def shakes(authority, name):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client = ssl.create_default_context(cafile=tmp_path / authority / "ca.pem")
        server.load_cert_chain(tmp_path / "ours" / "server.pem", tmp_path / "ours" / "server.key")
        a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [client.wrap_bio(a, b, server_hostname=name), server.wrap_bio(b, a, server_side=True)]
        for _ in range(6):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        return ends[0].version()

    assert shakes("ours", "127.0.0.1") == shakes("ours", "localhost") == "TLSv1.3"
    for authority, name in (("theirs", "127.0.0.1"), ("ours", "elsewhere.example")):
        with pytest.raises(ssl.SSLCertVerificationError):
            shakes(authority, name)


@posix
def test_private_keys_are_for_their_owner_only(tmp_path):
    certificates(tmp_path)
    certificates(tmp_path)                                              # again, over the old ones
    private, public = node_key(tmp_path, "node0")
    for path in (tmp_path / "ca.key", tmp_path / "server.key", private):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = serialization.load_ssh_private_key(private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert serialization.load_ssh_public_key(public.read_bytes()).public_numbers() == key.public_key().public_numbers()


# --- the app -------------------------------------------------------------------------------------------------------------


def test_the_exported_app_is_a_flower_app_of_a_few_lines_whose_experiment_runs(tmp_path, monkeypatch):
    folder = export(tmp_path / "My App-2")
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "my_app_2.server_app:app", "clientapp": "my_app_2.client_app:app"}              # fmt: skip
    assert set(project["tool"]["flwr"]["app"]["config"]) == {"rounds", "nodes", "clock", "out", "lost-after", "gather-for"}
    for name in ("server_app", "client_app", "experiment"):
        text = (folder / "my_app_2" / f"{name}.py").read_text()
        compile(text, name, "exec")
        assert len(text.splitlines()) <= 12
    monkeypatch.syspath_prepend(str(folder))
    made = importlib.import_module("my_app_2.experiment").experiment()
    assert isinstance(made, Coordinator)
    assert len(made.train(1)) == 1


@pytest.mark.parametrize("name", ["class", "fl_course", "7", "ÄÖ", "a.b", "flwr", "snake_case_2", "x" * 60])
def test_any_name_of_a_folder_makes_a_package_that_can_be_imported(tmp_path, name):
    folder = export(tmp_path / name)
    (package,) = [path for path in folder.iterdir() if path.is_dir()]
    ast.parse(f"import {package.name}")
    assert package.name not in ("fl_course", "flwr")
    flowers = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]              # as Flower takes it
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,31}", flowers)


def test_an_experiment_of_ones_own_goes_in_as_it_is_and_is_looked_at_before(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(EXAMPLE + "# mine\n")
    folder = export(tmp_path / "app", mine)
    assert (folder / "app" / "experiment.py").read_text() == mine.read_text()
    for text, sentence in (("x = 1", "no function experiment"), ("def experiment(a): pass", "without arguments"),
                           ("def experiment(*, a): pass", "without arguments"), ("def", "cannot be read as Python"),
                           ("\0", "cannot be read")):                               # fmt: skip
        mine.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            export(tmp_path / "other", mine)
        assert not (tmp_path / "other").exists()
    with pytest.raises(ValueError, match="cannot be read"):
        export(tmp_path / "other", tmp_path / "nowhere.py")
    with pytest.raises(FileExistsError, match="not empty"):
        export(folder)


def test_who_lives_on_which_node():
    scope = {}
    exec(EXAMPLE, scope)
    it = scope["experiment"]()
    homes = [at_home(it, {"partition-id": i, "num-partitions": 3}) for i in range(3)]
    assert sorted(client for home in homes for client in home) == list(it.clients)
    for config in ({}, {"partition-id": 3, "num-partitions": 3}, {"partition-id": "x", "num-partitions": 2}):
        with pytest.raises(ValueError, match="partition-id"):
            at_home(it, config)


# --- commands ------------------------------------------------------------------------------------------------------------


def said(*words):
    result = CliRunner().invoke(app, ["deploy", *map(str, words)])
    return result.exit_code, result.output


def test_the_commands_say_what_is_wrong(tmp_path, monkeypatch):
    code, text = said("export", tmp_path / "app")
    assert code == 0
    assert "fl-course deploy local" in text
    assert said("export", tmp_path / "app")[0] == 2
    code, text = said("local", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert code == 2
    assert "no Flower app" in text
    code, text = said("local", tmp_path / "app", "--experiment", tmp_path / "x.py")
    assert code == 2
    assert said("local", "--clients", 0)[0] == 2
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "python"))
    code, text = said("local", tmp_path / "app", "--out", tmp_path / "out")
    assert code == 1
    assert "cannot import flwr" in " ".join(text.split())


def test_without_a_registry_the_environment_is_not_made_and_a_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    monkeypatch.setattr(environment, "place", lambda: tmp_path / "venv")
    calls, run = [], subprocess.run

    def fails(words, **rest):
        calls.append(words)
        if "install" in words:
            raise subprocess.CalledProcessError(1, words, stderr="WARNING: retrying\nERROR: No matching distribution found\n")
        return run([sys.executable, "-c", ""], **rest)

    monkeypatch.setattr(environment.subprocess, "run", fails)
    lines = []
    with pytest.raises(environment.NoFlower, match=r"No matching distribution.*go\s+online.*FL_COURSE_FLOWER"):
        environment.flower(lines.append)
    assert "once" in lines[0]
    assert not (tmp_path / "venv").exists()
    (install,) = [words for words in calls if "install" in words]
    assert any(word.startswith("torch==") and "+" not in word for word in install)


@pytest.mark.parametrize(("version", "told", "asked"), [("2.13.0+cpu", "", True), ("2.13.0", "", False),
                                                       ("2.13.0+cpu", "global.index-url='https://mirror.example'", False),
                                                       ("2.13.0+cpu", ":env:.extra-index-url='x'", False)])      # fmt: skip
def test_the_small_torch_is_asked_for_where_it_runs_and_nobody_has_said_otherwise(version, told, asked, monkeypatch):
    monkeypatch.setattr(environment.importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(environment.subprocess, "run", lambda *args, **rest: subprocess.CompletedProcess(args, 0, stdout=told))
    assert (environment.CPU_INDEX in environment._small_torch("python")) == asked


def test_the_environment_lies_beside_a_checkout_or_in_the_cache(monkeypatch, tmp_path):
    assert environment.place().name in (".venv-flower", "venv-flower")
    monkeypatch.setattr(environment.fl_course, "__file__", str(tmp_path / "site-packages" / "fl_course" / "__init__.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert environment.place() == tmp_path / "cache" / "fl-course" / "venv-flower"


# --- processes -----------------------------------------------------------------------------------------------------------

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
below = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", below], start_new_session=len(sys.argv) > 1)
time.sleep(600)
"""


@posix
@pytest.mark.parametrize("other_group", [(), ("x",)], ids=["in its group", "in a group of its own"])
def test_whoever_was_started_ends_with_all_that_it_started_even_if_it_will_not(other_group):
    process = subprocess.Popen([sys.executable, "-c", STUBBORN, *other_group], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"up\n"
    groups = stop.groups_below({process.pid})
    assert len(groups) == 1 + len(other_group)
    stop.stop([process], patient=0.3)
    assert process.returncode == -signal.SIGKILL
    assert not any(stop.group_lives(group) for group in groups)


@posix
def test_a_second_ctrl_c_while_they_are_asked_to_end_leaves_nobody(tmp_path, monkeypatch):
    here = local.Local("python", folder=tmp_path)
    words, marked = [sys.executable, "-c", STUBBORN, "x"], {**os.environ, stop.MARK: here.mark}
    here.processes["node0"] = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True, env=marked)
    assert here.processes["node0"].stdout.readline() == b"up\n"
    groups, sleep, again = stop.groups_below({here.processes["node0"].pid}), time.sleep, [KeyboardInterrupt]

    def impatient(seconds):
        if again:
            raise again.pop()
        sleep(seconds)

    monkeypatch.setattr(stop.time, "sleep", impatient)
    with pytest.raises(KeyboardInterrupt):
        here.__exit__(None, None, None)
    assert not any(stop.group_lives(group) for group in groups)


@posix
def test_who_ends_when_asked_is_not_killed():
    process = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
                               stdout=subprocess.PIPE, start_new_session=True)      # fmt: skip
    process.stdout.readline()
    started = time.monotonic()
    stop.stop([process])
    assert process.returncode == -signal.SIGTERM
    assert time.monotonic() - started < 5
    stop.stop([process])                                               # again: nobody is there, nothing happens


def test_a_server_that_does_not_start_is_told_in_its_own_words_and_leaves_nothing(tmp_path):
    """A Python without Flower's tools, or one whose SuperLink ends at once."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "flower-superlink").write_text("#!/bin/sh\necho this is why\nexit 3\n")
    (tools / "flower-superlink").chmod(0o755)
    if os.name != "nt":
        with pytest.raises(local.DeploymentError, match=r"server did not start(.|\n)*this is why"), local.Local(tools / "python"):
            pass
    with pytest.raises(OSError), local.Local(tmp_path / "nowhere" / "python"):
        pass
    for nodes in (0, 65, 2.0, True):
        with pytest.raises(ValueError, match="whole number"):
            local.Local("python", nodes)


@posix
def test_a_run_that_says_nothing_more_ends_and_so_does_a_command(tmp_path, monkeypatch):
    """The stream is silent, and no line comes after which one could look at the clock; a child of the tool holds it, too."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "flwr").write_text(f"#!{sys.executable}\nimport subprocess, time\nprint('[fl-course] up', flush=True)\n"
                                "subprocess.Popen(['sleep', '60'])\ntime.sleep(60)\n")
    (tools / "flwr").chmod(0o755)
    here = local.Local(tools / "python", folder=tmp_path, say=lambda line: None)
    started = time.monotonic()
    with pytest.raises(local.DeploymentError, match=r"did not finish in 2 seconds(.|\n)*up"):
        here.run("app", seconds=2)
    assert time.monotonic() - started < 20
    assert not here.processes
    run = subprocess.run
    monkeypatch.setattr(local.subprocess, "run", lambda words, **rest: run(words, **{**rest, "timeout": 1}))
    with pytest.raises(local.DeploymentError, match="flwr supernode did not end"):
        here.flwr("supernode")


def test_flowers_tools_are_looked_for_beside_a_python_that_is_named_by_a_word(tmp_path, monkeypatch):
    """FL_COURSE_FLOWER=python3, found on the PATH."""
    monkeypatch.setenv(environment.VARIABLE, "some-python")
    monkeypatch.setattr(environment, "works", lambda python: True)
    monkeypatch.setattr(environment.shutil, "which", lambda word: str(tmp_path / word))
    assert environment.flower() == tmp_path / "some-python"


def test_what_the_processes_are_told_sends_nothing_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    here = local.Local("python", folder=tmp_path)
    told = here.environment()
    assert told["FLWR_TELEMETRY_ENABLED"] == "0"
    assert told["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert told["FLWR_HOME"].startswith(str(tmp_path))
    assert "HTTPS_PROXY" not in told


@pytest.mark.parametrize(("value", "text"), [(3, "3"), (0.5, "0.5"), (True, "true"), ("real", '"real"'), ("C:\\out", '"C:/out"')])
def test_the_configuration_of_a_run_is_written_as_flower_reads_it(value, text):
    assert local._toml(value) == text
    assert tomllib.loads(f"x = {local._toml(value)}")["x"] in (value, "C:/out")
