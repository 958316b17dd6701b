"""What secure aggregation costs: masks, shares, bytes; measured small, and extrapolated with the measured unit costs.

    python -m benchmarks.secure_aggregation [--quick]
"""

from __future__ import annotations

import argparse
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fl_course.secure_aggregation import (
    P31,
    P521,
    PrimeField,
    recommended_degree,
    reconstruct_keys,
    run_round,
    share_keys,
)
from fl_course.secure_aggregation.masking import add_mask, agree, hkdf, insecure_random, private_key, public_bytes


def best(step: Callable[[], object], repeats: int = 3) -> float:
    """Processor seconds of the fastest of `repeats` runs: other programs can only make a run slower."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return min(times)


def masking_seconds(n: int = 100, d: int = 100_000, repeats: int = 3) -> float:
    """All masks of n clients on a complete graph, both ends of each pair, 32-bit ring: n · n expansions and additions."""
    seeds = insecure_random(0, "benchmark")
    table = [[seeds(32) for _ in range(n)] for _ in range(n)]
    total = np.zeros(d, dtype=np.uint32)

    def all_clients() -> None:
        for i, row in enumerate(table):
            for j, seed in enumerate(row):
                add_mask(total, seed, 1 if i <= j else -1)

    return best(all_clients, repeats)


def shamir_seconds(n: int = 100, t: int = 51, sample: int = 4) -> dict[str, tuple[float, float, float]]:
    """Seconds of one round, shares of 2 n keys of 32 bytes and n of them opened: (limb loop, big-integer loop, vectorised).

    The limb loop is the same computation without NumPy: nine limbs modulo 2^31 − 1. The other is the best plain Python:
    a whole key as one element modulo 2^521 − 1. Both use Horner's rule and Lagrange's formula, key by key, on `sample`
    keys, scaled up.
    """
    keys = [secrets.token_bytes(32) for _ in range(2 * n)]
    fast = share_keys(keys, t, n)
    columns: dict[str, list[float]] = {"share": [], "reconstruct": []}
    for prime, limbs in ((P31, 9), (P521, 1)):
        field = PrimeField(prime)

        def plain_share(field: PrimeField = field, limbs: int = limbs) -> list[list[int]]:
            polynomials = [[secrets.randbelow(field.prime) for _ in range(t)] for _ in range(sample * limbs)]
            return [[field.polynomial(poly, x) for x in range(1, n + 1)] for poly in polynomials]

        def plain_open(values: list[list[int]], field: PrimeField = field, limbs: int = limbs) -> None:
            for key in range(sample):
                weights = field.lagrange(range(1, t + 1))
                for ys in values[key * limbs : (key + 1) * limbs]:
                    _ = sum(w * y for w, y in zip(weights, ys[:t], strict=True)) % field.prime

        shares = plain_share()
        columns["share"].append(best(plain_share) * 2 * n / sample)
        columns["reconstruct"].append(best(lambda v=shares, step=plain_open: step(v)) * n / sample)      # type: ignore[misc]
    columns["share"].append(best(lambda: share_keys(keys, t, n), 30))
    columns["reconstruct"].append(best(lambda: reconstruct_keys(range(1, t + 1), fast[:t, :n], t), 30))
    columns["both"] = [sum(pair) for pair in zip(*columns.values(), strict=True)]
    return {what: (times[0], times[1], times[2]) for what, times in columns.items()}


@dataclass(frozen=True)
class Bytes:
    """Bytes of one client in a round, both directions, beside its masked vector: fixed + neighbour · k + cohort · n."""

    fixed: float
    neighbour: float
    cohort: float

    def total(self, n: int, k: int, d: int, ring_bits: int) -> float:
        return self.fixed + self.neighbour * k + self.cohort * n + d * ring_bits / 8

    def expansion(self, n: int, k: int, d: int, bits: int) -> float:
        """Times what sending d numbers of `bits` bits in the clear would take; the ring has room for n clients."""
        return self.total(n, k, d, ring_bits(n, bits)) / (d * bits / 8)


def ring_bits(n: int, bits: int) -> int:
    return bits + math.ceil(math.log2(n))


def measured_bytes() -> Bytes:
    """Fit the three constants to real rounds; every message is encoded and counted."""
    rows, seen = [], []
    for n, k in ((12, None), (24, None), (36, None), (24, 8), (36, 8), (36, 16)):
        inputs = {1000 + i: np.zeros(8, np.uint32) for i in range(n)}              # ids of the usual width
        transcript = run_round(inputs, (n if k is None else k + 1) // 2 + 1, degree=k, shared_work=True)
        rows.append([1, k or n - 1, n])
        seen.append(sum(m.nbytes for m in transcript.messages) / n - 32)
    return Bytes(*np.linalg.lstsq(np.array(rows, float), np.array(seen), rcond=None)[0])


def paper_expansion(n: int, d: int, bits: int) -> float:
    """Bonawitz et al. (2017), table of client communication: 2 n aK + (5 n − 4) aS + d ⌈log2 R⌉ bits, aK = aS = 256."""
    return (2 * n * 256 + (5 * n - 4) * 256 + d * ring_bits(n, bits)) / (d * bits)


def unit_seconds() -> tuple[float, float]:
    """Seconds of one key agreement with derivation, and of one masked number (32 bits)."""
    mine, other = private_key(b"a" * 32), public_bytes(private_key(b"b" * 32))
    agreement = best(lambda: [hkdf(agree(mine, other), b"salt", b"info") for _ in range(100)]) / 100
    total = np.zeros(1_000_000, dtype=np.uint32)
    return agreement, best(lambda: add_mask(total, b"s" * 32), 9) / total.size


def cost_curve(cost: Bytes, units: tuple[float, float], d: int, dropped: float = 0.1) -> list[tuple[object, ...]]:
    """Rows (n, graph, k, MB of a client, seconds of a client, seconds of the server) for a 16-bit input."""
    agreement, number = units
    rows: list[tuple[object, ...]] = []
    for n in (100, 1_000, 10_000):
        for graph, k in (("complete", n - 1), ("k-regular", recommended_degree(n)[0])):
            client = 2 * k * agreement + (k + 1) * d * number
            server = n * d * number + dropped * n * (1 - dropped) * k * (agreement + d * number)
            rows.append((n, graph, k, cost.total(n, k, d, ring_bits(n, 16)) / 1e6, client, server))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the clients in the masking measurement")
    n = 10 if parser.parse_args().quick else 100
    seconds = masking_seconds(n)
    rate = n * n * 400_000 / seconds / 1e9
    print(f"masking     n = {n}, d = 100,000, complete graph, 32 bits: {seconds:.2f} s on one core ({rate:.1f} GB/s)")
    print("Shamir      n = 100, t = 51, 200 keys shared and 100 opened, against two plain Python loops")
    for what, (limb, big, fast) in shamir_seconds().items():
        print(
            f"            {what:11s} {fast * 1e3:4.1f} ms vectorised; {limb * 1e3:5.0f} ms limb by limb ({limb / fast:.0f}x); "
            f"{big * 1e3:4.0f} ms in 521-bit integers ({big / fast:.0f}x)"
        )

    cost = measured_bytes()
    print("\nbytes of a client beside its vector: ", end="")
    print(f"{cost.fixed:.0f} + {cost.neighbour:.0f} a neighbour + {cost.cohort:.2f} a cohort member")
    print("expansion over 16-bit numbers in the clear, complete graph (ours signs; the paper's figure does not)")
    print("      n          d    ours   paper's formula")
    for n, d in ((100, 2**17), (2**10, 2**17), (2**10, 2**20), (2**14, 2**24)):
        print(f"{n:7d} {d:10d}   {cost.expansion(n, n - 1, d, 16):.2f}x  {paper_expansion(n, d, 16):.2f}x")

    print("\nd = 100,000, 10 % dropped after sharing (extrapolated from unit costs)")
    print("      n  graph        k   MB a client   s a client   s of the server")
    for n, graph, k, megabytes, client, server in cost_curve(cost, unit_seconds(), 100_000):
        print(f"{n:7d}  {graph:9s} {k:5d} {megabytes:13.2f} {client:12.2f} {server:17.1f}")


if __name__ == "__main__":
    main()
