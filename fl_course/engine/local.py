"""What a client does with the model that it was handed: E epochs of mini-batch SGD (McMahan et al. 2017, ClientUpdate).

Who computes it, with whom in which tensor, is the business of training.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..core import ClientId, Task, is_whole, plain_counts
from ..federation.interfaces import Correction, PersonalTraining, PrivateTraining

Epochs = int | Mapping[ClientId, int] | Callable[[ClientId, np.random.Generator], int]


@dataclass(frozen=True)
class LocalSGD:
    """E epochs of SGD on mini-batches of B, learning rate lr·lr_decay^version, torch.optim.SGD's momentum and decay.

    epochs: one number for all, a mapping client -> number, or a function (client, rng) -> number (devices that manage
    less than others). batch_size None means all of a client's examples at once (B = ∞). `together` bounds how many
    clients train in one tensor (None: as many as pay, which is one for models that are not dense networks); `threads`
    share the tensors out. Both change speed and memory, not the result: see training.py for the last digits. Two threads
    pay for large cohorts on an idle machine, see docs/performance.md.
    device: "cuda" or "mps" computes there by the plain text, all clients of a cohort together, in parts that fit its memory;
    it agrees with the CPU but for rounding, in full float32 unless torch.set_float32_matmul_precision says otherwise; within
    that rounding a checkpoint may go on on another device.
    engine "auto" takes the fused engine where it applies, "rows" always the plain one; they agree but for rounding.
    private: DPSGD(…) clips and noises the gradient of every example (chapter 3).
    personal: FedRep(…), Ditto(…) and their like leave every client with a model of its own (chapter 8).
    """

    lr: float = 0.1
    epochs: Epochs = 1
    batch_size: int | None = 10
    lr_decay: float = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    correction: Correction | None = None
    together: int | None = None
    threads: int = field(default=1, repr=False)
    device: str = field(default="cpu", repr=False)
    engine: str = "auto"
    private: PrivateTraining | None = None
    personal: PersonalTraining | None = None

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be positive and finite, not {self.lr}")
        if not callable(self.epochs) and not isinstance(self.epochs, Mapping) and not is_whole(self.epochs):
            raise ValueError(f"epochs must be a whole number, a mapping or a function, not {self.epochs!r}")
        if isinstance(self.epochs, Mapping):
            object.__setattr__(self, "epochs", {client: _check_epochs(client, some) for client, some in self.epochs.items()})
        elif not callable(self.epochs):
            _check_epochs("everybody", self.epochs)
        if self.batch_size is not None and not is_whole(self.batch_size, 1):
            raise ValueError(f"batch_size must be a whole number from 1, or None for all, not {self.batch_size!r}")
        if self.correction is not None and not isinstance(self.correction, Correction):
            cure = "it goes into personal=…" if isinstance(self.correction, PersonalTraining) else "a stage goes into stages=[…]"
            raise TypeError(f"correction must be FedProx(…) or its like, not {self.correction!r}; {cure}")
        if self.personal is not None and not isinstance(self.personal, PersonalTraining):
            raise TypeError(f"personal must be FedRep(…), Ditto(…) or their like, not {self.personal!r}")
        if self.personal is not None and self.private is not None:
            raise ValueError(
                f"{type(self.private).__name__} takes the place of local training, and so does {type(self.personal).__name__}, "
                "whose steps have no noise; choose one of them, or protect what is sent: stages=[LocalDP(…)] or [CentralDP(…)]"
            )
        if not 0 < self.lr_decay <= 1:
            raise ValueError(f"lr_decay must be in (0, 1], not {self.lr_decay}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be at least 0 and finite, not {self.weight_decay}")
        if self.together is not None and not is_whole(self.together, 1):
            raise ValueError(f"together must be a whole number of clients from 1, or None, not {self.together!r}")
        if not is_whole(self.threads, 1):
            raise ValueError(f"threads must be a whole number from 1, not {self.threads!r}")
        if self.engine not in ("auto", "rows"):
            raise ValueError(f"engine must be 'auto' or 'rows', not {self.engine!r}")
        check_device(self.device)
        if self.device != "cpu" and self.personal is not None:
            raise ValueError(f"{type(self.personal).__name__} trains on the CPU, one by one: leave device={self.device!r} out")
        if self.device != "cpu" and self.threads > 1:
            raise ValueError(f"threads share the work of a CPU; leave threads={self.threads} out with device={self.device!r}")
        plain_counts(self)

    @property
    def plain(self) -> bool:
        """SGD and nothing else: no correction, momentum or weight decay."""
        return self.correction is None and not self.momentum and not self.weight_decay

    def epochs_of(self, task: Task) -> int:
        """Passes over its data that this client makes."""
        if isinstance(self.epochs, int):
            return self.epochs
        if isinstance(self.epochs, Mapping):
            if task.client not in self.epochs:
                raise ValueError(f"epochs has no entry for client {task.client!r}; it needs one for every client")
            return self.epochs[task.client]
        return _check_epochs(task.client, self.epochs(task.client, task.rng("epochs")))

    def passes(self, task: Task, model: Any) -> float:
        """Passes over its data that a round costs this client: its epochs, and what a personal method does beside them."""
        epochs = self.epochs_of(task)
        return epochs if self.personal is None else self.personal.passes(epochs, model)

    def lr_at(self, version: int) -> float:
        """The learning rate of clients that start from this version of the model."""
        return self.lr * self.lr_decay**version


def check_device(name: str) -> None:
    """ValueError, with what there is, unless torch can compute on the device of this name."""
    here = ["cpu", "cpu:0"]                    # the second: the way of a GPU, on the CPU
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps")
    if name not in here:
        why = "; torch here was built for the CPU alone" if torch.version.cuda is None and str(name).startswith("cuda") else ""
        raise ValueError(f"device={name!r} is not there{why}; this machine has {', '.join(map(repr, here))}")


def _check_epochs(client: ClientId, epochs: object) -> int:
    if not is_whole(epochs, 1):
        raise ValueError(f"epochs of {client!r} must be a whole number from 1, not {epochs!r}")
    return int(epochs)
