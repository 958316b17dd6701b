"""How long one RDP epsilon takes, beside dp-accounting's RDP on the same orders; and the tight PLD figure.

    python benchmarks/accounting.py

Caches are emptied before each run. The minimum of several runs is shown: the machine may be busy with other things.
"""

import logging
import time
from collections.abc import Callable

import dp_accounting
from dp_accounting.rdp import RdpAccountant

from fl_course.privacy.accounting import PLD, RDP, Gaussian, PoissonSampled, Repeated, pld, rdp

# (rate, noise multiplier, rounds)
ROWS = [(0.01, 4.0, 10_000), (0.01, 1.0, 1_000), (0.1, 1.1, 200), (0.1, 2.0, 100)]
ROWS += [(256 / 60_000, 1.1, 14_063), (0.05, 0.8, 50)]
DELTA = 1e-5


def milliseconds(run: Callable[[], float], repeats: int) -> tuple[float, float]:
    """The fastest of `repeats` runs, and what it returned."""
    best, value = float("inf"), 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        value = run()
        best = min(best, time.perf_counter() - start)
    return 1000 * best, value


def ours(rate: float, z: float, rounds: int) -> float:
    rdp._curve.cache_clear()
    return RDP().epsilon(Repeated(PoissonSampled(rate, Gaussian(z)), rounds), DELTA)


def theirs(rate: float, z: float, rounds: int, orders: tuple[float, ...]) -> float:
    accountant = RdpAccountant(orders)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(z)), rounds)
    return accountant.get_epsilon(DELTA)


def tight(rate: float, z: float, rounds: int) -> float:
    pld._distribution.cache_clear()
    return PLD().epsilon(Repeated(PoissonSampled(rate, Gaussian(z)), rounds), DELTA)


def main() -> None:
    logging.disable(logging.WARNING)                            # dp-accounting tells of each order that it gives up on
    print(f"{len(rdp.ORDERS)} orders, {len(rdp.FRACTIONS)} of them fractional; delta = {DELTA}; times in ms")
    print("    rate      z  rounds |  RDP eps    time | dp-accounting    time  ratio | integer orders | PLD eps   time")
    whole = tuple(float(order) for order in rdp.INTEGERS)
    for rate, z, rounds in ROWS:
        time_ours, epsilon = milliseconds(lambda row=(rate, z, rounds): ours(*row), 9)
        time_theirs, other = milliseconds(lambda row=(rate, z, rounds): theirs(*row, rdp.ORDERS), 3)
        time_whole, _ = milliseconds(lambda row=(rate, z, rounds): theirs(*row, whole), 3)
        time_tight, best = milliseconds(lambda row=(rate, z, rounds): tight(*row), 3)
        print(
            f"{rate:8.4f} {z:6.1f} {rounds:7d} | {epsilon:8.4f} {time_ours:7.2f} | {other:13.4f} {time_theirs:7.1f} "
            f"{time_theirs / time_ours:5.1f}x | {time_whole / time_ours:13.1f}x | {best:7.4f} {time_tight:6.1f}"
        )


if __name__ == "__main__":
    main()
