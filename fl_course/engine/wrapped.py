"""Any torch module as a model: `functional_call` puts a client's numbers in, `vmap` does it for a whole cohort at once.

vmap is trusted after a look: its gradient is compared with that of a loop, once a model. It does not always say what it
cannot do: it forgets an embedding's padding_idx (torch 2).
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..core import Vector
from ..data.federated import FederatedData
from .forward import MIXED, look, mixes, one_tensor, pairs_of, some_rows
from .losses import USUAL, Loss, check_loss
from .models import Layers, Model, describe_model, gradients

LENT = threading.Lock()            # functional_call puts other parameters into the module meanwhile: one thread at a time


@dataclass(frozen=True)
class Wrapped(Model):
    """Any torch.nn.Module that maps (b, *features) to (b, outputs).

    Its present parameters are the initial model; they are trained as float32. Parameters that are frozen
    (`requires_grad_(False)`) and buffers stay the module's own, to the bit: they are no part of the model vector (d,) and
    do not travel. The module is read once, here, and copied: load its weights first, for what happens to it afterwards
    (load_state_dict, eval(), freezing) does not reach the model. Parameters that the forward pass does not use stay what
    they are. What vmap cannot do (LSTM, GRU, RNN; branches on values; padding_idx) is done client by client.
    Refused, as the experiment is built: a forward pass that draws random numbers (dropout), writes to buffers (batch norm
    that learns its statistics), lets the examples of a batch meet, has no gradient, or answers with anything but one tensor
    (b, outputs) in full precision.
    """

    module: nn.Module = field(repr=False)
    name: str = ""
    loss: Loss = USUAL
    trained: frozenset[str] = field(init=False, repr=False)        # names of the parameters that travel
    _own: ClassVar[nn.Module]                                      # no fields, for no result depends on them: a copy to put
    _places: ClassVar[dict[str, tuple[str, ...]]]                  # numbers into, every place of a shared tensor, whether
    _vectorised: ClassVar[bool]                                    # vmap has not been seen to fail, and whether its
    _compared: ClassVar[bool]                                      # gradient has been compared with the loop's
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
        object.__setattr__(self, "module", copied(self.module))
        object.__setattr__(self, "_own", copied(self.module))
        object.__setattr__(self, "_places", places_of_tensors(self._own))
        object.__setattr__(self, "_vectorised", not any(pads(part) for part in self.module.modules()))
        object.__setattr__(self, "_compared", False)
        object.__setattr__(self, "name", self.name or type(self.module).__name__)
        object.__setattr__(self, "alone", any(p.dim() > 2 for p in parameters.values()))      # kernels of convolutions

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p) for name, p in self.module.named_parameters() if name in self.trained)

    def single(self) -> nn.Module | None:
        if type(self) is not Wrapped:
            return None
        own = copied(self.module)
        for name, p in own.named_parameters():
            p.requires_grad_(name in self.trained)
        return own

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in self._parameters()}

    def init(self, rng: np.random.Generator) -> Vector:
        flat = torch.cat([p.detach().flatten().to(torch.float32) for _, p in self._parameters()])
        return flat.numpy()

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        if not self._compared and torch.is_grad_enabled():
            self._compare({name: view[:32] for name, view in layers.items()}, x[:32, :32])
        if self._vectorised:
            try:
                return self._answer(layers, x, vectorised=True)
            except (RuntimeError, NotImplementedError) as error:
                if "random operation" in str(error):
                    raise
        out = self._answer(layers, x, vectorised=False)
        object.__setattr__(self, "_vectorised", False)                         # vmap could not, and the loop can
        return out

    def _answer(self, layers: Layers, x: Tensor, vectorised: bool) -> Tensor:
        own = self._own
        fixed = {}
        for name, p in (*own.named_parameters(), *own.named_buffers()):
            kind = x.dtype if p.is_floating_point() else p.dtype
            if name not in self.trained and (p.dtype, p.device) != (kind, x.device):
                fixed[name] = p.to(x.device, kind)

        def one_client(parameters: Layers, batch: Tensor) -> Tensor:
            everywhere = {place: p for name, p in (*parameters.items(), *fixed.items()) for place in self._places[name]}
            return one_tensor(torch.func.functional_call(own, everywhere, (batch,), tie_weights=False))

        with LENT, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")                   # vmap's own loop is no fault
            if vectorised:
                return torch.func.vmap(one_client)(layers, x)
            return torch.stack([one_client({name: view[k] for name, view in layers.items()}, x[k]) for k in range(len(x))])

    def _compare(self, layers: Layers, x: Tensor) -> None:
        """Give vmap up for this model if its gradient is not the loop's, for these clients, beyond rounding."""
        object.__setattr__(self, "_compared", True)
        if self._vectorised:
            slow = self._gradient(layers, x, vectorised=False)
            try:
                fast = self._gradient(layers, x, vectorised=True)
                right = all(torch.allclose(f, s, rtol=0, atol=1e-3 * float(s.abs().max()) + 1e-12, equal_nan=True)
                            for f, s in zip(fast, slow, strict=True) if s.numel())
            except (RuntimeError, NotImplementedError):
                right = False
            object.__setattr__(self, "_vectorised", right)

    def _gradient(self, layers: Layers, x: Tensor, vectorised: bool) -> Sequence[Tensor]:
        """Of a sum of the answers with fixed weights that have no symmetry."""
        leaves = {name: view.detach().clone().requires_grad_() for name, view in layers.items()}
        out = self._answer(leaves, x, vectorised)
        weights = torch.from_numpy(np.random.default_rng(0).standard_normal(tuple(out.shape)))
        return gradients((out * weights.to(out.dtype)).sum(), list(leaves.values()))

    @torch.inference_mode(False)
    def check(self, data: FederatedData) -> None:
        """The general check, and what only a look at the forward pass can tell: pairs of examples go through a copy of it."""
        with torch.autocast("cpu", enabled=False):
            self._check_forward(data)
            Model.check(self, data)

    def _check_forward(self, data: FederatedData) -> None:
        module, rows = copied(self.module).to(torch.float32), some_rows(data.x)
        try:
            for enabled in (False, True):
                with torch.set_grad_enabled(enabled):
                    look(module, torch.tensor(data.x[[0, -1]], device="cpu"))
        except (RuntimeError, IndexError, TypeError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            hint = "; examples are float32, so an embedding looks up x.long()" if "indices" in reason else ""
            hint = "; parameters are trained as float32, so nothing in it may cast to another type" if "dtype" in reason else hint
            raise ValueError(
                f"{self!r} cannot take the data's examples, which have shape {data.x.shape[1:]}: {reason}{hint}"
            ) from error
        for pair in pairs_of(rows):
            with torch.enable_grad():
                try:
                    mixed = mixes(module, torch.tensor(pair, device="cpu"))
                except Exception:                                              # it need not take what is made up
                    continue
            if mixed:
                raise ValueError(MIXED)
        theta = torch.tensor(self.init(np.random.default_rng(0)), device="cpu")
        with torch.enable_grad():
            some = torch.tensor(rows, device="cpu")
            try:
                self._compare(self.layers(torch.stack([theta, 0.9 * theta])), torch.stack([some, some.flip(0)]))
            except RuntimeError as error:
                raise ValueError(f"{self!r} cannot be trained with other numbers than its own: {error}"[:300]) from error


# --- refusals -------------------------------------------------------------------------------------------------------------


def describe_module(module: nn.Module) -> str:
    """The module in one line."""
    return " ".join(str(module).split())


def refuse_what_is_no_module(module: object) -> None:
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise TypeError(f"Wrapped takes a module, not a class of modules; make one: Wrapped({module.__name__}(…))")
    if isinstance(module, Model):
        raise TypeError(f"{module!r} is a model already; hand it over as it is, without Wrapped(…)")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError("Wrapped cannot put a client's numbers into a module of torch.jit; hand over the module it was made of")
    if not isinstance(module, nn.Module):
        raise TypeError(f"Wrapped takes a torch.nn.Module, not {module!r}")


def refuse_layer(part: nn.Module) -> None:
    """Layers that are known to fail, by name; what they do is looked for again in `Wrapped.check`."""
    if isinstance(part, nn.modules.batchnorm._BatchNorm) and (part.training or part.running_mean is None):
        raise ValueError(f"{part} mixes the examples of a batch, and its running statistics are not part of the "
                         "model vector; use GroupNorm or LayerNorm, or keep its statistics as they are with .eval()")
    if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.scale_grad_by_freq:
        raise ValueError(f"{part} divides gradients by how often a row is looked up in the whole batch, so examples meet; say "
                         "scale_grad_by_freq=False")
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


# --- copies ---------------------------------------------------------------------------------------------------------------


def copied(module: nn.Module) -> nn.Module:
    """A copy that shares nothing, and whose embeddings have ordinary gradients: the same numbers, with zeros between."""
    try:
        own = copy.deepcopy(module)
    except Exception as error:                                     # a copy runs code of the module's own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{describe_module(module)} cannot be copied: {reason[:200]}; of the old torch.nn.utils.weight_norm "
                         "take torch.nn.utils.parametrizations.weight_norm, and keep no results in attributes") from error
    for part in own.modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            part.sparse = False
    return own


def pads(part: nn.Module) -> bool:
    """An embedding one of whose rows has no gradient. Whether examples with that row are looked at is left to chance."""
    return isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.padding_idx is not None


def places_of_tensors(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Name of a parameter or buffer -> all places where it hangs. A part that is registered twice is one place, or
    functional_call would put numbers in twice and take them out once."""
    names: dict[int, list[str]] = {}
    for prefix, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                names.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    return {places[0]: tuple(places) for places in names.values()}
