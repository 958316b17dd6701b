"""`fl-course classroom`: says where to go, serves until it is interrupted, keeps the history, leaves no port."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from fl_course import History
from fl_course.workbook.commands.classroom import keep
from fl_course.workbook.commands.cli import app
from fl_course.workbook.room.pages import qr
from fl_course.workbook.room.room import Room


@pytest.mark.skipif(os.name == "nt", reason="a test cannot press Ctrl-C in another console")
def test_the_command_serves_until_it_is_interrupted(tmp_path):
    command = [sys.executable, "-m", "fl_course", "classroom", "--seats", "3", "--simulate", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True)
    try:
        said, began = "", time.monotonic()
        while "Ctrl-C" not in said and time.monotonic() - began < 60:
            said += process.stdout.readline()
        url = re.search(r"phones:\s+(http://127\.0\.0\.1:\d+/[A-Z0-9]{6})", said)[1]
        assert urllib.request.urlopen(url, timeout=5).status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0])), 1):
            pass
    finally:
        process.kill()
        process.stdout.close()


def test_every_run_is_kept_as_it_ends_and_what_lies_there_stays(tmp_path, monkeypatch):
    out, rooms = tmp_path / "room.json", []
    (tmp_path / "room-2.json").write_text("last week's")

    def opened(*given):
        rooms.append(Room(*given))
        return rooms[0]

    def sleep(seconds):                                                       # what happens while the command waits
        (room,) = rooms
        assert len(list(tmp_path.glob("room-*.json"))) == 1 + len(room.runs)  # before the room is closed
        if len(room.runs) == 3:
            raise KeyboardInterrupt
        room.train(1 + len(room.runs), deadline=10.0)

    monkeypatch.setattr("fl_course.workbook.room.room.Room", opened)
    monkeypatch.setattr("fl_course.workbook.commands.classroom.time", SimpleNamespace(sleep=sleep))
    done = CliRunner().invoke(app, ["classroom", "--seats", "3", "--share", "5", "--simulate", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert [len(History.from_json(tmp_path / f"room-{n}.json")) for n in (1, 3, 4)] == [1, 2, 3]
    assert (tmp_path / "room-2.json").read_text() == "last week's"
    assert not out.exists()


def test_a_disk_that_is_full_does_not_end_the_lesson(tmp_path, capsys):
    with Room(seats=2, share=5, simulate=2) as room:
        history = room.train(1)
    (tmp_path / "file").write_text("")
    keep(history, tmp_path / "file" / "room.json")
    assert "cannot be written" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "sentence"), [
    (["--lan", "203.0.113.7"], "nobody can listen at 203.0.113.7"), (["--seats", "2", "--simulate", "3"], "simulate must be"),
    (["--lan", "0.0.0.0"], "no phone can open 0.0.0.0"),
])  # fmt: skip
def test_what_cannot_be_opened_is_a_sentence(options, sentence):
    done = CliRunner().invoke(app, ["classroom", *options])
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())


def test_a_port_that_is_taken_is_a_sentence():
    with Room(seats=1, share=5) as room:
        done = CliRunner().invoke(app, ["classroom", "--port", str(room.port)])
    assert done.exit_code == 2
    assert "nobody can listen" in " ".join(done.output.split())


def test_a_notebook_shows_where_to_go_and_a_history_is_one_like_others(tmp_path):
    with Room(seats=2, share=5, simulate=2) as room:
        assert room.url in room._repr_html_()
        assert room.projector_url in room._repr_html_()
        assert "2 here" in repr(room)
        history = room.train(2)
    history.to_json(tmp_path / "room.json")
    assert len(json.loads((tmp_path / "room.json").read_text(encoding="utf-8"))["records"]) == 2
    assert len(history.to_pandas()) == 2


def test_the_picture_of_an_address():
    pytest.importorskip("segno")
    assert qr("http://127.0.0.1:8000/ABCDEF").startswith("<svg")
