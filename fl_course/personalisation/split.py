"""A network of which some layers stay at home.

    Split(mlp(784, 64, 10), personal="dense1")

What federates is then a shorter vector: the shared layers, in the order in which they lie in the network. The server, its
optimiser, every stage, the clipping norms, the masks and the messages know this vector and no other, so a personal number
cannot travel, and is not counted: it is nowhere in what is sent. The rest lies in each client's drawer, as "personal".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core import ClientFailure, Server, Task, Update, Vector, stream
from ..data.federated import FederatedData
from ..engine.models import Layers, Model, Tensor
from ..federation.coordinator import Coordinator
from ..federation.state import State


@dataclass(frozen=True)
class Split(Model):
    """The network `model`, of which the layers under these names are personal and all others are shared.

    personal: one name, or several. A name is made of whole words between dots, as in `model.shapes()`: "dense1" (or "dense1.")
    stands for dense1.weight and dense1.bias, and not for dense10.weight. ValueError for a name that belongs to no layer.
    No personal layer: everything travels, as if there were no Split. All of them: nothing does.
    """

    model: Model
    personal: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model):
            raise TypeError(f"Split takes a model such as mlp(64, 32, 10), not {self.model!r}; wrap a torch module: Wrapped(…)")
        if self.model.whole is not self.model:
            raise TypeError(f"{self.model!r} says already what travels; split the network itself, once")
        if not isinstance(self.personal, Iterable) or isinstance(self.personal, bytes):
            raise TypeError(f"personal must be names of layers, such as 'dense1' or ('conv0', 'norm0'), not {self.personal!r}")
        names = (self.personal,) if isinstance(self.personal, str) else tuple(self.personal)
        for name in names:
            layers_under(name, self.model)                       # raises, naming the layers that there are
        object.__setattr__(self, "personal", tuple(name.removesuffix(".") for name in names))
        object.__setattr__(self, "loss", self.model.loss)
        object.__setattr__(self, "speaks", not self.layers_at_home)

    @property
    def whole(self) -> Model:
        return self.model

    @cached_property
    def layers_at_home(self) -> tuple[str, ...]:
        """The names of the personal tensors, in the order of the network."""
        mine = {layer for name in self.personal for layer in layers_under(name, self.model)}
        return tuple(layer for layer in self.model.shapes() if layer in mine)

    @cached_property
    def layers_shared(self) -> tuple[str, ...]:
        return tuple(layer for layer in self.model.shapes() if layer not in self.layers_at_home)

    @cached_property
    def shared(self) -> np.ndarray:
        """(d_shared,) int64: which numbers of the whole vector travel."""
        return _places(self.model, self.layers_shared)

    @cached_property
    def own(self) -> np.ndarray:
        """(d_own,) int64: which numbers of the whole vector stay."""
        return _places(self.model, self.layers_at_home)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = self.model.shapes()
        return {layer: shapes[layer] for layer in self.layers_shared}

    def init(self, rng: np.random.Generator) -> Vector:
        """The shared part of the network's first values: those that it would have without a Split."""
        return self.model.init(rng)[self.shared]

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        if not self.speaks:
            raise ValueError(f"the shared layers of {self!r} answer nothing by themselves; own_models(experiment, state) puts "
                             "each client's personal layers to them")
        return self.model.logits(layers, x)

    def check(self, data: FederatedData) -> None:
        self.model.check(data)

    def join(self, shared: Vector, own: Vector) -> Vector:
        """(d_shared,) and (d_own,) → the whole network (d,)."""
        theta = np.empty(self.model.dim, dtype=np.float32)
        theta[self.shared], theta[self.own] = shared, own
        return theta

    def cut(self, theta: Vector) -> tuple[Vector, Vector]:
        """The whole network (d,), or a change of it → its shared part (d_shared,) and its personal part (d_own,)."""
        return theta[self.shared], theta[self.own]


def layers_under(name: str, model: Model) -> list[str]:
    """The tensors that a name stands for. ValueError if there is none."""
    if not isinstance(name, str):
        raise TypeError(f"a personal layer is named by a word such as 'dense1', not by {name!r}")
    word, layers = name.removesuffix("."), list(model.shapes())
    found = [layer for layer in layers if word and (layer == word or layer.startswith(word + "."))]
    if not found:
        raise ValueError(f"personal layer {name!r} is none of {', '.join(layers)}; a name is whole words between dots")
    return found


def _places(model: Model, layers: Sequence[str]) -> np.ndarray:
    slices = model.slices()
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(slices[l].start, slices[l].stop) for l in layers)])


# --- a client's whole network -------------------------------------------------------------------------------------------


def at_home(tasks: Sequence[Task], split: Split) -> list[Task]:
    """The same tasks with whole networks: the shared layers as downloaded, the personal ones from the drawer.

    Who has none yet begins with the first values of the network, which follow from the seed, as everybody knows.
    """
    first: dict[int, Vector] = {}
    whole = []
    for task in tasks:
        own = task.memory.get("personal")
        if own is None:
            if task.seed not in first:
                first[task.seed] = split.model.init(stream(task.seed, "init"))[split.own]
            own = first[task.seed]
        if np.shape(own) != split.own.shape:
            raise ClientFailure(f"its drawer holds {np.size(own)} personal numbers, and {split!r} has {split.own.size}")
        whole.append(moved(task, split.join(task.server.params, own)))
    return whole


def moved(task: Task, params: Vector) -> Task:
    """The same task as if this had been downloaded: (d,)."""
    return replace(task, server=replace(task.server, params=params))


def ends(tasks: Sequence[Task], updates: Sequence[Update]) -> list[Vector]:
    """(d,) where each task's training ended."""
    return [task.server.params + update.delta for task, update in zip(tasks, updates, strict=True)]


def kept(task: Task, own: Vector) -> None:
    """Put what is a client's own into its drawer. ClientFailure if it is not finite: it would stay so for ever."""
    if not np.isfinite(own).all():
        raise ClientFailure("its personal model is not finite: the training diverged; lower the learning rate")
    task.memory["personal"] = own


def handed_out(experiment: Coordinator, params: Vector) -> State:
    """The state in which everybody begins with this network (d,), personal layers included.

    As after a plain FedAvg run that everybody has downloaded: the way LG-FedAvg begins (Liang et al. 2020).
    """
    split = experiment.model
    if not isinstance(split, Split):
        raise TypeError(f"{split!r} has no personal layers; begin with experiment.initial(params)")
    params = np.array(params, dtype=np.float32)
    if params.shape != (split.model.dim,) or not np.isfinite(params).all():
        raise ValueError(f"params must be {split.model.dim} finite numbers, all of {split.model!r}, not of shape {params.shape}")
    shared, own = split.cut(params)
    return State(Server(shared), memory={client: {"personal": own} for client in experiment.data.ids} if own.size else {})
