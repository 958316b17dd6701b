"""From a budget to a plan: how much noise for so many rounds, and how many rounds for so much noise.

Both answers err on the safe side: the accountant's own price of the plan is never above the budget.
"""

from __future__ import annotations

from collections.abc import Callable

from ..mechanisms import between, bisect, positive
from .events import Event, Gaussian, PoissonSampled, Repeated
from .pld import PLD
from .pricing import Accountant, Events
from .simplify import tally

MANY = 1_000_000                                                # rounds; nobody trains longer


def noise_for_budget(
    epsilon: float,
    delta: float,
    rounds: int,
    rate: float = 1.0,
    accountant: Accountant | None = None,
    release: Callable[[float], Event] | None = None,
    tolerance: float = 1e-4,
) -> float:
    """The smallest noise multiplier z (relative `tolerance`, from above) for `rounds` rounds within (epsilon, delta).

    A round is `PoissonSampled(rate, Gaussian(z))` unless `release(z)` says otherwise. `PLD()` is the default; `RDP()`
    asks for somewhat more noise and answers in milliseconds.
    """
    positive("epsilon", epsilon)
    between("delta", delta)
    if not 0 < rate <= 1:
        raise ValueError(f"rate must lie in (0, 1], not {rate!r}")
    judge = accountant or PLD()
    one_round = release or (lambda z: PoissonSampled(rate, Gaussian(z)))
    if not tally(Repeated(one_round(1.0), rounds)):
        return 0.0
    return bisect(lambda z: judge.epsilon(Repeated(one_round(z), rounds), delta) <= epsilon, tolerance=tolerance)


def rounds_for_budget(
    epsilon: float,
    delta: float,
    event: Event,
    accountant: Accountant | None = None,
    spent: Events = (),
    limit: int = MANY,
) -> int:
    """The largest number of rounds of `event` that, after `spent`, keep (epsilon, delta); 0 if not even one does.

    At most `limit`, which is also the answer for an event that costs nothing.
    """
    positive("epsilon", epsilon)
    between("delta", delta)
    judge = accountant or PLD()
    before = tuple(Repeated(past, count) for past, count in tally(spent).items())

    def affordable(rounds: int) -> bool:
        return judge.epsilon((*before, Repeated(event, rounds)), delta) <= epsilon

    enough, too_many = 0, 1
    while affordable(too_many):
        enough, too_many = too_many, 2 * too_many
        if enough >= limit:
            return limit
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        enough, too_many = (middle, too_many) if affordable(middle) else (enough, middle)
    return min(enough, limit)
