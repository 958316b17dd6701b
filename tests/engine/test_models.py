"""Cohort-first models against ordinary torch modules, one client at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import federation as small
from torch import nn

from fl_course import Coordinator
from fl_course.core import stream
from fl_course.engine.models import ConvNet, Dense, Model, logistic, mlp
from fl_course.engine.wrapped import Wrapped

N, B = 3, 5                                                           # clients, examples a batch


def small_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 4))


MODELS = [logistic(12, 4), mlp(12, 8, 4), mlp(12, 8, 6, 4), ConvNet(8, 4, widths=(4, 8)), Wrapped(small_net())]


def features(model: Model) -> int:
    return 64 if isinstance(model, ConvNet) else 12


def cohort(model: Model, n: int = N, b: int = B):
    """Rows theta (n, d), inputs (n, b, features), labels (n, b), all different, in float64."""
    rng = stream(0, "test-cohort")
    theta = np.stack([model.init(stream(k, "init")) for k in range(n)]) + 0.05 * rng.standard_normal((n, model.dim))
    x, y = rng.standard_normal((n, b, features(model))), rng.integers(0, 4, (n, b))
    return torch.from_numpy(theta), torch.from_numpy(x), torch.from_numpy(y)


def as_module(model: Model, row: torch.Tensor) -> nn.Module:
    """The same network made of torch's own layers, with a copy of one row's numbers."""
    parts: list[nn.Module] = []
    if isinstance(model, Dense):
        for l, (inputs, outputs) in enumerate(zip(model.sizes, model.sizes[1:], strict=False)):
            parts += [nn.ReLU()] * (l > 0) + [nn.Linear(inputs, outputs)]
    elif isinstance(model, ConvNet):
        parts, channels, side = [nn.Unflatten(1, (model.channels, model.side, model.side))], model.channels, model.side
        for width in model.widths:
            parts += [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(model.groups, width), nn.ReLU(),
                      nn.MaxPool2d(2)]
            channels, side = width, side // 2
        parts += [nn.Flatten(), nn.Linear(channels * side * side, model.classes)]
    else:
        parts = [small_net()]
    net = nn.Sequential(*parts).double()
    nn.utils.vector_to_parameters(row, net.parameters())
    return net


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_forward_and_gradient_equal_a_torch_module_per_client(model):
    theta, x, y = cohort(model)
    theta.requires_grad_()
    losses = model.losses(model.layers(theta), x, y)
    logits = model.logits(model.layers(theta), x)
    assert losses.shape == y.shape
    gradient = torch.autograd.grad(losses.sum(), theta)[0]
    for k in range(N):
        net = as_module(model, theta[k].detach())
        torch.testing.assert_close(logits[k], net(x[k]), rtol=0, atol=1e-12)
        expected = F.cross_entropy(net(x[k]), y[k], reduction="none")
        torch.testing.assert_close(losses[k], expected, rtol=0, atol=1e-12)
        own = torch.autograd.grad(expected.sum(), list(net.parameters()))
        torch.testing.assert_close(gradient[k], torch.cat([g.flatten() for g in own]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_rows_do_not_interact(model):
    """Other clients may hold anything at all, NaN included."""
    theta, x, _ = cohort(model)
    before = model.logits(model.layers(theta), x)[1]
    theta[0], x[2] = torch.nan, torch.nan
    torch.testing.assert_close(model.logits(model.layers(theta), x)[1], before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_examples_of_a_batch_do_not_interact(model):
    theta, x, _ = cohort(model)
    before = model.logits(model.layers(theta), x)[:, :2].clone()
    x[:, 2:] = 7.0
    torch.testing.assert_close(model.logits(model.layers(theta), x)[:, :2], before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_layers_are_views_that_cover_the_vector_once(model):
    theta = torch.zeros(2, model.dim)
    layers = model.layers(theta)
    assert {name: view.shape[1:] for name, view in layers.items()} == model.shapes()
    for view in layers.values():
        view += 1
    assert torch.equal(theta, torch.ones_like(theta))
    places = list(model.slices().values())
    assert (places[0].start, places[-1].stop) == (0, model.dim)
    for name, where in model.slices().items():
        assert torch.equal(layers[name].flatten(1), theta[:, where])


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_predict_is_the_forward_pass_of_one_row_whatever_the_chunk(model):
    theta, x, _ = cohort(model)
    params, inputs = theta[0].float().numpy(), x[0].float().numpy()
    whole = model.predict(params, inputs)
    assert whole.shape == (B, 4)
    np.testing.assert_allclose(model.predict(params, inputs, chunk=2), whole, atol=1e-6)
    np.testing.assert_allclose(whole, as_module(model, theta[0])(x[0]).detach(), atol=1e-5)
    assert model.predict(params, inputs[:0]).shape == (0, 4)
    frozen = inputs.copy()
    frozen.flags.writeable = False                                    # as pandas hands them out
    assert np.array_equal(model.predict(params, frozen), whole)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_initial_values_are_repeatable_float32(model):
    first, again = model.init(stream(1, "init")), model.init(stream(1, "init"))
    assert first.shape == (model.dim,)
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert np.isfinite(first).all()


def test_initial_values_are_those_of_torch():
    model = ConvNet(28, 10)
    params, slices = model.init(stream(0, "init")), model.slices()
    for name, fan_in in (("conv0.weight", 9), ("conv1.weight", 16 * 9), ("conv1.bias", 16 * 9), ("head.weight", 32 * 49)):
        part = params[slices[name]]
        assert abs(part).max() <= 1 / np.sqrt(fan_in) * (1 + 1e-6)
        assert abs(part).max() > 0.85 / np.sqrt(fan_in)
    assert (params[slices["norm0.scale"]] == 1).all()
    assert (params[slices["norm1.shift"]] == 0).all()
    weight = mlp(400, 100).init(stream(0, "init"))[: 400 * 100]
    assert abs(weight.std() - 1 / np.sqrt(3 * 400)) < 1e-3            # uniform in ±1/√400


def test_known_sizes():
    assert logistic(784, 10).dim == 7850
    assert mlp(784, 200, 200, 10).dim == 199_210                       # McMahan et al. 2017, section 3
    assert ConvNet(28, 10).dim == sum(p.numel() for p in as_module(ConvNet(28, 10), torch.zeros(20586)).parameters())


def test_an_odd_side_and_several_channels():
    model = ConvNet(9, 4, channels=3, widths=(4, 4), groups=2)
    rng = stream(0, "test-odd")
    theta, x = torch.from_numpy(rng.standard_normal((2, model.dim))), torch.from_numpy(rng.standard_normal((2, 3, 243)))
    for k in range(2):
        torch.testing.assert_close(model.logits(model.layers(theta), x)[k], as_module(model, theta[k])(x[k]),
                                   rtol=0, atol=1e-11)
    images = x.view(2, 3, 3, 9, 9)
    assert torch.equal(model.logits(model.layers(theta), images), model.logits(model.layers(theta), x))


def test_a_wrapped_module_begins_where_it_stands_and_is_left_alone():
    net = small_net()
    before = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    model = Wrapped(net)
    assert np.array_equal(model.init(stream(5, "anything")), before.numpy())
    begun = model.init(stream(0, "init"))
    begun += 1                                                         # a copy, not the module's memory
    model.predict(begun, np.zeros((2, 12), np.float32))
    assert torch.equal(nn.utils.parameters_to_vector(net.parameters()), before)
    assert repr(model) == "Wrapped(name='Sequential')"


def test_a_wrapped_module_with_shared_weights_counts_them_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x).relu())

    model = Wrapped(Tied().double())
    assert model.dim == 20
    theta, x = torch.from_numpy(stream(0, "test-tied").standard_normal((2, 20))), torch.ones(2, 3, 4).double()
    weight, bias = theta[1, :16].view(4, 4), theta[1, 16:]
    expected = (x[1] @ weight.T + bias).relu() @ weight.T + bias
    torch.testing.assert_close(model.logits(model.layers(theta), x)[1], expected)


def test_only_convolutions_are_trained_one_client_at_a_time():
    conv = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 4))
    sound = nn.Sequential(nn.Unflatten(1, (1, 12)), nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(40, 4))
    assert [model.alone for model in (*MODELS, Wrapped(conv), Wrapped(sound))] == [False, False, False, True, False, True, True]


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "match"), [
    (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), r"BatchNorm1d.*GroupNorm or LayerNorm"),
    (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), "mixes the examples of a batch"),
    (nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), r"Dropout\(p=0.5.*would not repeat"),
    (nn.Sequential(nn.ReLU()), "no parameters to train"),
])  # fmt: skip
def test_modules_that_cannot_be_averaged_or_repeated_are_refused(module, match):
    with pytest.raises(ValueError, match=match):
        Wrapped(module)


def test_dropout_that_is_switched_off_is_accepted():
    Wrapped(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.0)))
    Wrapped(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)).eval())


def test_random_numbers_inside_a_forward_pass_are_refused():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return F.dropout(self.layer(x), 0.5)

    with pytest.raises(RuntimeError, match="random operation"):
        Wrapped(Noisy()).predict(np.zeros(10, np.float32), np.zeros((3, 4), np.float32))


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize("shape", [(2, 3), (7,)])
def test_theta_of_another_shape_is_refused(model, shape):
    with pytest.raises(ValueError, match=rf"theta has shape .*\(clients, {model.dim}\)"):
        model.layers(torch.zeros(shape))
    with pytest.raises(ValueError, match=rf"theta has shape \({model.dim},\)"):
        model.layers(torch.zeros(model.dim))                           # one client is a row, not a vector


def test_a_model_must_answer_an_example_with_a_row_of_outputs():
    class Flat(Dense):
        def logits(self, layers, x):
            return Dense.logits(self, layers, x)[..., 0]

    with pytest.raises(ValueError, match=r"numbers of shape \(1,\); it must be \(1, outputs\)"):
        Coordinator(small(), Flat((5, 3)))


@pytest.mark.parametrize(("model", "match"), [
    (mlp(12, 8, 4), "examples of 11 numbers; this model takes 12"),
    (logistic(12, 4), "examples of 11 numbers; this model takes 12"),
    (ConvNet(8, 4, widths=(4,)), "1 channels of 8 × 8"),
])  # fmt: skip
def test_examples_of_another_size_are_refused(model, match):
    with pytest.raises(ValueError, match=match):
        model.predict(np.zeros(model.dim, np.float32), np.zeros((2, 11), np.float32))


@pytest.mark.parametrize("sizes", [(), (5,), (5, 0), (5, -1, 2), (5, 2.5), ("5", 2)])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="positive whole numbers"):
        mlp(*sizes)


@pytest.mark.parametrize(("numbers", "match"), [
    ({"side": 3, "classes": 10}, "2 poolings leave nothing of an image of side 3"),
    ({"side": 28, "classes": 10, "widths": (6,)}, "multiple of groups=4"),
    ({"side": 28, "classes": 10, "widths": (8, 6)}, "multiple of groups=4"),
    ({"side": 28, "classes": 10, "groups": 0}, "positive whole numbers"),
    ({"side": 28, "classes": 0}, "positive whole numbers"),
    ({"side": 28, "classes": 10, "widths": ()}, "positive whole numbers"),
    ({"side": 2.5, "classes": 10}, "positive whole numbers"),
    ({"side": 28, "classes": 10, "channels": 0}, "positive whole numbers"),
])  # fmt: skip
def test_bad_convolutional_networks_are_refused(numbers, match):
    with pytest.raises(ValueError, match=match):
        ConvNet(**numbers)
