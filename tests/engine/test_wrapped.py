"""Any torch module as a model: what trains, what stays the module's own, and where the promise ends, with the cure."""

import copy
import re
import warnings
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fl_course import DPSGD, Coordinator, FederatedData, FedProx, LocalSGD, Scaffold, Synchronous, Uniform, logistic
from fl_course.core import Server, Task, stream
from fl_course.engine.losses import SquaredError
from fl_course.engine.sgd import train_alone
from fl_course.engine.training import Trainer
from fl_course.engine.wrapped import Wrapped
from fl_course.federation.identity import facts
from fl_course.privacy.dpsgd import example_gradients

STEPS, WIDTH, CLASSES = 4, 3, 3


def federation(shape=(STEPS, WIDTH), sizes=(9, 5, 12)) -> FederatedData:
    rng, total = stream(0, "test-wrapped"), sum(sizes)
    x, y = rng.standard_normal((total, *shape)).astype(np.float32), rng.integers(0, CLASSES, total)
    train = tuple(np.split(np.arange(total), np.cumsum(sizes)[:-1]))
    return FederatedData("test", x, y, CLASSES, tuple(range(len(sizes))), train, (np.arange(0),) * len(sizes), x[:7], y[:7])


class Net(nn.Module):
    """`forward` is a function of the parts, so that a test can say in a line what its module does."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.how = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.how(self, x)


def made(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def recurrent(kind, **settings):
    return made(lambda: Net(lambda self, x: self.head(self.cell(x)[0][:, -1]), cell=kind(WIDTH, 5, batch_first=True, **settings),
                            head=nn.Linear(5, CLASSES)))  # fmt: skip


class Cells(nn.Module):
    """A recurrent network by hand."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(WIDTH, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        h = c = x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
        return self.head(h)


def branching(self, x):
    h = self.first(x.flatten(1))
    return self.second(h * 2 if float(h.detach().abs().max()) > 1e9 else h)


def attention():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    return Net(lambda self, x: self.head(self.body(self.up(x)).mean(1)), up=nn.Linear(WIDTH, 4), body=layer,
               head=nn.Linear(4, CLASSES))


def linear(then):
    return Net(lambda self, x: then(self, self.layer(x.flatten(1))), layer=nn.Linear(12, CLASSES))


MODULES = {
    "LSTM": recurrent(nn.LSTM), "GRU": recurrent(nn.GRU), "RNN": recurrent(nn.RNN), "two LSTMs": recurrent(nn.LSTM, num_layers=2),
    "both ways": made(lambda: Net(lambda self, x: self.head(self.cell(x)[0][:, -1]),
                                  cell=nn.GRU(WIDTH, 3, batch_first=True, bidirectional=True), head=nn.Linear(6, CLASSES))),
    "cells": made(Cells), "attention": made(attention),
    "a branch": made(lambda: Net(branching, first=nn.Linear(12, 4), second=nn.Linear(4, CLASSES))),
    "dense": made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, CLASSES))),
}  # fmt: skip
HOWS = {"plain": LocalSGD(lr=0.2, epochs=2, batch_size=4), "momentum": LocalSGD(lr=0.1, epochs=2, batch_size=4, momentum=0.5),
        "FedProx": LocalSGD(lr=0.1, batch_size=4, correction=FedProx(0.3)),
        "together": LocalSGD(lr=0.2, epochs=2, batch_size=4, engine="rows", together=3),
        "in one tensor": LocalSGD(lr=0.2, epochs=2, batch_size=4, together=3)}  # fmt: skip


def tasks_of(model, data):
    return [Task(client, Server(model.init(stream(0, "init")))) for client in data.ids]


def updates_of(model, data, how):
    return Trainer(how, model, data).train(tasks_of(model, data))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", MODULES)
def test_every_kind_of_module_trains_and_equals_the_slow_loop(name, how):
    data, model = federation(), Wrapped(MODULES[name])
    experiment = Coordinator(data, model, HOWS[how], Synchronous(1.0))
    updates = updates_of(model, data, HOWS[how])
    for task, update in zip(tasks_of(model, data), updates, strict=True):
        assert update.delta.any()
        np.testing.assert_allclose(update.delta, train_alone(model, task, data, HOWS[how]), rtol=0, atol=2e-6)
    history = experiment.train(2)
    assert history.records[-1].events == ()
    assert np.isfinite(history.last("loss"))


def test_the_reference_itself_equals_an_ordinary_torch_program():
    """One full batch step of an LSTM by torch alone."""
    data, module = federation(), MODULES["LSTM"]
    model, mine = Wrapped(module), federation().train[0]
    loss = F.cross_entropy(module(torch.tensor(data.x[mine])), torch.tensor(data.y[mine]))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])
    update = updates_of(model, data, LocalSGD(lr=0.5, batch_size=None))[0]
    np.testing.assert_allclose(update.delta, -0.5 * gradient.numpy(), atol=1e-6)


# --- what is the module's own ----------------------------------------------------------------------------------------------


def backbone():
    """A frozen half with batch norm that keeps its statistics, a constant buffer, and a head that is trained."""
    body = nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Tanh()).requires_grad_(False).eval()
    body[1].running_mean += 0.3
    net = Net(lambda self, x: self.head(self.body(x.flatten(1)) - self.offset), body=body, head=nn.Linear(6, CLASSES))
    net.register_buffer("offset", torch.full((6,), 0.25))
    return net


def everything(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("how", HOWS)
def test_what_is_frozen_stays_to_the_bit_and_does_not_travel(how):
    module, data = made(backbone), federation()
    before, model = everything(module), Wrapped(module)
    assert model.dim == 6 * CLASSES + CLASSES
    assert list(model.shapes()) == ["head.weight", "head.bias"]
    history = Coordinator(data, model, HOWS[how], Synchronous(1.0)).train(3)
    assert history.state.server.params.shape == (model.dim,)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    for (name, p), (_, fresh) in zip(module.named_parameters(), made(backbone).named_parameters(), strict=True):
        assert p.requires_grad == fresh.requires_grad, name
    head = logistic(6, CLASSES)                                         # the same experiment on what the body makes of x
    with torch.no_grad():
        features = (module.body(torch.tensor(data.x).flatten(1)) - 0.25).numpy()
    plain = FederatedData("features", features, data.y, CLASSES, data.ids, data.train, data.test, features[:7], data.y[:7])
    alone = Coordinator(plain, head, HOWS[how], Synchronous(1.0))
    expected = alone.train(3, alone.initial(model.init(stream(0)))).state.server.params
    np.testing.assert_allclose(history.state.server.params, expected, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_the_module_is_left_alone_and_so_is_what_tells_experiments_apart(name):
    """A recurrent layer keeps a list of its weights, which functional_call would leave full of a client's numbers."""
    module = copy.deepcopy(MODULES[name])
    it = Coordinator(federation(), Wrapped(module), HOWS["together"], Synchronous(1.0))
    before, told, x = everything(module), facts(it), torch.tensor(it.data.x)
    answer = module(x)
    it.train(2)
    assert facts(it) == told == facts(Coordinator(federation(), Wrapped(module), HOWS["together"], Synchronous(1.0)))
    assert all(torch.equal(before[part], value) for part, value in module.state_dict().items())
    assert torch.equal(module(x), answer)


def test_what_happens_to_the_module_later_does_not_change_the_model():
    module = made(backbone)
    model, again = Wrapped(module), Wrapped(made(backbone))
    x, params = federation().x, model.init(stream(0))
    with torch.no_grad():
        module.body[0].weight.zero_()
    module.train()
    assert np.array_equal(model.predict(params, x), again.predict(params, x))


def test_thawing_a_parameter_later_does_not_change_the_model():
    module = made(backbone)
    model = Wrapped(module)
    module.requires_grad_(True)
    assert model.dim == 6 * CLASSES + CLASSES
    assert sum(p.numel() for p in model.single().parameters() if p.requires_grad) == model.dim


class Halved(Wrapped):
    def logits(self, layers, x):
        return Wrapped.logits(self, layers, x) / 2


def test_a_subclass_with_another_forward_pass_trains_what_it_says():
    data, model = federation(), Halved(MODULES["dense"])
    for task, update in zip(tasks_of(model, data), updates_of(model, data, HOWS["plain"]), strict=True):
        np.testing.assert_allclose(update.delta, train_alone(model, task, data, HOWS["plain"]), rtol=0, atol=2e-6)


def test_a_look_at_the_forward_pass_leaves_torchs_dice_where_they_were():
    model, before = Wrapped(linear(lambda self, h: F.dropout(h, 0.5))), torch.get_rng_state()
    with pytest.raises(ValueError, match="draws random numbers"):
        Coordinator(federation(), model)
    assert torch.equal(torch.get_rng_state(), before)


def test_buffers_are_looked_at_also_inside_inference_mode():
    model = Wrapped(made(backbone))
    expected = Coordinator(federation(), model).train(1).state.server.params
    with torch.inference_mode():
        assert np.array_equal(Coordinator(federation(), model).train(1).state.server.params, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_module_in_another_precision_is_trained_in_single_precision(dtype):
    module = made(backbone).to(dtype)
    data, model = federation(), Wrapped(module)
    experiment = Coordinator(data, model, HOWS["plain"], Synchronous(1.0))
    slow = train_alone(model, tasks_of(model, data)[0], data, HOWS["plain"])
    np.testing.assert_allclose(updates_of(model, data, HOWS["plain"])[0].delta, slow, atol=1e-6)
    assert np.isfinite(experiment.train(1).last("loss"))
    assert {p.dtype for p in module.parameters()} == {dtype}


# --- modules that are put together in unusual ways -------------------------------------------------------------------------


def looked_up(kind=nn.Embedding, **settings):
    """Tokens 0 … 4 of the examples; those of the embedding bag have no axis left to be averaged."""
    def forward(self, x):
        found = self.table(tokens(x))
        return self.head(found if found.dim() == 2 else found.mean(1))

    return made(lambda: Net(forward, table=kind(5, 4, **settings), head=nn.Linear(4, CLASSES)))


def tokens(x):
    return (x.flatten(1).abs() * 3).long().clamp(0, 4)


def by_hand(padding):
    return made(lambda: Net(lambda self, x: self.head(F.embedding(tokens(x), self.table.weight, padding).mean(1)),
                            table=nn.Embedding(5, 4), head=nn.Linear(4, CLASSES)))  # fmt: skip


def twice():
    body = nn.Linear(12, 12)
    return nn.Sequential(nn.Flatten(), body, nn.Tanh(), body, nn.Linear(12, CLASSES))


def tied():
    first, second = nn.Linear(12, 12), nn.Linear(12, 12, bias=False)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), second, nn.Linear(12, CLASSES))


def with_an_idle_part():
    return Net(lambda self, x: self.layer(x.flatten(1)), idle=nn.Linear(3, 2), layer=nn.Linear(12, CLASSES))


def behind_no_grad():
    def forward(self, x):
        with torch.no_grad():
            h = self.first(x.flatten(1))
        return self.layer(h)

    return Net(forward, first=nn.Linear(12, 6), layer=nn.Linear(6, CLASSES))


def with_a_scalar():
    net = Net(lambda self, x: self.scale * self.layer(self.bend(x.flatten(1))), bend=nn.PReLU(), layer=nn.Linear(12, CLASSES))
    net.scale = nn.Parameter(torch.tensor(1.5))
    return net


ODD = {
    "padding": looked_up(padding_idx=0), "padding from behind": looked_up(padding_idx=-2), "padding by hand": by_hand(0),
    "a bag with padding": looked_up(nn.EmbeddingBag, padding_idx=1), "sparse": looked_up(sparse=True),
    "sparse and padded": looked_up(sparse=True, padding_idx=0), "a bag": looked_up(nn.EmbeddingBag),
    "twice": made(twice), "tied": made(tied), "an idle part": made(with_an_idle_part), "behind no_grad": made(behind_no_grad),
    "a scalar": made(with_a_scalar), "a transformer in eval": made(attention).eval(),
    "weight norm": made(lambda: nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(12, CLASSES)))),
    "double at the end": made(lambda: linear(lambda self, h: h.double())),
}  # fmt: skip
FULL = {"plain": {}, "rows": {"engine": "rows"}, "together": {"engine": "rows", "together": 3}, "momentum": {"momentum": 0.5},
        "FedProx": {"correction": FedProx(0.3)}, "SCAFFOLD": {"correction": Scaffold()},
        "SCAFFOLD, the whole gradient": {"correction": Scaffold(1)}, "decay": {"weight_decay": 1e-9},
        "in one tensor": {"together": 3}}  # fmt: skip


def gradient_by_torch(module, x, y):
    """(d,) as any torch program computes it; zeros for what the loss does not depend on."""
    module = copy.deepcopy(module)
    F.cross_entropy(module(torch.tensor(x)), torch.tensor(y)).backward()
    parts = [p.grad.to_dense() if p.grad is not None else torch.zeros_like(p) for p in module.parameters()]
    return torch.cat([part.flatten() for part in parts]).numpy()


@pytest.mark.parametrize("how", FULL)
@pytest.mark.parametrize("name", ODD)
def test_a_step_is_that_of_torch_however_the_module_is_put_together(name, how):
    data, module = federation(), ODD[name]
    model, training = Wrapped(module), LocalSGD(lr=0.5, batch_size=None, **FULL[how])
    experiment = Coordinator(data, model, training, Synchronous(1.0), weights=Uniform())
    updates = updates_of(model, data, replace(training, correction=None) if "SCAFFOLD" in how else training)
    for mine, update in zip(data.train, updates, strict=True):
        expected = -0.5 * gradient_by_torch(module, data.x[mine], data.y[mine])
        np.testing.assert_allclose(update.delta, expected, atol=2e-6)
    history = experiment.train(2)
    assert history.records[-1].events == ()
    assert np.isfinite(history.last("loss"))
    copy.deepcopy(model)


@pytest.mark.parametrize("name", ODD)
def test_the_gradient_of_an_example_is_that_of_torch(name):
    data, model = federation(), Wrapped(ODD[name])
    theta = torch.tensor(model.init(stream(0)))
    grads = example_gradients(model, theta, torch.tensor(data.x), torch.tensor(data.y))
    for k, gradient in enumerate(grads.detach().numpy()):
        expected = gradient_by_torch(ODD[name], data.x[k : k + 1], data.y[k : k + 1])
        np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_vmap_is_kept_where_it_computes_the_same():
    for name in ("dense", "attention"):
        model = Wrapped(MODULES[name])
        Coordinator(federation(), model)
        assert model._vectorised


def test_a_module_is_read_once_as_it_is_wrapped():
    """Frozen part, trained part, buffers and mode are of one moment."""
    module = made(backbone)
    model, x = Wrapped(module), federation().x
    before, answer = facts(model), module(torch.tensor(x)).detach().numpy()
    module.load_state_dict({name: value + 1 for name, value in module.state_dict().items()})
    module.requires_grad_(False).train()
    np.testing.assert_allclose(model.predict(model.init(stream(0)), x), answer, atol=1e-6)
    np.testing.assert_allclose(model.single()(torch.tensor(x)).detach().numpy(), answer, atol=1e-6)
    assert list(model.shapes()) == ["head.weight", "head.bias"]
    assert facts(model) == before


@pytest.mark.parametrize("rows", ["one example", "equal ends", "all equal", "tiny numbers"])
@pytest.mark.parametrize("mix", [lambda h: h - h.mean(0), lambda h: h - h.amax(0), lambda h: h.cumsum(0)])
def test_examples_that_meet_are_seen_whatever_the_data(rows, mix):
    data = federation() if rows != "one example" else federation(sizes=(1,))
    if rows == "equal ends":
        data.x[[0, -1]] = 0.0
    elif rows == "all equal":
        data.x[:] = data.x[0]
    elif rows == "tiny numbers":
        data.x[:] *= 1e-6
    layer = made(lambda: nn.Linear(12, CLASSES))
    with pytest.raises(ValueError, match="depends on the others of its batch"):
        Coordinator(data, Wrapped(Net(lambda self, x: self.layer(mix(x.flatten(1))), layer=layer)))
    Coordinator(data, Wrapped(Net(lambda self, x: self.layer(x.flatten(1).tanh()), layer=layer)))


# --- whatever the caller has switched --------------------------------------------------------------------------------------

ELSEWHERE = {
    "no gradients": lambda: torch.set_grad_enabled(False), "no_grad": torch.no_grad, "inference": torch.inference_mode,
    "another device": lambda: torch.device("meta"), "half precision": lambda: torch.autocast("cpu"),
}  # fmt: skip


@pytest.mark.parametrize("where", [*ELSEWHERE, "another dtype"])
@pytest.mark.parametrize("how", ["plain", "FedProx", "together", "private"])
@pytest.mark.parametrize("build", ["dense", "LSTM", "softmax"])
def test_training_works_whatever_torch_is_told_by_default(where, how, build):
    def run():
        model = logistic(12, CLASSES) if build == "softmax" else Wrapped(MODULES[build])
        private = LocalSGD(lr=0.1, batch_size=4, private=DPSGD(1.0, 1.0, noise_seed=3))
        return Coordinator(federation(), model, HOWS.get(how, private), Synchronous(1.0)).train(2).state.server.params.tobytes()

    expected = run()
    with ExitStack() as stack:
        if where in ELSEWHERE:
            stack.enter_context(ELSEWHERE[where]())
        else:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
        assert run() == expected


def test_the_convolutional_network_does_not_mind_the_default_dtype():
    from fl_course import ConvNet

    data = federation((16,))
    run = lambda: Coordinator(data, ConvNet(4, CLASSES, widths=(4,)), HOWS["plain"], Synchronous(1.0)).train(2)  # noqa: E731
    expected = run().state.server.params.tobytes()
    torch.set_default_dtype(torch.float64)
    try:
        assert run().state.server.params.tobytes() == expected
    finally:
        torch.set_default_dtype(torch.float32)


# --- where it ends, and what to do -----------------------------------------------------------------------------------------


def counting():
    def forward(self, x):
        self.seen += 1
        return self.layer(x.flatten(1))

    net = Net(forward, layer=nn.Linear(12, CLASSES))
    net.register_buffer("seen", torch.zeros(()))
    return net


def replacing():
    def forward(self, x):
        new = x.mean(0)
        while new._version < self.mean._version:                        # as old as the one before, and yet another
            new += 0
        self.mean = new
        return self.layer(x.flatten(1))

    net = Net(forward, layer=nn.Linear(12, CLASSES))
    net.register_buffer("mean", torch.zeros(STEPS, WIDTH))
    return net


def time_first():
    return Net(lambda self, x: self.head(self.cell(x)[0][:, -1]), cell=nn.LSTM(WIDTH, 5), head=nn.Linear(5, CLASSES))


@pytest.mark.parametrize(("module", "says"), [
    (lambda: nn.LSTM(WIDTH, CLASSES, batch_first=True), "answers with a tuple; it must be one tensor (b, outputs)"),
    (lambda: linear(lambda self, h: {"logits": h}), "answers with a dict"),
    (lambda: linear(lambda self, h: None), "answers with a NoneType"),
    (lambda: linear(lambda self, h: F.dropout(h, 0.5)), "draws random numbers from torch's global generator"),
    (lambda: linear(lambda self, h: h + torch.randn_like(h)), "switch it off: module.eval()"),
    (lambda: recurrent(nn.LSTM, num_layers=2, dropout=0.5), "draws random numbers"),
    (lambda: linear(lambda self, h: h + np.random.random()), "differently a second time"),  # noqa: NPY002
    (lambda: linear(lambda self, h: h - h.mean(0)), "depends on the others of its batch"),
    (lambda: linear(lambda self, h: h.softmax(0)), "depends on the others of its batch"),
    (time_first, "batch_first=True"),
    (counting, "writes to the buffer 'seen'"),
    (replacing, "writes to the buffer 'mean'"),
    (lambda: Net(lambda self, x: self.layer(x), layer=nn.Linear(WIDTH, CLASSES)), "take the last step of a sequence, out[:, -1]"),
    (lambda: linear(lambda self, h: h[:, 0]), "numbers of shape (2,); it must be (2, outputs)"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(11, CLASSES)), "cannot take the data's examples, which have shape (4, 3)"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), "answers with (4,) numbers, the data has 3 classes"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Embedding(9, CLASSES)), "an embedding looks up x.long()"),
    (lambda: linear(lambda self, h: self.no_such_part(h)), "no attribute 'no_such_part'"),
    (lambda: linear(lambda self, h: h.detach()), "has no gradient for any trained parameter"),
    (lambda: linear(lambda self, h: h.bfloat16()), "answers with numbers of torch.bfloat16"),
    (lambda: linear(lambda self, h: h.argmax(1, keepdim=True)), "answers with numbers of torch.int64"),
    (lambda: linear(lambda self, h: h + torch.rand(()) if torch.is_grad_enabled() else h), "draws random numbers"),
    (lambda: Net(lambda self, x: self.layer(x.flatten(1).double()), layer=nn.Linear(12, CLASSES)), "nothing in it may cast"),
    (lambda: Net(lambda self, x: self.head(F.embedding(tokens(x), self.table, sparse=True).mean(1)),
                 table=nn.Parameter(torch.ones(5, 4)), head=nn.Linear(4, CLASSES)), "say sparse=False"),
    (lambda: Net(lambda self, x: self.head(F.embedding(tokens(x), self.table, scale_grad_by_freq=True).mean(1)),
                 table=nn.Parameter(torch.ones(5, 4)), head=nn.Linear(4, CLASSES)), "depends on the others of its batch"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused_when_the_experiment_is_built(module, says):
    model = Wrapped(made(module))
    before = everything(model.module)
    with pytest.raises(ValueError, match=re.escape(says)):
        Coordinator(federation(), model)
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())


def test_dropout_that_looks_at_the_mode_is_accepted_in_eval():
    model = Wrapped(linear(lambda self, h: F.dropout(h, 0.5, self.training)).eval())
    assert np.isfinite(Coordinator(federation(), model).train(1).last("loss"))
    with pytest.raises(ValueError, match="draws random numbers"):
        Coordinator(federation(), Wrapped(linear(lambda self, h: F.dropout(h, 0.5, self.training))))


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(nn.Linear(2, 2))


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(2, 2))


def in_inference_mode():
    with torch.inference_mode():
        return nn.Linear(4, 2)


@pytest.mark.parametrize(("wrap", "error", "says"), [
    (lambda: Wrapped(nn.LSTM), TypeError, "not a class of modules; make one: Wrapped(LSTM(…))"),
    (lambda: Wrapped(logistic(2, 2)), TypeError, "is a model already"),
    (lambda: Wrapped(lambda x: x), TypeError, "Wrapped takes a torch.nn.Module, not"),
    (lambda: Wrapped(nn.Linear(2, 2), loss=SquaredError), TypeError, "make one: SquaredError()"),
    (lambda: Wrapped(nn.Linear(2, 2), loss="mse"), TypeError, "loss must be CrossEntropy()"),
    (lambda: Wrapped(scripted()), TypeError, "hand over the module it was made of"),
    (lambda: Wrapped(old_weight_norm()), ValueError, "take torch.nn.utils.parametrizations.weight_norm"),
    (lambda: Wrapped(nn.Embedding(3, 2, scale_grad_by_freq=True)), ValueError, "say scale_grad_by_freq=False"),
    (lambda: Wrapped(nn.LazyLinear(3)), ValueError, "call the module once on an example"),
    (lambda: Wrapped(nn.Linear(2, 2, device="meta")), ValueError, "module.to('cpu')"),
    (lambda: Wrapped(in_inference_mode()), ValueError, "make the module outside"),
    (lambda: Wrapped(nn.Linear(2, 2).requires_grad_(False)), ValueError, "all of its parameters are frozen"),
    (lambda: Wrapped(nn.Linear(2, 2, dtype=torch.complex64)), ValueError, "holds torch.complex64"),
    (lambda: Wrapped(nn.BatchNorm1d(3, track_running_stats=False).eval()), ValueError, "mixes the examples of a batch"),
    (lambda: Coordinator(federation(), nn.Linear(12, CLASSES)), TypeError, "wrap it: Wrapped(module)"),
    (lambda: Coordinator(federation(), nn.LSTM), TypeError, "make one and wrap it"),
])  # fmt: skip
def test_what_is_no_module_or_cannot_be_a_vector_is_refused_at_once(wrap, error, says):
    with pytest.raises(error, match=re.escape(says)):
        wrap()
