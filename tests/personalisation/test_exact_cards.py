"""The cards: a rope's best strength and a shared plane, found by the library's own runs; what the clock counts."""

import numpy as np
import pytest

from fl_course import Coordinator, Evaluation, FedRep, Fleet, LocalSGD, Split, Synchronous, mlp, stream
from fl_course.personalisation.exact import HalfSquares, Points, TwoLayers, angle, plane


@pytest.mark.parametrize(("malicious", "best"), [(0, 2.1333), (8, 1.185)])
def test_the_formula_gives_the_published_figures(malicious, best):
    assert Points(malicious=malicious).best() == pytest.approx(best, abs=5e-4)


@pytest.mark.parametrize(("malicious", "K"), [(0, 16), (8, 16), (3, 5), (0, 2)])
def test_the_formula_is_the_minimum_of_the_exact_error(malicious, K):
    """E (v - θ_k)² for v = (x̄_k + λ·x̄)/(1 + λ), from variances and covariances, on a fine grid."""
    p = Points(clients=K, malicious=malicious)
    s, t, a = p.sigma**2 / p.examples, p.tau**2, p.tau_a**2
    away = s / K + ((K - 1 - malicious) * t + malicious * a + (K - 1) ** 2 * t) / K**2
    lam = np.geomspace(p.best() / 4, p.best() * 4, 20_001)
    error = (s + 2 * lam * s / K + lam**2 * away) / (1 + lam) ** 2
    assert lam[error.argmin()] == pytest.approx(p.best(), rel=1e-3)


def test_the_trainer_finds_the_closed_form_of_both_models():
    p = Points(clients=4, examples=5, dim=7, seed=3)
    it = p.experiment(0.7)
    state = it.train(3).state
    means = np.stack([it.data.y[rows].mean(axis=0) for rows in it.data.train])
    np.testing.assert_allclose(state.server.params[7:], means.mean(axis=0), atol=1e-3)
    for k, client in enumerate(it.data.ids):
        expected = (means[k] + 0.7 * means.mean(axis=0)) / 1.7
        np.testing.assert_allclose(state.memory[client]["personal"][7:], expected, atol=5e-3)


@pytest.mark.parametrize(("malicious", "seed"), [(0, 1), (8, 4)])
def test_the_best_rope_is_found(malicious, seed):
    p = Points(malicious=malicious, seed=seed, dim=400)
    found, grid, errors = p.found(p.best() * np.array([0.4, 0.7, 1.0, 1.4, 2.5]))
    assert found == pytest.approx(p.best(), rel=0.15)
    assert errors.argmin() in (1, 2, 3)
    assert len(grid) == len(errors) == 5


def test_half_squares_is_what_its_name_says():
    import torch

    outputs, targets = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    expected = [[0.5 * sum((o - t) ** 2 for o, t in zip(oo, tt, strict=True)) for oo, tt in zip(a, b, strict=True)]
                for a, b in zip(outputs.tolist(), targets.tolist(), strict=True)]
    np.testing.assert_allclose(HalfSquares().each(outputs, targets).numpy(), expected, rtol=1e-5)


def test_fedrep_finds_the_plane_and_fedavg_does_not():
    data, basis = plane(clients=40, seed=0)
    how = {"lr": 0.1, "batch_size": None, "engine": "rows", "together": 40}
    ends = []
    for model, personal in ((Split(TwoLayers(), "head"), FedRep(10)), (TwoLayers(), None)):
        it = Coordinator(data, model, LocalSGD(**how, personal=personal), Synchronous(0.25), evaluation=Evaluation(every=999))
        ends.append(angle(it.train(120).state.server.params[:40].reshape(2, 20).T, basis))
    assert ends[0] < 0.01
    assert ends[1] > 0.5


def test_angles():
    rng = stream(0, "x")
    a = rng.standard_normal((9, 2))
    assert angle(a, a @ rng.standard_normal((2, 2))) == pytest.approx(0, abs=1e-12)
    assert angle(np.eye(4)[:, :2], np.eye(4)[:, 2:]) == pytest.approx(1)
    t = 0.3
    assert angle(np.array([[1.0], [0.0]]), np.array([[np.cos(t)], [np.sin(t)]])) == pytest.approx(np.sin(t))
    from scipy.linalg import subspace_angles

    b = rng.standard_normal((9, 2))
    assert angle(a, b) == pytest.approx(np.sin(subspace_angles(a, b)[0]))
    assert angle(a, b) == pytest.approx(angle(b, a))


@pytest.mark.parametrize("make", [
    lambda: Points(malicious=16), lambda: Points(clients=1), lambda: Points(sigma=0), lambda: Points(tau=float("nan")),
])  # fmt: skip
def test_what_is_out_of_range_is_refused(make):
    with pytest.raises(ValueError, match=r"must be"):
        make()


def test_the_clock_counts_what_a_method_costs():
    from small import CLASSES, DIM, federation

    from fl_course import APFL, IFCA, Clusters, Ditto, FedPer, FineTune, PerFedAvg, PFedMe

    net, data = mlp(DIM, 4, CLASSES), federation((8, 8, 8))
    clocks = {}
    for name, model, personal, passes in (
        ("plain", net, None, 2), ("FineTune", net, FineTune(9), 2), ("Ditto", net, Ditto(1.0), 4),
        ("Ditto, 5", net, Ditto(1.0, epochs=5), 7), ("PFedMe", net, PFedMe(1.0, steps=3), 6), ("APFL", net, APFL(), 4),
        ("first", net, PerFedAvg(), 4), ("exact", net, PerFedAvg(order="exact"), 8),
        ("FedPer", Split(net, "dense1"), FedPer(), 2), ("FedRep", Split(net, "dense1"), FedRep(5), 7),
        ("IFCA", Clusters(net, 3), IFCA(), 3),
    ):  # fmt: skip
        how = LocalSGD(lr=0.1, epochs=2, batch_size=4, personal=personal)
        seen = []

        class Counted(Fleet):
            def compute(self, client, examples, luck, seen=seen):
                seen.append(examples)
                return 1.0

        Coordinator(data, model, how, Synchronous(1.0), fleet=Counted()).train(1)
        clocks[name] = set(seen)
        assert clocks[name] == {8 * passes}, name
