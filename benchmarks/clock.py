"""How many events a second the simulated clock makes on one core: alone, in a rehearsal, and in the loop with real messages.

    python -m benchmarks.clock

An event is the end of a training or the arrival of an answer. Processor time, the best of three: the machine may be busy.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal

import numpy as np

from fl_course import Buffered, Coordinator, Evaluation, LocalSGD, LogNormal, Uniform, from_clients, logistic, rehearse
from fl_course.federation.agenda import DUE, START, Agenda


def agenda_alone(devices: int, at_work: int, buffer: int, answers: int) -> int:
    """Ends of jobs, each of which starts another; nothing but the agenda. Two events a job, as elsewhere here."""
    seconds = [Decimal(1 + k % 97) / 10 for k in range(devices)]
    idle, jobs, ticket, events = deque(range(devices)), {}, 0, 0
    agenda = Agenda.opened(Buffered(at_work, buffer), devices, Decimal(0), Decimal("Infinity"), [])
    while events < 2 * answers:
        what, number = agenda.next()
        if what == START:
            for _ in range(number):
                jobs[ticket] = idle.popleft(), False
                agenda.add(agenda.clock + seconds[jobs[ticket][0]], ticket)
                ticket += 1
            agenda.started(number, None)
        elif what == DUE:
            client, sent = jobs.pop(number)
            events += 1
            if sent:
                idle.append(client)
                agenda.under_way, agenda.arrived = agenda.under_way - 1, agenda.arrived + 1
            else:
                jobs[number] = client, True
                agenda.add(agenda.clock + seconds[client], number)
        else:
            agenda.arrived, agenda.first = 0, True
    return events


def experiment(devices: int, at_work: int, buffer: int) -> Coordinator:
    x, y = np.zeros((devices, 2), np.float32), np.arange(devices) % 2
    data = from_clients("many", {k: (x[k : k + 1], y[k : k + 1]) for k in range(devices)}, 2)
    return Coordinator(
        data, logistic(2, 2), LocalSGD(epochs=1), Buffered(at_work, buffer), weights=Uniform(),
        fleet=LogNormal(speed_spread=1.0), evaluation=Evaluation(10**6),
    )  # fmt: skip


def rate(run: Callable[[], int], times: int = 3) -> float:
    best = 0.0
    for _ in range(times):
        began = time.process_time()
        events = run()
        best = max(best, events / (time.process_time() - began))
    return best


def main() -> int:
    print("devices  at work  buffer    agenda alone    rehearsal    loop, training one example each")
    for devices, at_work, buffer in ((100, 20, 10), (1_000, 100, 10), (10_000, 1_000, 100)):
        it, steps = experiment(devices, at_work, buffer), 2_000 // buffer
        alone = rate(lambda a=(devices, at_work, buffer): agenda_alone(*a, answers=20_000))
        quick = rate(lambda it=it, steps=steps: 2 * sum(len(r.clients) for r in rehearse(it, steps).records))
        real = rate(lambda it=it, steps=steps: 2 * sum(len(r.clients) for r in it.train(steps).records))
        print(f"{devices:7,}  {at_work:7,}  {buffer:6}  {alone:14,.0f}  {quick:11,.0f}  {real:10,.0f}   events a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
