"""The first thing a newcomer runs: a table a round, and three files that agree with each other."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest
from rich.console import Console

from fl_course.federation.history import History
from fl_course.workbook.commands.demo import experiment, run_demo, table


@pytest.fixture(scope="module")
def trained():
    return experiment().train(2)


def test_demo_prints_a_line_a_round_and_leaves_its_reports(tmp_path):
    text = io.StringIO()
    assert run_demo(3, tmp_path / "new" / "reports", console=Console(file=text, width=120)) == 0
    printed = text.getvalue()
    history = History.from_json(tmp_path / "new" / "reports" / "fedavg.json")
    table = History.read_csv(tmp_path / "new" / "reports" / "fedavg.csv")
    pd.testing.assert_frame_equal(table, history.to_pandas())
    assert list(table.index) == [1, 2, 3]
    for record in history.records:
        assert f"{record.metrics['accuracy']:.3f}" in printed
    assert f"{history.last('accuracy'):.1%}" in printed
    assert f"{history.megabytes:.1f} MB" in printed
    assert (tmp_path / "new" / "reports" / "fedavg.png").read_bytes().startswith(b"\x89PNG")
    json.loads((tmp_path / "new" / "reports" / "fedavg.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("width", "heads"), [(120, 7), (80, 7), (60, 7), (40, 4), (20, 2), (10, 1)])
def test_on_a_narrow_terminal_a_number_is_whole_or_left_out(trained, width, heads):
    text = io.StringIO()
    Console(file=text, width=width).print(table(trained, width))
    printed = text.getvalue()
    assert "…" not in printed
    record = trained.records[-1]
    shown = [str(record.version), f"{record.metrics['accuracy']:.3f}", f"{record.metrics['loss']:.3f}"][:heads]
    last = printed.splitlines()[-2]
    cells = last.split("│")[1:-1]
    assert len(cells) == heads
    assert [cell.strip() for cell in cells[:3]] == shown


def test_demo_learns_non_iid_mnist():
    fed = experiment()
    kinds = (fed.data.label_counts() > 0).sum(axis=1)
    assert len(fed.data) == 100
    assert kinds.max() <= 4                                  # shards straddle a border of labels now and then
    history = fed.train(30)
    assert [len(record.clients) for record in history.records] == [10] * 30
    assert history.last("accuracy") > 0.75


def test_demo_refuses_no_rounds(tmp_path):
    with pytest.raises(ValueError, match="rounds must be"):
        run_demo(0, tmp_path)
