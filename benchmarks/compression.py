"""How fast the compressors are on one core, beside the obvious way.

    python benchmarks/compression.py [millions of numbers]

GB/s of float32 that go in. The minimum of several runs is shown: the machine may be busy with other things.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fl_course  # one thread, as in the course
from fl_course.compression.quantisation import SignSGD, hadamard, quantise
from fl_course.compression.sparse import top_k
from fl_course.core import Context, Server, Update
from fl_course.wire.bits import decode_positions, encode_positions
from fl_course.wire.messages import decode_update, encode_update


def fastest(run: Callable[[], Any], repeats: int = 9) -> float:
    """Seconds of the fastest run."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def main(millions: float) -> None:
    d = int(millions * 1e6)
    x = np.random.default_rng(0).standard_normal(d).astype(np.float32)
    rng, here = np.random.default_rng(1), Context(0, Server(np.zeros(1, np.float32)), client=0)
    print(f"fl_course {fl_course.__version__}, {d:,} float32 numbers, {torch.get_num_threads()} thread")

    def rate(name: str, run: Callable[[], Any]) -> float:
        seconds = fastest(run)
        print(f"  {name:44} {1000 * seconds:8.1f} ms  {4 * d / seconds / 1e9:6.2f} GB/s")
        return seconds

    target = np.empty_like(x)
    copy = rate("copy, into memory that is there", lambda: np.copyto(target, x))
    fresh = rate("copy, into new memory", x.copy)
    eight = rate("8-bit stochastic quantisation, one scale", lambda: quantise(x, 255, None, rng))
    rate("8-bit stochastic quantisation, blocks of 1024", lambda: quantise(x, 255, 1024, rng))
    codes = quantise(x, 255, None, rng)
    rate("  and back", codes.dense)
    signs = rate("1 bit: sign and mean magnitude, packed", lambda: SignSGD().compress(x, here).to_wire())
    pack = rate("1 bit: signs alone, packed", lambda: np.packbits(x >= 0, bitorder="little"))
    k = d // 100
    ours = rate("top 1 %, exact, by a sampled threshold", lambda: top_k(x, k))
    theirs = rate("top 1 %, torch.topk", lambda: torch.topk(torch.from_numpy(x).abs(), k))
    positions = top_k(x, k)
    chosen = torch.topk(torch.from_numpy(x).abs(), k).indices.numpy()
    assert np.array_equal(np.sort(np.abs(x[positions])), np.sort(np.abs(x[chosen])))      # the same magnitudes
    coded = encode_positions(positions, d)
    rate("positions of the top 1 %, encoded", lambda: encode_positions(positions, d))
    rate("positions of the top 1 %, decoded", lambda: decode_positions(*coded, d, k))
    n = 1 << (d.bit_length() - 1)
    rate("Hadamard transform", lambda: hadamard(x[:n]))
    message = encode_update(Update(0, 0, codes))
    rate("8-bit update, encoded with its checksum", lambda: encode_update(Update(0, 0, codes)))
    rate("8-bit update, decoded", lambda: decode_update(message))
    print(f"8 bits: {4 * d / eight / 1e9:.2f} GB/s; 1 bit: {signs / fresh:.1f} times a copy into new memory ({pack / fresh:.1f} "
          f"for the signs alone, {pack / copy:.1f} of a copy in place); top 1 %: {theirs / ours:.1f} times as fast as torch.topk")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
