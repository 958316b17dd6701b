"""What everybody knows before a round begins, and who shares secrets with whom.

On the complete graph (Bonawitz et al. 2017) every two clients agree on a mask: n − 1 masks of d numbers for each.
SecAgg+ (Bell et al. 2020) joins each client to k others only, k of the order of log n. The protocol is the same code:
only `neighbours` differs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..core import ClientId, fingerprint, stream, whole
from ..wire.ring import ring_dtype

ROUND_ID_BYTES = 16


@dataclass(frozen=True)
class Setup:
    """The public parameters of one round.

    round_id    16 fresh random bytes; every key, signature and share is bound to it
    cohort      the clients asked, in the order that gives them their positions 0 … n − 1
    threshold   t: shares needed to open a secret, and the fewest uploads that are ever summed
    dimension   d: length of every input vector
    ring_bits   b: inputs and masks are integers modulo 2^b, 8 <= b <= 64
    degree      None: the complete graph. k: SecAgg+, each client has k neighbours; then t counts among k + 1
    """

    round_id: bytes
    cohort: tuple[ClientId, ...]
    threshold: int
    dimension: int
    ring_bits: int = 32
    degree: int | None = None

    def __post_init__(self) -> None:
        n = len(self.cohort)
        if not isinstance(self.round_id, bytes) or len(self.round_id) != ROUND_ID_BYTES:
            raise ValueError(f"round_id must be {ROUND_ID_BYTES} random bytes")
        if len(set(self.cohort)) != n:
            raise ValueError(f"duplicate ids in the cohort {self.cohort}: each client has one vote and one mask")
        if any(isinstance(i, bool) or not isinstance(i, int | str) for i in self.cohort):
            raise TypeError(f"client ids are ints or strings, not {self.cohort}")
        if "server" in self.position:
            raise ValueError("no client may be called 'server'")
        for name in ("threshold", "dimension", "ring_bits", "degree"):   # NumPy's integers overflow where Python's grow
            if name != "degree" or self.degree is not None:
                object.__setattr__(self, name, whole(getattr(self, name), name))
        if self.dimension < 1:
            raise ValueError(f"dimension = {self.dimension} must be at least 1")
        ring_dtype(self.ring_bits)
        check_numbers(n, self.threshold, self.degree)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that two participants share only if they believe in the same round: cohort, its order, and numbers."""
        numbers = self.threshold, self.dimension, self.ring_bits, self.degree
        return fingerprint("secagg-setup", self.round_id, self.cohort, *numbers)

    @cached_property
    def position(self) -> dict[ClientId, int]:
        return {client: index for index, client in enumerate(self.cohort)}

    @cached_property
    def _graph(self) -> dict[ClientId, tuple[ClientId, ...]]:
        n = len(self.cohort)
        if self.degree is None:
            return {i: tuple(j for j in self.cohort if j != i) for i in self.cohort}
        # A Harary graph: a circle in random order, joined to the k / 2 next on either side (k odd: the opposite too).
        # The order comes from the round id, so everybody can compute it and nobody can choose a place in advance.
        circle = stream(0, "secagg-graph", self.round_id).permutation(n)
        near = range(1, self.degree // 2 + 1)
        steps = {s % n for step in near for s in (step, -step)} | ({n // 2} if self.degree % 2 else set())
        joined: dict[ClientId, tuple[ClientId, ...]] = {}
        for place, index in enumerate(circle):
            others = sorted(int(circle[(place + step) % n]) for step in steps)
            joined[self.cohort[index]] = tuple(self.cohort[other] for other in others)
        return joined

    def neighbours(self, client: ClientId) -> tuple[ClientId, ...]:
        """The clients that `client` shares masks and secrets with, in cohort order. ValueError for a stranger."""
        if client not in self.position:
            raise ValueError(f"client {client!r} is not in the cohort")
        return self._graph[client]

    @cached_property
    def _holders(self) -> dict[ClientId, tuple[ClientId, ...]]:
        return {i: tuple(sorted((i, *self.neighbours(i)), key=self.position.__getitem__)) for i in self.cohort}

    def holders(self, client: ClientId) -> tuple[ClientId, ...]:
        """Who holds shares of `client`'s secrets: its neighbours and itself, in cohort order."""
        return self._holders[client]

    def point(self, owner: ClientId, holder: ClientId) -> int:
        """The x of `holder`'s share of `owner`'s secrets: 1 for the first holder, and so on."""
        return self.holders(owner).index(holder) + 1

    def in_order(self, clients: Iterable[ClientId]) -> tuple[ClientId, ...]:
        return tuple(sorted(clients, key=self.position.__getitem__))


def check_numbers(n: int, threshold: int, degree: int | None = None) -> None:
    """ValueError unless a round of n clients can open a sum, and no server both secrets of a client."""
    if n < 2:
        raise ValueError(f"{n} clients: a secure sum needs at least 2, the sum of one is its input")
    if degree is not None:
        k = whole(degree, "degree")
        if not 2 <= k < n or k * n % 2:
            raise ValueError(
                f"degree = {k}: each of {n} clients can have 2 … {n - 1} neighbours, and degree · {n} must be even"
            )
    t, holders = whole(threshold, "threshold"), n if degree is None else degree + 1
    if t < 2:
        raise ValueError(f"threshold = {t}: with fewer than 2, one client could open the secrets of another")
    if t > holders:
        raise ValueError(f"threshold = {t} exceeds the {holders} clients that hold shares of a secret")
    if 2 * t <= holders:
        raise ValueError(
            f"threshold = {t} must be more than half of the {holders} holders of a secret: else a server could "
            f"ask one half for a client's self mask and the other for its mask key; use {holders // 2 + 1} or more"
        )


def why_closed(setup: Setup, survivors: Collection[ClientId]) -> str:
    """Why honest participants, all of whom shared their secrets, open no sum of these survivors; "" if they open it.

    What the protocol does step by step (client.py, server.py), said at once, for sums that are made without it.
    """
    here, t = set(survivors), setup.threshold
    if len(here) < t:
        return f"{len(here)} clients at 'upload' are fewer than the threshold {t}; nothing was opened"
    if components(setup, here) > 1:
        return "the survivors fall apart into groups without common masks: each group's sum would be visible"
    if setup.degree is None:
        return ""
    for owner in setup.cohort:                               # of whoever put a mask into the sum a secret must be opened
        helpers = here.intersection(setup.holders(owner))
        if helpers and len(helpers) < t:
            return f"{len(helpers)} survivors hold shares of {owner!r}, fewer than the threshold {t}; nothing was opened"
    return ""


def components(setup: Setup, clients: Collection[ClientId]) -> int:
    """How many pieces the graph falls into when only `clients` are left.

    Masks cancel within a piece, so with more than one the server would see the sum of each piece, not only of all.
    """
    left, pieces = set(clients), 0
    if setup.degree is None:
        return min(1, len(left))
    while left:
        pieces, reached = pieces + 1, [left.pop()]
        while reached:
            found = left.intersection(setup.neighbours(reached.pop()))
            left -= found
            reached.extend(found)
    return pieces


def recommended_degree(
    n: int, corrupt: float = 0.2, dropped: float = 0.2, security: float = 40, reliability: float = 30
) -> tuple[int, int]:
    """(degree k, threshold t) of SecAgg+ for n clients, after the three conditions of Bell et al. (2020, section 3).

    With at most `corrupt` · n clients in league with the server and `dropped` · n lost, except with probability
    2^−security nobody's neighbourhood has t corrupt members and the survivors stay connected, and except with
    probability 2^−reliability t neighbours of everybody answer. Falls back on the complete graph for small n.
    """
    from scipy.stats import hypergeom

    if whole(n, "n") < 2 or corrupt < 0 or dropped < 0 or corrupt + dropped >= 1:
        raise ValueError(f"n = {n}, corrupt = {corrupt}, dropped = {dropped}: need n >= 2 and corrupt + dropped < 1")
    for k in range(4, n - 1, 2):
        apart = n * (corrupt + dropped) ** (k // 2)          # a gap of k / 2 on the circle, starting anywhere
        if apart > 2.0**-security:
            continue
        for t in range((k + 1) // 2 + 1, k + 1):
            opened = n * hypergeom.sf(t - 1, n - 1, int(np.ceil(corrupt * n)), k)       # t or more corrupt neighbours
            failed = n * hypergeom.cdf(t - 1, n - 1, int((1 - dropped) * n), k)         # fewer than t answers
            if opened <= 2.0**-security and failed <= 2.0**-reliability:
                return k, t
    return n - 1, 2 * n // 3 + 1
