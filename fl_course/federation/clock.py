"""Simulated seconds, added and compared without rounding.

A number of seconds means the decimal that Python prints for it. So 0.1 + 0.2 is 0.3, and an answer at the very second of a
deadline counts, however long the clock has been running. Within a step all instants are such exact sums; what is recorded,
and carried to the next step, is the nearest float, which prints as the same decimal up to 15 digits.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation
from fractions import Fraction
from functools import lru_cache

# Numbers of seconds lie between 5e-324 and 1e300, so that a sum has at most 640 digits. A trap says if that were wrong.
EXACT = Context(prec=700, traps=[Inexact, InvalidOperation])


@lru_cache(maxsize=100_000, typed=True)         # a step asks again for the instants of all jobs that are under way
def exact(seconds: float | Decimal) -> Decimal:
    """The decimal that is printed for it; infinity is itself."""
    return Decimal(str(seconds))


def later(instant: Decimal, seconds: Decimal) -> Decimal:
    return EXACT.add(instant, seconds)


def between(start: Decimal, end: Decimal) -> float:
    """Seconds from one instant to another."""
    return float(EXACT.subtract(end, start))


def under_way(nbytes: int, now: Decimal, began: Decimal, arrives: Decimal) -> int:
    """How many bytes of a message have left by now, if it leaves evenly from `began` to `arrives`."""
    if arrives <= now:
        return nbytes
    return int(nbytes * (Fraction(now) - Fraction(began)) / (Fraction(arrives) - Fraction(began)))
