"""What only a look at a module's forward pass can tell: pairs of examples go through a copy of it, together and apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .models import gradients

MIXED = ("the answer to an example depends on the others of its batch, and batches are padded; the first dimension counts "
         "examples (LSTM, GRU, attention: batch_first=True), and no layer may mix them")


def look(module: nn.Module, some: Tensor) -> None:
    """ValueError, with the cure, if two examples show that the module cannot be trained by clients."""
    before = {name: (buffer, buffer._version) for name, buffer in module.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        dice = torch.get_rng_state()
        both, again = one_tensor(module(some)), one_tensor(module(some))
        mixed = both.dim() == 2 and len(both) == 2 and mixes(module, some)
        drawn = not torch.equal(dice, torch.get_rng_state())
    if drawn:
        raise ValueError("the module's forward pass draws random numbers from torch's global generator, so runs would not "
                         "repeat; take dropout out, or switch it off: module.eval()")
    for name, buffer in module.named_buffers():
        if name not in before or before[name][0] is not buffer or before[name][1] != buffer._version:
            raise ValueError(f"the forward pass writes to the buffer {name!r}, which is not part of the model vector and "
                             "would not be averaged; switch that off (module.eval()) or take the layer out")
    if both.dim() != 2 or len(both) != 2:
        raise ValueError(f"the module answers 2 examples with numbers of shape {tuple(both.shape)}; it must be (2, outputs)"
                         + (": flatten them, or take the last step of a sequence, out[:, -1]" if both.dim() > 2 else ""))
    if both.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the module answers with numbers of {both.dtype}, and it is trained in float32; take casts and "
                         "torch.autocast out of its forward pass")
    if not torch.equal(both, again) and torch.isfinite(both).all():
        raise ValueError("the module answers the same examples differently a second time; its forward pass must depend on "
                         "nothing but parameters and examples")
    if mixed:
        raise ValueError(MIXED)
    if torch.is_grad_enabled():
        if not both.requires_grad:
            raise ValueError("the module's answer has no gradient for any trained parameter, so it would learn nothing; its "
                             "forward pass uses detach(), torch.no_grad(), NumPy, or frozen parameters only")
        trained = [p for p in module.parameters() if p.requires_grad]
        if any(g.layout != torch.strided for g in gradients(both.sum(), trained)):
            raise ValueError("the module has sparse gradients, and the model vector is dense; say sparse=False")


def mixes(module: nn.Module, some: Tensor) -> bool:
    """Whether two examples are answered otherwise together than one by one, or move the parameters otherwise."""
    both, first, last = answers = [one_tensor(module(x)) for x in (some, some[:1], some[1:])]
    if not torch.allclose(both, torch.cat([first, last]), rtol=1e-3, atol=1e-4, equal_nan=True):
        return True
    if not all(answer.requires_grad for answer in answers):
        return False
    trained = [p for p in module.parameters() if p.requires_grad]
    together, one, other = (gradients(answer.sum(), trained) for answer in answers)
    return any(float((t - a - b).norm()) > 1e-2 * float(t.norm() + a.norm() + b.norm()) + 1e-9
               for t, a, b in zip(together, one, other, strict=True) if t.layout == torch.strided)


def some_rows(x: np.ndarray, most: int = 64) -> np.ndarray:
    """(r, *shape): of up to `most` examples those that differ; the first one first. The same ones every time."""
    rows = x[np.random.default_rng(0).permutation(len(x))[:most]]
    return rows[np.sort(np.unique(rows.reshape(len(rows), -1), axis=0, return_index=True)[1])]


def pairs_of(rows: np.ndarray) -> list[np.ndarray]:
    """Pairs (2, *shape) of examples that differ, for equal answers do not show that they meet: of the data, and made up;
    and one example twice, for gradients that are shared."""
    first, rng = rows[0], np.random.default_rng(1)
    farthest = rows[np.abs(rows - first).reshape(len(rows), -1).sum(1).argmax()]
    others = (first, farthest, np.zeros_like(first), np.roll(first.ravel(), 1).reshape(first.shape))
    return [*(np.stack([first, other]) for other in others), rng.standard_normal((2, *first.shape)).astype(np.float32)]


def one_tensor(answer: object) -> Tensor:
    """The answer of a module, if it is a tensor."""
    if not isinstance(answer, Tensor):
        kind, how = type(answer).__name__, "out, state = self.lstm(x), return self.head(out[:, -1])"
        raise ValueError(f"the module answers with a {kind}; it must be one tensor (b, outputs). Put it into a module whose "
                         f"forward pass returns the tensor that is meant, e.g. {how}; or answer['logits'] of a dict")
    return answer
