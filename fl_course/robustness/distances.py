"""Who lies how far from whom. All that Krum, mixing and the geometric median know of the updates is this table."""

from __future__ import annotations

import numpy as np
import torch

CLOSE = 1e-6        # of the squared lengths: below that, lengths and products cancel, and the difference is taken itself


def squared_distances(x: np.ndarray) -> np.ndarray:
    """(n, n) float64: ‖x_i - x_j‖² of the rows of x (n, d); zeros on the diagonal, and for equal rows.

    ‖a - b‖² = ‖a‖² + ‖b‖² - 2·a·b takes one matrix product for all pairs. For two rows that lie much closer to each other
    than to the origin the terms cancel; such pairs are subtracted first.
    """
    x = np.asarray(x, dtype=np.float64)
    products = product(x, x.T)
    squares = np.diag(products)
    out = squares[:, None] + squares[None, :] - 2 * products
    doubtful = np.triu(out < CLOSE * (squares[:, None] + squares[None, :]), 1)
    for i in np.flatnonzero(doubtful.any(axis=1)):
        others = np.flatnonzero(doubtful[i])
        apart = x[others] - x[i]
        out[i, others] = out[others, i] = np.einsum("kd,kd->k", apart, apart)
    np.fill_diagonal(out, 0.0)
    return np.maximum(out, out.T)                                     # to the bit the same both ways


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b in float64, on torch's one thread: NumPy's product has threads of its own, which spin on a busy machine."""
    return (_tensor(a) @ _tensor(b)).numpy()


def _tensor(a: np.ndarray) -> torch.Tensor:
    a = np.asarray(a, dtype=np.float64)
    return torch.from_numpy(a if a.flags.writeable and min(a.strides, default=0) >= 0 else a.copy())


def lengths(x: np.ndarray) -> np.ndarray:
    """(n,) ‖x_i‖."""
    return np.sqrt(np.einsum("nd,nd->n", x, x))
