"""Real processes on loopback: a SuperLink, two SuperNodes, TLS, node keys. Slow; needs a Python with Flower in FL_COURSE_FLOWER.

One deployment serves the tests of this file, in their order; the last one looks whether anybody is left of all of it.
"""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fl_course import History, load
from fl_course.deploy.certificates import certificates
from fl_course.deploy.environment import VARIABLE
from fl_course.deploy.export import export
from fl_course.deploy.local import Local

FLOWER = os.environ.get(VARIABLE, "")
pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(600),
    pytest.mark.skipif(not FLOWER, reason=f"{VARIABLE} names no Python with Flower; .ci/run makes one and runs these tests"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc to see who is left and who is talked to"),
]  # fmt: skip

HEAD = "from fl_course import *\n\n\ndef experiment():\n    data = synthetic(0.5, 0.5, clients=4, dim=6, classes=3)\n"
WATCH = '''
import os, socket, sys
def hook(name, args):
    if name in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["SEEN"], "a") as file:
            print(os.getpid(), name, repr(args[1] if name != "socket.getaddrinfo" else args[0]), file=file)
sys.addaudithook(hook)
'''


def app(folder, text):
    source = folder.with_suffix(".py")
    source.write_text(HEAD + text)
    return export(folder, source)


def experiment_of(folder):
    scope = {}
    exec((next(folder.glob("*/experiment.py"))).read_text(), scope)
    return scope["experiment"]()


def alive(mark):
    """The processes that were started with this word in their environment: their numbers and names."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if mark.encode() in (folder / "environ").read_bytes() and b"\nState:\tZ" not in (folder / "status").read_bytes():
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
            except OSError:
                continue
    return found


def connected_to(pids):
    """Remote addresses of all TCP and UDP sockets of these processes, from the kernel: (address, port) in hexadecimal."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            inodes |= {target[8:-1]} if target.startswith("socket:[") else set()
    remote = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes and int(words[2].split(":")[0], 16):
                remote.add(words[2].split(":")[0])
    return remote


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("flower")


@pytest.fixture(scope="module")
def local(room):
    (room / "watch").mkdir()
    (room / "watch" / "sitecustomize.py").write_text(WATCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(room / "watch"))
        patch.setenv("SEEN", str(room / "seen.txt"))
        with Local(FLOWER, nodes=2, tls=True, folder=room / "run") as running:
            yield running


STATEFUL = '''    return Coordinator(data, logistic(6, 3), LocalSGD(lr=0.1, epochs=1, batch_size=10), Synchronous(1.0),
                       stages=[TopK(0.3)], optimizer=FedAdam(lr=0.05))
'''


def test_simulated_and_deployed_are_one_run(local, room):
    """Two rounds over TLS with registered nodes: the model to the bit, every record, with residuals that live on the nodes."""
    folder, remote = app(room / "stateful", STATEFUL), set()
    lines = local.run(folder, rounds=2, out=room / "out1", watch=lambda _: remote.update(connected_to(alive(str(room)))))
    assert sum("is here with 2 clients" in line for line in lines) == 2
    it = experiment_of(folder)
    simulated, records = it.train(2), History.from_json(room / "out1" / "history.json").records
    state = load(room / "out1" / "model.ckpt", it)
    assert np.abs(state.server.params - simulated.state.server.params).max() <= 1e-6
    assert [record.bytes_up for record in records] == [record.bytes_up for record in simulated.records]
    assert [record.bytes_down for record in records] == [record.bytes_down for record in simulated.records]
    assert [record.upload for record in records] == [record.upload for record in simulated.records]
    version = subprocess.check_output([FLOWER, "-c", "import torch; print(torch.__version__)"], text=True).strip()
    if version == torch.__version__:
        assert state.server.params.tobytes() == simulated.state.server.params.tobytes()
        assert records == simulated.records
    assert remote
    assert remote <= LOOPBACK


def test_a_wrong_key_and_a_wrong_authority_are_turned_away(local, room):
    certificates(room / "others")
    local.start_node(7, registered=False)
    local.start_node(8, authority=room / "others" / "ca.pem")
    stranger, misled = local.processes["node7"], local.processes["node8"]
    assert stranger.wait(60) != 0
    assert misled.wait(60) != 0
    assert "Failed to activate SuperNode" in local.log("node7", 400)
    assert "CERTIFICATE_VERIFY_FAILED" in local.log("node8", 400)
    assert "No SuperNode found with the given public key" in local.log("server", 400)


SECURE = '''    return Coordinator(data, logistic(6, 3), LocalSGD(lr=0.1, epochs=1, batch_size=10), Synchronous(1.0),
                       weights=Uniform(), stages=[SecureSum(clip=1.0)])
'''


def test_secure_sum_over_real_processes(local, room):
    folder = app(room / "secure", SECURE)
    local.run(folder, rounds=1, out=room / "out2")
    it = experiment_of(folder)
    simulated, (record,) = it.train(1), History.from_json(room / "out2" / "history.json").records
    np.testing.assert_allclose(load(room / "out2" / "model.ckpt", it).server.params, simulated.state.server.params, atol=1e-6)
    assert {"keys", "shares", "consistency", "unmask"} <= record.bytes_up.keys()
    assert record.bytes_up == simulated.records[0].bytes_up


BUFFERED = '''    return Coordinator(data, logistic(6, 3), LocalSGD(lr=0.1, epochs=1, batch_size=10), Buffered(4, 2))
'''


def test_fedbuff_on_the_real_clock_goes_on_when_a_node_is_killed(local, room):
    """The schedule of chapter 7 decides over Flower's push and pull. From the third step on only one node answers."""
    folder = app(room / "buffered", BUFFERED)

    def watch(line):
        if line.startswith("round 3"):
            local.kill_node(1)

    local.run(folder, rounds=6, clock="real", out=room / "out3", lost_after=25, watch=watch)
    records = History.from_json(room / "out3" / "history.json").records
    assert len(records) == 6
    assert set(records[-1].clients) <= set(experiment_of(folder).clients[0::2])
    assert any(stale > 0 for record in records for stale in record.staleness)
    assert all(a.clock < b.clock for a, b in itertools.pairwise(records))


def test_a_node_killed_in_the_middle_of_a_round_does_not_lose_the_run(local, room):
    """A synchronous round: the dead node's clients are lost with a sentence, the others make the step."""
    local.nodes = 2
    local.start_node(1)
    folder = app(room / "killed", STATEFUL)
    killed = []

    def watch(line):
        if line.startswith("round 1"):
            killed.append(local.kill_node(1))

    local.run(folder, rounds=3, out=room / "out4", lost_after=25, watch=watch)
    first, second, third = History.from_json(room / "out4" / "history.json").records
    assert killed
    assert len(first.clients) == 4
    assert len(second.clients) == len(third.clients) == 2
    assert any("no answer in 25 seconds" in event or "its node is gone" in event for event in second.events)


def test_nobody_asked_for_anything_beyond_loopback(local, room):
    seen = (room / "seen.txt").read_text().splitlines()
    assert seen
    strange = [line for line in seen if not any(word in line for word in ("127.0.0.1", "localhost", "::1", "'/", "b'/", "None"))]
    assert strange == []


def test_nobody_is_left(local, room):
    assert alive(str(room))
    local.__exit__(None, None, None)
    assert alive(str(room)) == {}


def test_ctrl_c_ends_the_command_and_all_that_it_started(room):
    mark = f"MARK_{os.getpid()}"
    words = [sys.executable, "-m", "fl_course", "deploy", "local", "--out", str(room / "cut")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "MARK": mark}) as process:
        for line in process.stdout:
            if b"is here with" in line:
                break
        assert len(alive(mark)) >= 4
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().decode()
        assert process.wait(60) == 1
    assert "has ended" in rest
    assert alive(mark) == {}
