"""What the tests of the commands share."""

import pytest

from fl_course.workbook.commands import cli


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command of fl-course in an empty folder; returns (exit code, what it said)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words):
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return end.value.code or 0, said.out + said.err

    return command
