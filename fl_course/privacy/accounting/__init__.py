"""Privacy accounting: what happened (events), what it costs (accountants), what is left (the ledger).

    round = PoissonSampled(0.02, Gaussian(1.1))             # every client by its own coin; z = 1.1 clip bounds of noise
    PLD().epsilon(Repeated(round, 100), delta=1e-5)         # 100 such rounds, the tight figure
    RDP().epsilon(Repeated(round, 100), delta=1e-5)         # the readable one, somewhat higher
    noise_for_budget(epsilon=2.0, delta=1e-5, rounds=100, rate=0.02)
    Ledger(2.0, 1e-5).rounds_remaining(round)

Read in the order events, simplify, pricing, rdp, accountants, composition, pld, calibration, ledger.
"""

from .accountants import GDP, RDP, ZCDP
from .calibration import noise_for_budget, rounds_for_budget
from .composition import Advanced, Basic
from .events import (
    ChosenBy,
    Composed,
    Event,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    NonPrivate,
    PoissonSampled,
    Release,
    Repeated,
    TreeAggregation,
    event_from_plain,
    event_to_plain,
)
from .ledger import Ledger
from .pld import PLD
from .pricing import Accountant, UnpricedEvent
from .simplify import tally

__all__ = [
    "GDP", "PLD", "RDP", "ZCDP", "Accountant", "Advanced", "Basic", "ChosenBy", "Composed", "Event", "FixedSizeSampled",
    "Gaussian", "Laplace", "Ledger", "NonPrivate", "PoissonSampled", "Release", "Repeated", "TreeAggregation",
    "UnpricedEvent", "event_from_plain", "event_to_plain", "noise_for_budget", "rounds_for_budget", "tally",
]  # fmt: skip
