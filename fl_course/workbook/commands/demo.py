"""What `fl-course run` shows first: FedAvg learns handwritten digits that never leave a hundred clients."""

from __future__ import annotations

import io
import time
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fl_course.core import Record
from fl_course.data.partition import Shards
from fl_course.data.sources import mnist
from fl_course.engine.local import LocalSGD
from fl_course.engine.models import mlp
from fl_course.federation.coordinator import Coordinator
from fl_course.federation.history import MB, History
from fl_course.federation.schedule import Synchronous

from ..lesson import canvas, for_any_page
from .runner import keep

HEADS = ["round", "accuracy", "loss", "worst tenth", "train loss", "MB up", "MB down"]


def experiment(seed: int = 0) -> Coordinator:
    """MNIST, 100 clients with two label shards each (so most have seen two digits of ten), C = 0.1, E = 5, B = 10."""
    return Coordinator(
        data=mnist().partition(Shards(2), clients=100, seed=seed),
        model=mlp(784, 64, 10),
        training=LocalSGD(lr=0.1, epochs=5, batch_size=10),
        schedule=Synchronous(fraction=0.1, min_clients=10),
        seed=seed,
    )


def run_demo(rounds: int = 30, out: Path = Path("reports"), seed: int = 0, console: Console | None = None) -> int:
    """Train, print a table that grows by a line a round, write fedavg.{png,csv,json} to `out`. Returns the exit code: 1 if they
    had to be left elsewhere."""
    if rounds < 1:
        raise ValueError(f"rounds must be a whole number from 1, not {rounds}")
    console = console or Console()
    fed = experiment(seed)
    clients = len(fed.data)
    console.print(f"[bold]FedAvg on MNIST[/]: {len(fed.data.y):,} real images at {clients} clients, "
                  "each with about two of the ten digits.")
    console.print("Each round 10 clients train on their own images and send back only how the model changed.\n")
    history, began = History(experiment=repr(fed)), time.perf_counter()
    with Live(table(history, console.width), console=console, refresh_per_second=10, vertical_overflow="visible") as live:
        for state, record in fed.run(rounds):
            history.records.append(record)
            history.state = state
            live.update(table(history, console.width))
    seconds = time.perf_counter() - began
    console.print(
        f"\nAfter {len(history)} rounds: [bold]accuracy {history.last('accuracy'):.1%}[/], loss {history.last('loss'):.3f} nats, "
        f"{history.megabytes:.1f} MB sent, {seconds:.1f} s on this machine."
    )
    files, trouble = keep(reports(history), out)
    for file in files:
        console.print(f"  wrote {file}", soft_wrap=True)
    if trouble:
        console.print(f"fl-course: {trouble}", soft_wrap=True)
    return int(bool(trouble))


def table(history: History, width: int = 80) -> Table:
    """A line a round: what was learned and what it cost. On a narrow terminal the last columns are left out: half a number is
    worse than none."""
    heads = HEADS
    if _wide(heads) > width:
        heads = [head.replace(" ", "\n") for head in heads]
    while _wide(heads) > width and len(heads) > 1:
        heads = heads[:-1]
    out = Table()
    for head in heads:
        out.add_column(head, justify="right")
    for r in history.records:
        out.add_row(*_row(r)[:len(heads)])
    return out


def _wide(heads: list[str]) -> int:
    """Of a table with these heads, above numbers of five characters: a line left of every column, one at the end."""
    return 1 + sum(3 + max(5, *map(len, head.split("\n"))) for head in heads)


def _row(r: Record) -> tuple[str, ...]:
    metrics = [f"{r.metrics[name]:.3f}" for name in ("accuracy", "loss", "client_accuracy_worst10", "train_loss_last")]
    return (str(r.version), *metrics, f"{sum(r.bytes_up.values()) / MB:.2f}", f"{sum(r.bytes_down.values()) / MB:.2f}")


def reports(history: History) -> dict[str, bytes]:
    """The figure, the table and the whole record, as files: what a run leaves behind."""
    png = io.BytesIO()
    picture(history).savefig(png, format="png", dpi=110, transparent=True)
    table = history.to_pandas().to_csv(na_rep="nan", lineterminator="\r\n")
    return {"fedavg.png": png.getvalue(), "fedavg.csv": table.encode(), "fedavg.json": (history.to_json() + "\n").encode()}


def picture(history: History) -> Figure:
    """Accuracy by round and loss by megabyte; it reads on a white page and on a dark one. The legend lies above the curves."""
    figure, (left, right) = canvas(2)
    history.plot("accuracy", ax=left, label="all held-out images")
    history.plot("client_accuracy_worst10", ax=left, label="worst tenth of the clients")
    left.set(ylabel="accuracy", ylim=(0, 1))
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)
    history.plot("loss", ax=right, x="MB")
    for_any_page(figure)
    return figure
