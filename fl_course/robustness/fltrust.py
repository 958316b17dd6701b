"""FLTrust (Cao et al. 2021): the server has a few clean examples of its own, and believes who agrees with them.

In each step the server trains on its root set as a client would, from the model that it sent out. An update counts as far as
it points the same way, TS_i = max(0, cos(g_i, g_0)), and none is longer than the server's own:

    g = Σ TS_i·(‖g_0‖/‖g_i‖)·g_i / Σ TS_i                                                             (equations 1 to 3)

It needs no bound on how many lie; it needs a root set that looks like everybody's data, and a client whose classes are missing
there looks like a liar.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..compression.feedback import Compression
from ..core import CompositionError, Context, Task
from ..data.federated import Dataset, FederatedData
from ..engine.local import LocalSGD
from ..engine.training import Trainer
from ..federation.interfaces import Experiment, Stage
from ..privacy.local import LocalDP
from .distances import lengths, product
from .robust import Robust
from .rules import refuse_unsound


def trust(x: np.ndarray, root: np.ndarray) -> np.ndarray:
    """(n,) TS_i = max(0, cos(x_i, root)) of the rows of x (n, d); 0 where one of the two is zero."""
    x, root = np.asarray(x, dtype=np.float64), np.asarray(root, dtype=np.float64)
    scale = lengths(x) * float(np.linalg.norm(root))
    return np.maximum(0, np.divide(product(x, root), scale, out=np.zeros(len(x)), where=scale > 0))


def fltrust(x: np.ndarray, root: np.ndarray) -> np.ndarray:
    """(d,) float64: the rows of x (n, d), each as long as root (d,), averaged by their trust. Zeros where nobody is trusted."""
    x, root = np.asarray(x, dtype=np.float64), np.asarray(root, dtype=np.float64)
    score = trust(x, root)
    if not score.any():
        return np.zeros(x.shape[1])
    share = np.divide(score, lengths(x), out=np.zeros(len(x)), where=score > 0)
    return product(share, x) * (np.linalg.norm(root) / score.sum())


@dataclass(frozen=True)
class FLTrust(Robust):
    """Weigh updates by how well they agree with the server's own, trained on `root` (Cao et al. 2021).

    root        a Dataset of clean examples that the server holds itself; they cost no bytes
    training    how it trains on them; None: as the clients do, without correction and privacy

    Whoever points away is left out (trust 0). If all do, the model stays as it was.
    """

    root: Dataset
    training: LocalSGD | None = None
    _data: FederatedData = field(init=False, repr=False, compare=False)
    whole = True

    def __post_init__(self) -> None:
        if not isinstance(self.root, Dataset):
            raise TypeError(f"root must be a Dataset, the server's own examples, not {self.root!r:.200}")
        if not len(self.root.y):
            raise ValueError("root has no examples: the server needs a few of its own")
        if self.training is not None and not isinstance(self.training, LocalSGD):
            raise TypeError(f"training must be a LocalSGD(…) or None, not {self.training!r}")
        rows = (np.arange(len(self.root.y)),)
        data = FederatedData("root", self.root.x, self.root.y, self.root.classes, ("root",), rows, (np.arange(0),))
        object.__setattr__(self, "_data", data)

    def own(self, ctx: Context) -> np.ndarray:
        """(d,) float64: what the server's own training makes of the model that it sent out."""
        experiment = ctx.experiment
        trainer = Trainer(self.how(experiment), experiment.model, self._data)
        return trainer.train([Task("root", ctx.server, ctx.seed)])[0].delta.astype(np.float64)

    def how(self, experiment: Experiment) -> LocalSGD:
        if self.training is not None:
            return self.training
        return replace(experiment.training, correction=None, private=None, personal=None)

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        if ctx is None or ctx.experiment is None:
            raise ValueError("FLTrust trains on its root set in the round; by hand, call fltrust(x, root_update)")
        root = self.own(ctx)
        inside = trust(x, root) > 0
        if not inside.any():
            ctx.meter.events.append("FLTrust trusts no update: the model stays as it was")
        return fltrust(x, root), inside

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)
        if not experiment.model.speaks:
            raise CompositionError(
                f"FLTrust trains the model on its root set, and of {experiment.model!r} the server has only a part; use a rule "
                "without a root set, such as MultiKrum(f), or a method that shares the whole network."
            )
        if self.training is None and not isinstance(epochs := experiment.training.epochs, int):
            raise CompositionError(
                f"the step of FLTrust is as long as the server's own training on its root set, and epochs={epochs!r} says how "
                "long each client trains, not how long the server does; say FLTrust(root, training=LocalSGD(…, epochs=…))."
            )
        try:
            experiment.model.check(self._data)
        except ValueError as why:
            raise ValueError(f"FLTrust's root set does not fit the experiment's model: {why}") from why
        for stage in experiment.pipeline:
            if type(stage).server not in (Stage.server, Compression.server, LocalDP.server):        # LocalDP's keeps books
                raise CompositionError(
                    f"the server half of {type(stage).__name__} undoes something that clients do to their updates, and FLTrust "
                    "compares them before that with an update of its own; leave the stage out, or use a rule without a root set."
                )
