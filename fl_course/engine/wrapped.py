"""Any torch module as a model: `functional_call` puts a client's numbers in, `vmap` does it for a whole cohort at once."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..core import Vector
from ..data.federated import FederatedData
from .losses import USUAL, Loss, check_loss
from .models import Layers, Model, describe_model

LENT = threading.Lock()            # functional_call puts other parameters into the module meanwhile: one thread at a time


@dataclass(frozen=True)
class Wrapped(Model):
    """Any torch.nn.Module that maps (b, *features) to (b, outputs).

    Its present parameters are the initial model; they are trained as float32. Parameters that are frozen
    (`requires_grad_(False)`) and buffers stay the module's own, to the bit: they are no part of the model vector (d,) and
    do not travel. The module itself is left alone; it trains in the mode, train() or eval(), in which it is handed over.
    What vmap cannot do (LSTM, GRU, RNN; branches on values) is done client by client.
    Refused, as the experiment is built: a forward pass that draws random numbers (dropout), writes to buffers (batch norm
    that learns its statistics), lets the examples of a batch meet, or answers with anything but one tensor (b, outputs).
    """

    module: nn.Module = field(repr=False)
    name: str = ""
    loss: Loss = USUAL
    trained: frozenset[str] = field(init=False, repr=False)        # names of the parameters that travel
    _own: ClassVar[nn.Module]                                      # no fields, for no result depends on them: a copy to put
    _vectorised: ClassVar[bool]                                    # numbers into, and whether vmap has not been seen to fail
    __repr__ = describe_model

    def __post_init__(self) -> None:
        check_loss(self.loss)
        refuse_what_is_no_module(self.module)
        for part in self.module.modules():
            refuse_layer(part)
        parameters = dict(self.module.named_parameters())
        trained = frozenset(name for name, p in parameters.items() if p.requires_grad)
        if not trained:
            why = " and all of its parameters are frozen, so it" if parameters else ""
            raise ValueError(f"{describe_module(self.module)}{why} has no parameters to train")
        for name, p in (*parameters.items(), *self.module.named_buffers()):
            refuse_tensor(name, p, name in trained)
        object.__setattr__(self, "trained", trained)
        object.__setattr__(self, "_own", copy.deepcopy(self.module))
        object.__setattr__(self, "_vectorised", True)
        object.__setattr__(self, "name", self.name or type(self.module).__name__)
        object.__setattr__(self, "alone", any(p.dim() > 2 for p in parameters.values()))      # kernels of convolutions

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p) for name, p in self.module.named_parameters() if name in self.trained)

    def _copy(self) -> nn.Module:
        """The module as it was handed over."""
        with LENT:
            return copy.deepcopy(self._own)

    def single(self) -> nn.Module | None:
        if type(self) is not Wrapped:
            return None
        own = self._copy()
        for name, p in own.named_parameters():
            p.requires_grad_(name in self.trained)
        return own

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in self._parameters()}

    def init(self, rng: np.random.Generator) -> Vector:
        flat = torch.cat([p.detach().flatten().to(torch.float32) for _, p in self._parameters()])
        return flat.numpy()

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        own = self._own
        fixed = {name: p.to(x.dtype) for name, p in (*own.named_parameters(), *own.named_buffers())
                 if name not in self.trained and p.is_floating_point() and p.dtype != x.dtype}

        def one_client(parameters: Layers, batch: Tensor) -> Tensor:
            return one_tensor(torch.func.functional_call(own, {**parameters, **fixed}, (batch,)))

        with LENT:
            if self._vectorised:
                try:
                    with warnings.catch_warnings():
                        warnings.filterwarnings("ignore", "There is a performance drop")       # vmap's own loop is no fault
                        return torch.func.vmap(one_client)(layers, x)
                except (RuntimeError, NotImplementedError) as error:
                    if "random operation" in str(error):
                        raise
            rows = [one_client({name: view[k] for name, view in layers.items()}, x[k]) for k in range(len(x))]
            object.__setattr__(self, "_vectorised", False)                     # vmap could not, and the loop can
            return torch.stack(rows)

    @torch.inference_mode(False)
    def check(self, data: FederatedData) -> None:
        """The general check, and what only a look at the forward pass can tell: two examples go through a copy of it."""
        module, some = self._copy().to(torch.float32), torch.tensor(data.x[[0, -1]], device="cpu")
        before = {name: (buffer, buffer._version) for name, buffer in module.named_buffers()}
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                dice = torch.get_rng_state()
                both, again, first, last = (one_tensor(module(x)) for x in (some, some, some[:1], some[1:]))
                drawn = not torch.equal(dice, torch.get_rng_state())
        except (RuntimeError, IndexError, TypeError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            hint = "; examples are float32, so an embedding looks up x.long()" if "indices" in reason else ""
            raise ValueError(
                f"{self!r} cannot take the data's examples, which have shape {data.x.shape[1:]}: {reason}{hint}"
            ) from error
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
        if not torch.equal(both, again) and torch.isfinite(both).all():
            raise ValueError("the module answers the same examples differently a second time; its forward pass must depend on "
                             "nothing but parameters and examples")
        if not torch.allclose(both, torch.cat([first, last]), rtol=1e-3, atol=1e-4, equal_nan=True):
            raise ValueError("the answer to an example depends on the others of its batch, and batches are padded; the first "
                             "dimension counts examples (LSTM, GRU, attention: batch_first=True), and no layer may mix them")
        Model.check(self, data)


# --- refusals -------------------------------------------------------------------------------------------------------------


def describe_module(module: nn.Module) -> str:
    """The module in one line."""
    return " ".join(str(module).split())


def refuse_what_is_no_module(module: object) -> None:
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise TypeError(f"Wrapped takes a module, not a class of modules; make one: Wrapped({module.__name__}(…))")
    if isinstance(module, Model):
        raise TypeError(f"{module!r} is a model already; hand it over as it is, without Wrapped(…)")
    if not isinstance(module, nn.Module):
        raise TypeError(f"Wrapped takes a torch.nn.Module, not {module!r}")


def refuse_layer(part: nn.Module) -> None:
    """Layers that are known to fail, by name; what they do is looked for again in `Wrapped.check`."""
    if isinstance(part, nn.modules.batchnorm._BatchNorm) and (part.training or part.running_mean is None):
        raise ValueError(f"{part} mixes the examples of a batch, and its running statistics are not part of the "
                         "model vector; use GroupNorm or LayerNorm, or keep its statistics as they are with .eval()")
    if isinstance(part, nn.modules.dropout._DropoutNd) and part.training and part.p > 0:
        raise ValueError(f"{part} draws from torch's global generator, so runs would not repeat; remove it, or switch it "
                         "off with .eval()")


def refuse_tensor(name: str, p: Tensor, trained: bool) -> None:
    if isinstance(p, nn.UninitializedParameter | nn.UninitializedBuffer):
        raise ValueError(f"{name} has no shape yet (a lazy layer); call the module once on an example before you wrap it")
    if p.device.type != "cpu":
        raise ValueError(f"{name} is on the device {p.device}; training is on the CPU: module.to('cpu')")
    if p.is_inference():
        raise ValueError(f"{name} was made inside torch.inference_mode(), so it cannot be trained; make the module outside")
    if trained and not p.dtype.is_floating_point:
        raise ValueError(f"{name} holds {p.dtype}; the model vector holds real numbers; freeze it: .requires_grad_(False)")


def one_tensor(answer: object) -> Tensor:
    """The answer of a module, if it is a tensor."""
    if not isinstance(answer, Tensor):
        kind, how = type(answer).__name__, "out, state = self.lstm(x), return self.head(out[:, -1])"
        raise ValueError(f"the module answers with a {kind}; it must be one tensor (b, outputs). Put it into a module whose "
                         f"forward pass returns the tensor that is meant, e.g. {how}; or answer['logits'] of a dict")
    return answer
