"""The server's step, against a loop over coordinates that follows Reddi et al. (2021), algorithm 2, line by line."""

import math

import numpy as np
import pytest

from fl_course.core import Aggregate, Server, stream
from fl_course.federation.optimizers import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi

D = 40


def deltas(rounds: int, scale: float = 0.1) -> list[np.ndarray]:
    rng = stream(0, "test-deltas")
    return [(scale * rng.standard_normal(D) * 10.0 ** rng.integers(-4, 1, D)).astype(np.float32) for _ in range(rounds)]


def start() -> Server:
    return Server(stream(0, "test-start").standard_normal(D).astype(np.float32), version=3, state={"ledger": "kept"})


def run(optimizer, server: Server, updates) -> Server:
    for delta in updates:
        weight = 7.0                                        # whatever it is: the step follows the mean
        server = optimizer.step(server, Aggregate(delta.astype(np.float64) * weight, weight))
    return server


def slowly(rule: str, x, updates, lr, beta1, beta2, tau) -> list[float]:
    """Algorithm 2 in double precision, one coordinate after the other."""
    out = []
    for i, value in enumerate(x):
        m, v, value = 0.0, tau**2, float(value)
        for delta in updates:
            step = float(delta[i])
            m = beta1 * m + (1 - beta1) * step
            if rule == "adagrad":
                v = v + step**2
            elif rule == "adam":
                v = beta2 * v + (1 - beta2) * step**2
            else:
                v = v - (1 - beta2) * step**2 * ((v > step**2) - (v < step**2))
            value = value + lr * m / (math.sqrt(v) + tau)
        out.append(value)
    return out


@pytest.mark.parametrize(("rule", "kind"), [("adagrad", FedAdagrad), ("adam", FedAdam), ("yogi", FedYogi)])
@pytest.mark.parametrize("numbers", [
    {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
    {"lr": 0.03, "beta1": 0.0, "beta2": 0.5, "tau": 1e-1},
    {"lr": 1.0, "beta1": 0.5, "beta2": 0.0, "tau": 1e-2},
])  # fmt: skip
def test_adaptive_optimizers_equal_the_slow_loop(rule, kind, numbers):
    before, updates = start(), deltas(12)
    after = run(kind(**numbers), before, updates)
    np.testing.assert_allclose(after.params, slowly(rule, before.params, updates, **numbers), rtol=2e-5, atol=2e-5)
    assert after.params.dtype == after.state["m"].dtype == after.state["v"].dtype == np.float32


def test_the_three_rules_differ():
    results = [run(kind(beta1=0.9), start(), deltas(5)).params for kind in (FedAdagrad, FedAdam, FedYogi)]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in ((results[0], results[1]), (results[1], results[2])))


def test_fedavg_with_rate_one_is_the_mean_of_the_local_models():
    server = start()
    locals_ = [server.params + delta for delta in deltas(4)]
    counts = [3, 1, 5, 2]
    total = sum(n * (w.astype(np.float64) - server.params) for n, w in zip(counts, locals_, strict=True))
    after = FedAvg().step(server, Aggregate(total, float(sum(counts))))
    np.testing.assert_allclose(after.params, np.average(locals_, axis=0, weights=counts), atol=1e-6)


def test_fedavg_scales_the_step():
    before, (delta,) = start(), deltas(1)
    np.testing.assert_allclose(run(FedAvg(lr=0.25), before, [delta]).params, before.params + 0.25 * delta, atol=1e-7)


def test_fedavgm_without_momentum_is_fedavg_to_the_bit():
    for lr in (1.0, 0.3):
        plain = run(FedAvg(lr), start(), deltas(5))
        assert np.array_equal(run(FedAvgM(lr, momentum=0.0), start(), deltas(5)).params, plain.params)


def test_fedavgm_remembers():
    before, updates = start(), deltas(4)
    expected, m = before.params.astype(np.float64), np.zeros(D)
    for delta in updates:
        m = 0.9 * m + delta
        expected = expected + 0.5 * m
    np.testing.assert_allclose(run(FedAvgM(0.5, 0.9), before, updates).params, expected, atol=1e-5)


def test_no_bias_correction_and_tau_outside_the_root():
    delta, tau = np.full(D, 0.5, np.float32), 0.1
    after = run(FedAdam(lr=1.0, beta1=0.9, beta2=0.99, tau=tau), Server(np.zeros(D, np.float32)), [delta])
    expected = 0.1 * 0.5 / (math.sqrt(0.99 * tau**2 + 0.01 * 0.25) + tau)
    np.testing.assert_allclose(after.params, expected, rtol=1e-5)
    assert abs(0.5 / (0.5 + tau) - expected) > 0.01                    # what bias correction would give
    inside = 0.1 * 0.5 / math.sqrt(0.99 * tau**2 + 0.01 * 0.25 + tau)
    assert abs(inside - expected) > 0.01


def test_a_large_tau_makes_every_rule_a_scaled_fedavg():
    """τ ≫ |Δ|: √v + τ ≈ 2τ at the first step, so x moves by lr·(1 - β1)·Δ / 2τ."""
    delta, tau = deltas(1)[0], 1e3
    for kind in (FedAdagrad, FedAdam, FedYogi):
        after = run(kind(lr=2 * tau, beta1=0.0, beta2=0.999999, tau=tau), Server(np.zeros(D, np.float32)), [delta])
        np.testing.assert_allclose(after.params, delta, rtol=1e-3, atol=1e-7)


def test_adam_with_all_betas_zero_moves_by_the_sign():
    delta = deltas(1, scale=10.0)[0]
    after = run(FedAdam(lr=0.1, beta1=0.0, beta2=0.0, tau=1e-9), Server(np.zeros(D, np.float32)), [delta])
    np.testing.assert_allclose(after.params, 0.1 * np.sign(delta), rtol=1e-4)


def test_yogi_forgets_slowly_and_adam_at_once():
    """After a burst, zero gradients: Adam's v decays geometrically, Yogi's stays."""
    burst, silence = np.ones(D, np.float32), [np.zeros(D, np.float32)] * 50
    adam, yogi = (run(kind(beta2=0.9), start(), [burst, *silence]).state["v"] for kind in (FedAdam, FedYogi))
    assert (adam < 1e-2).all()
    assert (yogi > 0.09).all()


@pytest.mark.parametrize("optimizer", [FedAvg(), FedAvgM(), FedAdagrad(), FedAdam(), FedYogi()])
def test_nothing_is_mutated_and_other_state_is_kept(optimizer):
    before, (delta,) = start(), deltas(1)
    x, total = before.params.copy(), delta.astype(np.float64)
    after = optimizer.step(before, Aggregate(total, 1.0))
    again = optimizer.step(before, Aggregate(total, 1.0))
    assert np.array_equal(before.params, x)
    assert np.array_equal(total, delta)
    assert np.array_equal(after.params, again.params)                  # no hidden state: a cell can be run twice
    assert before.state == {"ledger": "kept"}
    assert after.state["ledger"] == "kept"
    assert after.version == before.version                             # counting is the loop's
    middle = optimizer.step(after, Aggregate(total, 1.0)).state
    assert all(middle[name] is not after.state[name] for name in after.state if name != "ledger")


@pytest.mark.parametrize("optimizer", [FedAvg(), FedAvgM(), FedAdagrad(), FedAdam(), FedYogi()])
def test_a_zero_update_from_rest_moves_nothing(optimizer):
    assert np.array_equal(run(optimizer, start(), [np.zeros(D, np.float32)] * 3).params, start().params)


@pytest.mark.parametrize("kind", [FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi])
@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_bad_learning_rates_are_refused(kind, lr):
    with pytest.raises(ValueError, match=r"lr must be positive and finite, not"):
        kind(lr=lr)


@pytest.mark.parametrize(("kind", "bad", "match"), [
    (FedAvgM, {"momentum": 1.0}, r"momentum must be in \[0, 1\), not 1.0"),
    (FedAvgM, {"momentum": -0.1}, "momentum"),
    (FedAvgM, {"momentum": math.nan}, "momentum"),
    (FedAdam, {"beta1": 1.0}, "beta1"),
    (FedAdam, {"beta2": 1.5}, "beta2"),
    (FedYogi, {"beta2": math.nan}, "beta2"),
    (FedAdagrad, {"tau": 0.0}, "tau must be positive and finite, not 0.0"),
    (FedAdam, {"tau": -1e-3}, "tau"),
    (FedYogi, {"tau": math.nan}, "tau"),
])  # fmt: skip
def test_other_bad_numbers_are_refused(kind, bad, match):
    with pytest.raises(ValueError, match=match):
        kind(**bad)


def test_defaults_are_those_of_the_papers():
    assert FedAdagrad().beta1 == 0.0
    assert (FedAdam().beta1, FedAdam().beta2, FedAdam().tau) == (0.9, 0.99, 1e-3)
    assert FedAvg().lr == 1.0
