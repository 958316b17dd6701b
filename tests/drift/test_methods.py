"""FedProx, SCAFFOLD, FedDyn, FedNova, stragglers and server optimisers: their limits, their fixed points, their refusals."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.optimize import minimize
from small import federation, named

from fl_course import (
    QSGD,
    Aggregation,
    Bowls,
    Buffered,
    ByExamples,
    Clip,
    CompositionError,
    Coordinator,
    Dirichlet,
    Downlink,
    Equal,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedDyn,
    FedNova,
    FedProx,
    FedYogi,
    Fleet,
    LocalSGD,
    PoissonSelection,
    PowerSGD,
    QuantitySkew,
    RandomK,
    Rotate,
    Scaffold,
    SecureSum,
    SignSGD,
    Stage,
    Stragglers,
    Synchronous,
    TopK,
    Uniform,
    digits,
    from_clients,
    load,
    logistic,
    mlp,
    save,
    stream,
    two_bowls,
)
from fl_course.core import Aggregate, Context, Server, Task, Update
from fl_course.engine.correction import Affine
from fl_course.engine.training import Trainer
from fl_course.federation.interfaces import Correction

DATA = digits().partition(Dirichlet(0.3), clients=12)
EVERY = Synchronous(1.0)


def digits_run(rounds=3, correction=None, engine="auto", epochs=2, schedule=EVERY, data=DATA, **more):
    training = LocalSGD(lr=0.1, epochs=epochs, batch_size=16, correction=correction, engine=engine)
    return Coordinator(data, mlp(64, 8, 10), training, schedule, **more).train(rounds).state


def rest(bowls, rounds=60, correction=None, epochs=5, lr=0.5, start=None, **more):
    """Where a federation on bowls ends, (p,)."""
    training = LocalSGD(lr=lr, epochs=epochs, batch_size=None, correction=correction)
    fed = Coordinator(bowls.data(), bowls.model(), training, more.pop("schedule", EVERY), **more)
    return fed.train(rounds, fed.initial(start)).state.server.params


# --- limits in which a method is FedAvg ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "rows"])
@pytest.mark.parametrize("correction", [FedProx(0.0), FedDyn(0.0), Correction(), Affine()], ids=lambda c: type(c).__name__)
def test_without_strength_a_correction_is_fedavg_to_the_bit(correction, engine):
    if type(correction) is Correction and engine == "auto":
        engine = "rows"                                                 # a general correction has no fused engine
    got, want = digits_run(correction=correction, engine=engine), digits_run(engine=engine)
    assert np.array_equal(got.server.params, want.server.params)


@pytest.mark.parametrize("engine", ["auto", "rows"])
@pytest.mark.parametrize("option", [1, 2])
def test_the_first_round_of_scaffold_is_fedavg(option, engine):
    got, want = digits_run(1, Scaffold(option), engine), digits_run(1, None, engine)
    assert np.array_equal(got.server.params, want.server.params)
    assert not np.array_equal(digits_run(2, Scaffold(option)).server.params, digits_run(2).server.params)


def test_fednova_with_equal_steps_is_fedavg_and_with_unequal_steps_is_not():
    even = two_bowls(3.0)
    assert rest(even, 3, stages=[FedNova()]) == pytest.approx(rest(even, 3), abs=1e-6)
    assert np.abs(rest(even, 3, epochs={0: 2, 1: 9}, stages=[FedNova()]) - rest(even, 3, epochs={0: 2, 1: 9})).max() > 0.1


@pytest.mark.parametrize("kind", [FedAdagrad, FedAdam, FedYogi])
def test_an_adaptive_server_with_a_large_tau_is_fedavg(kind):
    """v begins at τ² and β2 → 1 keeps it there against a small Δ², so √v + τ = 2τ, and lr = 2τ is a step of 1."""
    tau = 1e4
    got = digits_run(optimizer=kind(lr=2 * tau, beta1=0.0, beta2=1 - 1e-9, tau=tau)).server.params
    assert got == pytest.approx(digits_run().server.params, abs=1e-6)
    assert np.abs(digits_run(optimizer=kind(lr=0.1, beta1=0.0)).server.params - got).max() > 1e-3


def test_server_momentum_zero_is_fedavg_to_the_bit():
    got = digits_run(optimizer=FedAvgM(lr=1.0, momentum=0.0)).server.params
    assert np.array_equal(got, digits_run(optimizer=FedAvg()).server.params)


def test_server_adam_is_algorithm_2_written_out():
    adam, x, m, v = FedAdam(lr=0.3, beta1=0.9, beta2=0.99, tau=0.01), np.zeros(3), np.zeros(3), np.full(3, 1e-4)
    server = Server(np.zeros(3, np.float32))
    for t in range(4):
        delta = stream(t, "delta").normal(size=3)
        server = adam.step(server, Aggregate(2 * delta, 2.0))
        m, v = 0.9 * m + 0.1 * delta, 0.99 * v + 0.01 * delta**2
        x = x + 0.3 * m / (np.sqrt(v) + 0.01)
    assert server.params == pytest.approx(x, abs=1e-5)


# --- both engines and a loop that does not use them ------------------------------------------------------------------


@pytest.mark.parametrize("correction", [FedProx(1.0), Scaffold(1), Scaffold(2), FedDyn(0.5)], ids=repr)
def test_the_fused_engine_agrees_with_the_plain_one(correction):
    half = {"schedule": Synchronous(0.5), "weights": Uniform()}
    pair = [digits_run(4, correction, engine, **half).server.params for engine in ("auto", "rows")]
    assert pair[0] == pytest.approx(pair[1], abs=1e-5)
    assert np.abs(pair[0] - digits_run(4, **half).server.params).max() > 1e-3


@pytest.mark.parametrize("name", ["FedProx", "Scaffold 1", "Scaffold 2", "FedDyn", "FedNova"])
def test_each_method_is_its_papers_pseudo_code(name):
    """Three bowls, unequal steps, all take part; the right side is the algorithm in float64 with plain loops."""
    bowls, rng = _three_bowls(), stream(3, "start")
    steps, lr, mu, alpha = {0: 2, 1: 5, 2: 3}, 0.3, 0.7, 0.6
    methods = {"FedProx": FedProx(mu), "Scaffold 1": Scaffold(1), "Scaffold 2": Scaffold(2), "FedDyn": FedDyn(alpha)}
    start = rng.normal(size=2)
    got = rest(bowls, 6, methods.get(name), steps, lr, start, stages=[FedNova()] if name == "FedNova" else [])
    x, c, h, ck, hk = start.copy(), np.zeros(2), np.zeros(2), np.zeros((3, 2)), np.zeros((3, 2))
    for _ in range(6):
        local = np.tile(x, (3, 1))
        for k, (A, m) in enumerate(zip(bowls.curvatures, bowls.centres, strict=True)):
            for _ in range(steps[k]):
                g = A @ (local[k] - m)
                if name == "FedProx":
                    g = g + mu * (local[k] - x)
                if name.startswith("Scaffold"):
                    g = g - ck[k] + c
                if name == "FedDyn":
                    g = g - hk[k] + alpha * (local[k] - x)
                local[k] = local[k] - lr * g
        taken = np.array([steps[k] for k in range(3)])
        if name == "Scaffold 1":
            ck = np.stack([A @ (x - m) for A, m in zip(bowls.curvatures, bowls.centres, strict=True)])
        if name == "Scaffold 2":
            ck = ck - c + (x - local) / (taken[:, None] * lr)
        c = ck.mean(0)
        if name == "FedDyn":
            hk, h = hk - alpha * (local - x), h - alpha * (local - x).mean(0)
        nova = x + taken.mean() * ((local - x) / taken[:, None]).mean(0)
        x = nova if name == "FedNova" else local.mean(0) - h / alpha
    assert got == pytest.approx(x, abs=1e-5)


def test_fednova_weighs_by_examples():
    """Two clients with 3 and 1 examples: τ_eff and the mean step carry the same weights p."""
    updates = [Update(0, 0, np.full(2, 8.0, np.float32), 1.0, metrics={"examples": 3.0, "steps": 4.0}),
               Update(1, 0, np.full(2, -2.0, np.float32), 1.0, metrics={"examples": 1.0, "steps": 2.0})]
    ctx = Context(0, Server(np.zeros(2, np.float32)))
    sent = [FedNova().client(ByExamples().client(update, ctx), ctx) for update in updates]
    work = np.mean([update.extras["work"] for update in sent], axis=0)
    total = FedNova().server(Aggregate(sent[0].delta + sent[1].delta, 4.0, {"work": work}), ctx)
    effective = 0.75 * 4 + 0.25 * 2
    assert total.mean == pytest.approx(effective * (0.75 * 8 / 4 + 0.25 * -2 / 2))


# --- fixed points ----------------------------------------------------------------------------------------------------


def _three_bowls():
    rng = stream(1, "bowls")
    turns = [np.linalg.qr(rng.normal(size=(2, 2)))[0] for _ in range(3)]
    return Bowls(rng.normal(size=(3, 2)), np.array([q @ np.diag(rng.uniform(0.2, 1.0, 2)) @ q.T for q in turns]))


def test_the_closed_form_optimum_is_the_minimum():
    bowls = _three_bowls()
    found = minimize(lambda w: bowls.losses(w).mean(), np.zeros(2), tol=1e-12).x
    assert bowls.optimum() == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize(("epochs", "mu"), [(1, 0.0), (10, 0.0), (10, 0.5), ({0: 3, 1: 12}, 0.0)])
def test_fedavg_and_fedprox_rest_where_the_closed_form_says(epochs, mu):
    bowls = two_bowls(4.0)
    steps = epochs if isinstance(epochs, int) else list(epochs.values())
    got = rest(bowls, 40, FedProx(mu), epochs)
    assert got == pytest.approx(bowls.fixed_point(0.5, steps, mu), abs=1e-4)


def test_fednova_rests_where_the_closed_form_says():
    bowls = two_bowls(4.0)
    got = rest(bowls, 60, epochs={0: 3, 1: 12}, lr=0.1, stages=[FedNova()])
    assert got == pytest.approx(bowls.fixed_point(0.1, [3, 12], normalised=True), abs=1e-4)


@pytest.mark.parametrize("epochs", [5, {0: 2, 1: 9}], ids=str)
@pytest.mark.parametrize("correction", [Scaffold(1), Scaffold(2), FedDyn(0.5)], ids=repr)
def test_controls_rest_at_the_optimum_where_fedavg_does_not(correction, epochs):
    bowls = two_bowls(4.0)
    assert rest(bowls, 70, correction, epochs) == pytest.approx(bowls.optimum(), abs=1e-4)
    assert np.linalg.norm(rest(bowls, 30, None, epochs) - bowls.optimum()) > 0.3


@pytest.mark.parametrize("correction", [Scaffold(1), Scaffold(2)], ids=repr)
def test_scaffold_reaches_the_optimum_when_one_client_a_round_takes_part(correction):
    got = rest(two_bowls(4.0), 150, correction, lr=0.15, schedule=Synchronous(0.5))
    assert got == pytest.approx(two_bowls(4.0).optimum(), abs=1e-4)


def test_damping_the_average_is_not_fedprox():
    """Dividing the mean delta by 1 + mu only slows FedAvg down: it rests where FedAvg rests."""
    bowls, mu = two_bowls(4.0), 1.0
    damped = rest(bowls, 50, optimizer=FedAvg(lr=1 / (1 + mu)))
    assert damped == pytest.approx(bowls.fixed_point(0.5, 5), abs=1e-4)
    assert np.linalg.norm(damped - bowls.fixed_point(0.5, 5, mu)) > 0.1


def test_fedprox_minimises_its_stated_objective():
    """Long local training at a fixed anchor, against scipy on L_k(w) + mu/2·‖w - w_global‖²."""
    bowls, anchor, mu = _three_bowls(), np.array([2.0, -1.0], np.float32), 0.8
    training = LocalSGD(lr=0.5, epochs=100, batch_size=None, correction=FedProx(mu))
    trainer = Trainer(training, bowls.model(), bowls.data())
    for k, update in enumerate(trainer.train([Task(k, Server(anchor)) for k in range(3)])):
        objective = minimize(lambda w, k=k: bowls.losses(w)[k] + mu / 2 * np.sum((w - anchor) ** 2), np.zeros(2), tol=1e-12)
        assert anchor + update.delta == pytest.approx(objective.x, abs=1e-4)
        unsquared = minimize(lambda w, k=k: bowls.losses(w)[k] + mu / 2 * np.linalg.norm(w - anchor), np.zeros(2))
        assert np.linalg.norm(anchor + update.delta - unsquared.x) > 0.05


# --- state: controls, checkpoints, those who never take part ---------------------------------------------------------


@pytest.mark.parametrize("option", [1, 2])
def test_c_is_the_mean_of_all_controls_though_some_clients_never_take_part(option):
    state = digits_run(5, Scaffold(option), schedule=Synchronous(0.25))
    controls = [state.memory.get(client, {}).get("control", np.zeros_like(state.server.params)) for client in DATA.ids]
    assert 3 <= len(state.memory) < len(DATA)                              # some have never been asked
    assert state.server.extras["control"] == pytest.approx(np.mean(controls, axis=0), abs=1e-6)


def test_option_1_stores_the_full_gradient_at_the_broadcast_model():
    fed = Coordinator(DATA, logistic(64, 10), LocalSGD(correction=Scaffold(1)), EVERY)
    state = fed.train(1).state
    x, y = DATA.examples(3)
    p = np.full((len(y), 10), 0.1)                                         # softmax of the zero model
    first = fed.initial(np.zeros(650))
    state = fed.train(1, first).state
    p[np.arange(len(y)), y] -= 1
    want = np.concatenate([(p.T @ x / len(y)).ravel(), p.mean(0)])
    assert state.memory[3]["control"] == pytest.approx(want, abs=1e-6)


def test_with_one_full_step_a_round_option_2_is_option_1():
    """(x - y)/lr is then the gradient at x, corrected; taking the correction out must leave g_k(x), c_k by c_k."""
    states = []
    for option in (1, 2):
        training = LocalSGD(lr=0.3, epochs=1, batch_size=None, correction=Scaffold(option))
        states.append(Coordinator(DATA, logistic(64, 10), training, Synchronous(0.5)).train(6).state)
    assert states[0].memory.keys() == states[1].memory.keys()
    for client, drawer in states[0].memory.items():
        assert drawer["control"] == pytest.approx(states[1].memory[client]["control"], abs=1e-5)
    assert states[0].server.params == pytest.approx(states[1].server.params, abs=1e-5)


def test_controls_are_kept_only_if_the_answer_arrives():
    """With over-selection the server steps without the late clients; what they computed must not count anywhere."""
    schedule = Synchronous(0.5, over_selection=1.0)
    state = digits_run(3, Scaffold(), schedule=schedule)
    controls = [state.memory.get(client, {}).get("control", np.zeros_like(state.server.params)) for client in DATA.ids]
    assert state.server.extras["control"] == pytest.approx(np.mean(controls, axis=0), abs=1e-6)


def test_h_of_feddyn_is_the_mean_of_all_h_k():
    state = digits_run(4, FedDyn(0.2), schedule=Synchronous(0.5), weights=Uniform())
    held = [state.memory.get(client, {}).get("h", np.zeros_like(state.server.params)) for client in DATA.ids]
    assert state.server.state["h"] == pytest.approx(np.mean(held, axis=0), abs=1e-6)
    assert "h" not in state.server.extras                                  # private: it never goes out


UNEQUAL = digits().partition(QuantitySkew(1.0), clients=6, seed=1)


@pytest.mark.parametrize("stages", [[], [Rotate()], [Downlink()], [Rotate(), Downlink(4), Rotate()]], ids=named)
def test_h_is_the_mean_whatever_the_server_undoes(stages):
    state = digits_run(4, FedDyn(0.2), schedule=Synchronous(0.5), weights=Uniform(), stages=stages)
    held = [state.memory.get(client, {}).get("h", np.zeros_like(state.server.params)) for client in DATA.ids]
    assert state.server.state["h"] == pytest.approx(np.mean(held, axis=0), abs=2e-6)


def test_h_is_the_weighted_mean_where_all_take_part():
    for cap in (None, 300):
        state = digits_run(3, FedDyn(0.2), data=UNEQUAL, weights=ByExamples(cap))
        held = np.stack([state.memory[client]["h"] for client in UNEQUAL.ids])
        sizes = np.minimum([len(part) for part in UNEQUAL.train], cap or np.inf)
        assert state.server.state["h"] == pytest.approx(sizes @ held / sizes.sum(), abs=2e-6)
        assert np.abs(state.server.state["h"] - held.mean(0)).max() > 1e-3


class Unsaid(Stage):
    def client(self, update, ctx):
        return update


class Halved(Stage):
    """On the server alone."""

    def server(self, aggregate, ctx):
        return replace(aggregate, total=aggregate.total / 2)


class Median(Aggregation):
    pass


MEAN_LOST = [
    *({"stages": [stage]} for stage in (
        Clip(1.0), Clip(1e9), SignSGD(feedback=False), TopK(), TopK(feedback=False), RandomK(), QSGD(16),
        PowerSGD(mlp(64, 8, 10)), SecureSum(1.0), SecureSum(1.0, masked=False), Unsaid())),
    {"stages": [Rotate(), QSGD(8)]}, {"stages": [Halved()]}, {"aggregation": Median()}, {"weights": Unsaid()},
    {"data": UNEQUAL, "weights": ByExamples()}, {"data": UNEQUAL, "weights": ByExamples(60)},
    {"data": UNEQUAL, "weights": ByExamples(), "schedule": Synchronous(1.0, deadline=9.0)},
    {"data": UNEQUAL, "weights": ByExamples(), "schedule": EVERY, "fleet": Equal(drop=0.1)},
    {"data": UNEQUAL, "weights": ByExamples(), "schedule": EVERY, "selection": PoissonSelection()},
    {"data": UNEQUAL, "weights": ByExamples(), "schedule": Synchronous(0.5, over_selection=1.0)},
]  # fmt: skip


@pytest.mark.parametrize("parts", MEAN_LOST, ids=named)
def test_feddyn_is_refused_where_its_server_could_not_know_the_mean(parts):
    parts = {"weights": Uniform(), "schedule": Synchronous(0.5), "data": DATA} | parts
    with pytest.raises(CompositionError, match=r"FedDyn.*use "):
        digits_run(0, FedDyn(0.2), **parts)
    digits_run(0, FedDyn(0.0), **parts)                                    # FedAvg: there is no h
    digits_run(0, FedProx(0.2), **parts)


def test_equal_sizes_count_alike():
    smallest = min(len(part) for part in UNEQUAL.train)
    digits_run(0, FedDyn(0.2), data=UNEQUAL, schedule=Synchronous(0.5), weights=ByExamples(smallest))
    digits_run(0, FedDyn(0.2), data=UNEQUAL, schedule=Synchronous(0.5), weights=Stage())
    Coordinator(federation((8, 0, 8)), logistic(5, 3), LocalSGD(correction=FedDyn(0.2)), Synchronous(0.5))
    digits_run(0, FedDyn(0.0), optimizer=FedAdam())                        # FedAvg, whatever the server makes of it


def test_scaffold_rests_at_the_plain_mean_whatever_the_weights():
    """As its docstring says: c counts clients, so data-size weights of the model average do not move the fixed point."""
    data = digits().partition(QuantitySkew(1.0), clients=3, test_fraction=0.0)
    ends = []
    for weights in (Uniform(), ByExamples()):
        training = LocalSGD(lr=1.0, epochs=5, batch_size=None, correction=Scaffold(), weight_decay=0.1)
        ends.append(Coordinator(data, logistic(64, 10), training, EVERY, weights=weights).train(40).state.server.params)
    assert ends[0] == pytest.approx(ends[1], abs=1e-3)


@pytest.mark.parametrize("correction", [Scaffold(1), Scaffold(2), FedDyn(0.2)], ids=repr)
def test_a_resumed_run_is_the_same_run_to_the_bit(correction, tmp_path):
    training = LocalSGD(epochs=Stragglers(0.5, 3), correction=correction)
    fed = Coordinator(DATA, mlp(64, 8, 10), training, Synchronous(0.4), weights=Uniform())
    whole = fed.train(6).state
    save(tmp_path / "half", fed.train(3).state, fed)
    resumed = fed.train(3, load(tmp_path / "half", fed)).state
    assert np.array_equal(resumed.server.params, whole.server.params)
    assert all(np.array_equal(resumed.server.extras[name], whole.server.extras[name]) for name in whole.server.extras)
    assert resumed.memory.keys() == whole.memory.keys()


def test_scaffold_doubles_the_messages_both_ways_and_fedprox_none():
    plain, scaffold, prox = (digits_run(2, correction, weights=Uniform()) for correction in (None, Scaffold(), FedProx(1.0)))
    assert plain.server.extras == prox.server.extras == {}
    records = [Coordinator(DATA, mlp(64, 8, 10), LocalSGD(correction=c), EVERY).train(2).records[-1] for c in (None, Scaffold())]
    for direction in ("bytes_up", "bytes_down"):
        before, after = (sum(getattr(record, direction).values()) for record in records)
        assert 1.9 < after / before < 2.1
    assert scaffold.server.extras["control"].shape == scaffold.server.params.shape


# --- partial work ----------------------------------------------------------------------------------------------------


def test_stragglers_do_some_epochs_and_the_others_all():
    epochs = [Stragglers(0.9, 20)(k, stream(0, "epochs", k)) for k in range(4000)]
    late = [e for e in epochs if e < 20]
    assert len(late) / 4000 == pytest.approx(0.9, abs=0.02)
    assert set(late) == set(range(1, 20))
    assert np.mean(late) == pytest.approx(10, abs=0.4)
    assert {Stragglers(0.0, 20)(k, stream(0, k)) for k in range(50)} == {20}
    assert max(Stragglers(1.0, 20)(k, stream(0, k)) for k in range(200)) == 19


def test_stragglers_are_others_in_every_round_and_the_same_whatever_the_method():
    def steps(correction):
        fed = Coordinator(DATA, logistic(64, 10), LocalSGD(epochs=Stragglers(0.5, 5), correction=correction), EVERY)
        return [tuple(state.reports[client]["steps"] for client in DATA.ids) for state, _ in fed.run(3)]

    assert steps(None) == steps(FedProx(1.0))
    assert len(set(steps(None))) == 3


# --- refusals --------------------------------------------------------------------------------------------------------


class Noisy(Stage):
    noisy = True


class Masked(Stage):
    masks = True


@pytest.mark.parametrize(("experiment", "words"), [
    ({"training": LocalSGD(correction=Scaffold()), "schedule": Buffered(4, 2)}, "same model"),
    ({"training": LocalSGD(correction=FedDyn()), "schedule": Buffered(4, 1)}, "same model"),
    ({"training": LocalSGD(correction=Scaffold()), "stages": [Noisy()]}, "in the clear"),
    ({"training": LocalSGD(correction=Scaffold()), "stages": [Masked()]}, "in the clear"),
    ({"stages": [FedNova(), Masked()]}, "in the clear"),
    ({"training": LocalSGD(correction=Scaffold(2), momentum=0.9)}, "momentum=0"),
    ({"training": LocalSGD(correction=FedDyn(0.1)), "optimizer": FedAdam()}, "server step"),
    ({"training": LocalSGD(correction=FedProx(20.0), lr=0.1)}, "overshoots"),
    ({"training": LocalSGD(momentum=0.9), "stages": [FedNova()]}, "plain SGD"),
    ({"training": LocalSGD(correction=FedProx(0.1)), "stages": [FedNova()]}, "plain SGD"),
], ids=named)  # fmt: skip
def test_unsound_stacks_are_refused_when_they_are_built(experiment, words):
    with pytest.raises(CompositionError, match=words):
        Coordinator(DATA, logistic(64, 10), **experiment)


def test_sound_neighbours_of_the_refused_stacks_are_accepted():
    for experiment in (
        {"training": LocalSGD(correction=FedProx(0.1)), "schedule": Buffered(4, 2)},
        {"training": LocalSGD(correction=FedProx(0.1)), "stages": [Noisy()]},
        {"training": LocalSGD(correction=Scaffold(1), momentum=0.9)},
        {"training": LocalSGD(correction=FedProx(19.0), lr=0.1)},
    ):
        Coordinator(DATA, logistic(64, 10), **experiment)


@pytest.mark.parametrize(("build", "words"), [
    (lambda: FedProx(-0.1), "mu"), (lambda: FedProx(float("nan")), "mu"), (lambda: FedDyn(-1.0), "alpha"),
    (lambda: FedDyn(float("inf")), "alpha"), (lambda: Scaffold(3), "option"), (lambda: Stragglers(1.5, 20), "share"),
    (lambda: Stragglers(float("nan"), 20), "share"), (lambda: Stragglers(0.5, 1), "epochs"),
    (lambda: two_bowls(-1.0), "distance"), (lambda: two_bowls(1.0, 0.5), "stretch"),
    (lambda: Bowls(np.zeros((2, 2)), np.zeros((2, 2))), "curvatures"),
    (lambda: Bowls(np.zeros((1, 2)), -np.eye(2)[None]), "minimum"),
])  # fmt: skip
def test_bad_values_are_refused_by_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_the_experiment_says_what_it_is():
    fed = Coordinator(DATA, logistic(64, 10), LocalSGD(epochs=Stragglers(0.9, 20), correction=FedProx(1.0)), EVERY)
    assert "FedProx(mu=1.0)" in repr(fed)
    assert "Stragglers(share=0.9, epochs=20)" in repr(fed)
    assert replace(FedProx(1.0), mu=2.0) == FedProx(2.0)


@dataclass(frozen=True)
class Flaky(Fleet):
    def compute(self, client, examples, luck):
        return 1.0

    def drops(self, client, luck):
        return bool(luck().random() < 0.4)


def test_feddyn_does_not_take_an_unknown_fleet_or_selector_at_its_word():
    """With clients that count differently, somebody missing would make h the mean of nothing that is known."""
    x, y = np.zeros((9, 2), np.float32), np.arange(9) % 2
    data = from_clients("unequal", {"a": (x[:3], y[:3]), "b": (x[3:], y[3:])}, 2, x[:1], y[:1], test_fraction=0.0)
    training = LocalSGD(correction=FedDyn(0.1))
    Coordinator(data, logistic(2, 2), training, Synchronous(1.0))
    with pytest.raises(CompositionError, match="count differently"):
        Coordinator(data, logistic(2, 2), training, Synchronous(1.0), fleet=Flaky())
