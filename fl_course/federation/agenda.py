"""What happens next: the order of events on the simulated clock, and nothing else. Who has a job, and what, is the loop's.

    1. the server steps, if its schedule is content: nobody is started with a model that is about to be replaced
    2. clients are started, before the deadline; those that finish at this very instant are heard first
    3. time passes until somebody finishes, one after the other: (instant, ticket) is a total order

Training never looks at the clock and the clock never looks at training, so it does not matter when in real time a client trains
(see work.py), and a rehearsal without any training has the same events (asynchrony/rehearsal.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from .interfaces import Schedule

STEP, START, DUE = "step", "start", "due"
PATIENCE = 10_000       # a fleet may put off a client that it had promised so often, then it is asked what it means


@dataclass
class Agenda:
    """The events until the server's next step. The loop counts for it: under_way (jobs that have not ended), arrived."""

    schedule: Schedule
    clients: int                            # that have data
    clock: Decimal                          # the present instant
    closes: Decimal                         # the deadline
    due: list[tuple[Decimal, int]]          # a heap: when something happens to the job with this ticket
    under_way: int = 0
    arrived: int = 0                        # answers that the step will use
    first: bool = True                      # nobody was asked since the last step
    back: Decimal | None = None             # when somebody who is wanted and away comes back
    asked: bool = False                     # at this instant, after this event: whoever is idle now stays so until the next
    waits: int = 0                          # for somebody to come back, one after another in vain

    @classmethod
    def opened(
        cls, schedule: Schedule, clients: int, clock: Decimal, closes: Decimal, due: Iterable[tuple[Decimal, int]],
    ) -> Agenda:  # fmt: skip
        """At the beginning of a step, with the jobs that are still under way from before."""
        heap = list(due)
        heapq.heapify(heap)
        return cls(schedule, clients, clock, closes, heap, under_way=len(heap))

    def add(self, instant: Decimal, ticket: int) -> None:
        heapq.heappush(self.due, (instant, ticket))

    def started(self, count: int | None, back: Decimal | None) -> None:
        """What came of "start": so many are under way now; None: nobody was idle. back: when the first of those who are away
        can be asked."""
        if count is not None:
            self.under_way, self.first, self.waits = self.under_way + count, False, 0
            back = back if self.schedule.start(self.clients, self.under_way, self.first) else None
        self.back = back

    def next(self) -> tuple[str, int]:
        """("step", 0), ("start", how many), or ("due", a ticket), with the clock put on to that instant."""
        due = self.due
        while True:
            if not self.asked:
                self.back = None
                if (self.arrived or not self.first) and self.schedule.ready(self.under_way, self.arrived, self.clients):
                    return STEP, 0
                if self.clock < self.closes and not (due and due[0][0] <= self.clock):
                    wanted = self.schedule.start(self.clients, self.under_way, self.first)
                    if wanted:
                        self.asked = True
                        return START, wanted
            self.asked = False
            back = self.back
            if back is not None and not (due and due[0][0] <= back):
                self.clock, self.waits = min(back, self.closes), self.waits + 1
                if self.waits > PATIENCE:
                    raise ValueError(f"the fleet has put off the clients {PATIENCE} times in a row; who is ever there?")
                if back > self.closes:
                    return STEP, 0
                continue
            if not due or due[0][0] > self.closes:                      # nobody is left to wait for, or it is too late
                self.clock = self.closes if due else self.clock
                return STEP, 0
            self.clock, ticket = heapq.heappop(due)
            return DUE, ticket
