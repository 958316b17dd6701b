"""A model beside the one that travels: limits to the bit, and slow second implementations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, DIM, federation

from fl_course import (
    APFL,
    Buffered,
    Coordinator,
    Ditto,
    FedAvg,
    FedProx,
    FineTune,
    LocalSGD,
    LogNormal,
    PFedMe,
    Scaffold,
    Synchronous,
    Wrapped,
    load,
    local_only,
    mlp,
    own_models,
    save,
    stream,
)
from fl_course.core import CompositionError, Server, Task
from fl_course.engine.batches import client_keys, plan_batches, round_key, splitmix, width
from fl_course.engine.training import Trainer

NET = mlp(DIM, 4, CLASSES)
HOW = LocalSGD(lr=0.3, epochs=2, batch_size=4)
DATA = federation((8, 5, 12, 3, 9, 7))
START = NET.init(stream(0, "init"))


def experiment(personal, how=HOW, **changes):
    return Coordinator(DATA, NET, replace(how, personal=personal), **({"schedule": Synchronous(1.0)} | changes))


def gradient(theta, rows):
    """(d,) in double precision, of the mean loss of these rows."""
    leaf = torch.tensor(theta, dtype=torch.float64)[None].requires_grad_()
    x, y = torch.tensor(DATA.x[rows], dtype=torch.float64)[None], torch.tensor(DATA.y[rows])[None]
    return torch.autograd.grad(NET.losses(NET.layers(leaf), x, y).mean(), leaf)[0][0].numpy()


def batches(k, version=0, epochs=2, batch=4):
    mine = DATA.train[k]
    keys = splitmix(client_keys([DATA.ids[k]]) ^ round_key(0, version))
    plan = plan_batches([mine], keys, np.array([epochs]), width(len(mine), batch))
    return [plan.rows[t, 0, : plan.count[t, 0]] for t in range(int(plan.steps[0]))]


# --- what they share: FedAvg's path ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("personal", [FineTune(), FineTune(0), Ditto(0), Ditto(1.0), Ditto(1e6), Ditto(0.5, lr=0.1, epochs=5)])
@pytest.mark.parametrize("changes", [
    {}, {"schedule": Synchronous(0.5)}, {"optimizer": FedAvg(lr=0.5)}, {"schedule": Buffered(4, 2), "fleet": LogNormal()},
])  # fmt: skip
def test_the_path_of_the_global_model_is_fedavgs_to_the_bit(personal, changes):
    plain, twin = (experiment(p, **changes).train(4) for p in (None, personal))
    assert plain.state.server.params.tobytes() == twin.state.server.params.tobytes()
    assert [r.metrics for r in plain.records] == [r.metrics for r in twin.records]
    assert [r.nbytes for r in plain.records] == [r.nbytes for r in twin.records]


@pytest.mark.parametrize("correction", [FedProx(0.5), Scaffold(), Scaffold(option=1)])
def test_that_path_may_be_a_corrected_one(correction):
    how = replace(HOW, correction=correction)
    plain, twin = (experiment(p, how).train(3).state for p in (None, Ditto(0.5)))
    assert plain.server.params.tobytes() == twin.server.params.tobytes()
    alone = experiment(Ditto(0.5)).train(1).state.memory                        # the rope knows nothing of the correction
    assert experiment(Ditto(0.5), how).train(1).state.memory[0]["personal"].tobytes() == alone[0]["personal"].tobytes()


# --- Ditto ----------------------------------------------------------------------------------------------------------------


def test_without_a_rope_v_is_trained_alone_to_the_bit():
    it = experiment(Ditto(0))
    assert own_models(it, it.train(4)).tobytes() == local_only(it, 4).tobytes()


@pytest.mark.parametrize("lam", [1e4, 1e6, 1e12])
def test_a_strong_rope_makes_v_the_model_as_downloaded(lam):
    it, before = experiment(Ditto(lam)), None
    for state, _ in it.run(3):
        anchor = START if before is None else before
        for drawer in state.memory.values():
            assert np.abs(drawer["personal"] - anchor).max() < 10 / lam + 1e-6
        before = state.server.params
    assert np.abs(before - START).max() > 0.05                                  # which has moved meanwhile


@pytest.mark.parametrize("engine", ["auto", "rows"])
@pytest.mark.parametrize(("lam", "lr", "epochs"), [(0.7, None, None), (2.0, 0.1, 3), (50.0, None, None)])
def test_v_follows_the_papers_step_with_the_anchor_as_it_was_downloaded(lam, lr, epochs, engine):
    it = experiment(Ditto(lam, lr, epochs), replace(HOW, engine=engine))
    v, before = {c: START.astype(np.float64) for c in DATA.ids}, START
    for version, (state, _) in enumerate(it.run(3)):
        for k, client in enumerate(DATA.ids):
            for rows in batches(k, version, epochs or 2):
                v[client] = v[client] - min(lr or 0.3, 1 / lam) * (gradient(v[client], rows) + lam * (v[client] - before))
            np.testing.assert_allclose(state.memory[client]["personal"], v[client], atol=3e-6)
            v[client] = state.memory[client]["personal"].astype(np.float64)
        before = state.server.params


def test_who_was_never_asked_has_the_model_that_it_downloads():
    it = experiment(Ditto(1.0), schedule=Synchronous(0.2))
    state = it.train(1).state
    models = own_models(it, state)
    for k, client in enumerate(DATA.ids):
        expected = state.memory[client]["personal"] if client in state.memory else state.server.params
        assert np.array_equal(models[k], expected)


# --- fine-tuning ----------------------------------------------------------------------------------------------------------


def test_fine_tuning_is_local_training_from_the_global_model():
    it = experiment(FineTune(3, lr=0.1))
    state = it.train(2).state
    trainer = Trainer(replace(HOW, epochs=3, lr=0.1), NET, DATA)
    updates = trainer.train([Task(client, state.server) for client in DATA.ids])
    assert own_models(it, state).tobytes() == np.stack([state.server.params + u.delta for u in updates]).tobytes()
    assert state.memory[0].keys() <= {"books"}
    still = experiment(FineTune(0))
    assert (own_models(still, still.train(2)) == state.server.params).all()


# --- pFedMe ---------------------------------------------------------------------------------------------------------------


def test_pfedme_follows_its_algorithm():
    it = experiment(PFedMe(lam=2.0, lr=0.2, steps=3))
    state = it.train(1).state
    changes = []
    for k, client in enumerate(DATA.ids):
        w = theta = START.astype(np.float64)
        for rows in batches(k):
            for _ in range(3):
                theta = theta - 0.2 * (gradient(theta, rows) + 2.0 * (theta - w))
            w = w - 0.3 * 2.0 * (w - theta)
        np.testing.assert_allclose(state.memory[client]["personal"], theta, atol=2e-6)
        changes.append(w - START)
    expected = START + np.average(changes, axis=0, weights=DATA.sizes)
    np.testing.assert_allclose(state.server.params, expected, atol=2e-6)


def test_pfedme_without_a_rope_sends_nothing_and_with_one_it_matters():
    free = experiment(PFedMe(lam=0.0, lr=0.2))
    assert free.train(2).state.server.params.tobytes() == START.tobytes()
    tight = experiment(PFedMe(lam=6.0, lr=0.2))                                 # a model that is its own anchor would not see it
    one, two = (own_models(it, it.train(1)) for it in (free, tight))
    assert np.abs(two - START).max() < 0.5 * np.abs(one - START).max()


@pytest.mark.parametrize(("lam", "lr", "outer"), [(20.0, 0.1, 0.01), (15.0, 0.1, 0.2)])
def test_pfedme_that_cannot_converge_is_refused(lam, lr, outer):
    with pytest.raises(ValueError, match="lr·lam"):
        experiment(PFedMe(lam, lr), replace(HOW, lr=outer))


# --- APFL -----------------------------------------------------------------------------------------------------------------


def test_apfl_follows_its_algorithm():
    it = experiment(APFL(alpha=0.4))
    state = it.train(1).state
    for k, client in enumerate(DATA.ids):
        w = v = START.astype(np.float64)
        alpha = 0.4
        for rows in batches(k):
            slope = gradient(alpha * v + (1 - alpha) * w, rows)
            w, v, alpha = (w - 0.3 * gradient(w, rows), v - 0.3 * alpha * slope,
                           min(max(alpha - 0.3 * float((v - w) @ slope), 0), 1))
        np.testing.assert_allclose(state.memory[client]["personal"], v, atol=2e-6)
        assert state.memory[client]["alpha"] == pytest.approx(alpha, abs=1e-6)
        assert alpha != 0.4
    np.testing.assert_allclose(state.server.params, experiment(None).train(1).state.server.params, atol=2e-6)


def test_alpha_0_is_the_global_model_and_alpha_1_training_alone():
    none = experiment(APFL(0.0, adaptive=False))
    state = none.train(3).state
    assert (own_models(none, state) == state.server.params).all()
    assert all(drawer["personal"].tobytes() == START.tobytes() for drawer in state.memory.values())
    alone = experiment(APFL(1.0, adaptive=False))
    np.testing.assert_allclose(own_models(alone, alone.train(3)), local_only(alone, 3), atol=3e-6)


def test_the_personal_model_moves_and_alpha_stays_in_its_bounds():
    it = experiment(APFL(0.5), replace(HOW, lr=1.0))
    for state, _ in it.run(4):
        for drawer in state.memory.values():
            assert 0 <= drawer["alpha"] <= 1
            assert not np.array_equal(drawer["personal"], START)
    assert len({drawer["alpha"] for drawer in state.memory.values()}) > 1


# --- all ------------------------------------------------------------------------------------------------------------------

METHODS = [FineTune(), Ditto(0.5), PFedMe(2.0), APFL()]


@pytest.mark.parametrize("personal", METHODS)
def test_company_changes_no_bit_and_nothing_is_written_where_it_was_read(personal):
    trainer = Trainer(replace(HOW, personal=personal), NET, DATA)
    old = {"personal": START + np.float32(0.1), "alpha": 0.3}
    frozen = old["personal"].tobytes()
    tasks = [Task(client, Server(START), 0, dict(old)) for client in DATA.ids]
    together = trainer.train(tasks)
    for k in (3, 1):
        mine = Task(DATA.ids[k], Server(START), 0, dict(old))
        assert trainer.train([mine])[0].delta.tobytes() == together[k].delta.tobytes()
        assert mine.memory["personal"].tobytes() == tasks[k].memory["personal"].tobytes()
    before = [task.memory["personal"].tobytes() for task in tasks]
    trainer.own(tasks)
    assert [task.memory["personal"].tobytes() for task in tasks] == before
    assert old["personal"].tobytes() == frozen


@pytest.mark.parametrize("personal", METHODS)
@pytest.mark.parametrize("changes", [{"schedule": Synchronous(0.5)}, {"schedule": Buffered(4, 2), "fleet": LogNormal()}])
def test_a_run_that_was_saved_goes_on_bit_for_bit(tmp_path, personal, changes):
    it = experiment(personal, **changes)
    whole = it.train(6).state
    save(tmp_path / "half.fl", it.train(3), it)
    rest = it.train(3, load(tmp_path / "half.fl", it)).state
    assert whole.server.params.tobytes() == rest.server.params.tobytes()
    assert own_models(it, whole).tobytes() == own_models(it, rest).tobytes()
    with pytest.raises(Exception, match="personal"):
        load(tmp_path / "half.fl", experiment(None, **changes))


@pytest.mark.parametrize("personal", METHODS)
def test_a_module_of_torch_has_twins_too(personal):
    net = Wrapped(torch.nn.Sequential(torch.nn.Linear(DIM, 4), torch.nn.Tanh(), torch.nn.Linear(4, CLASSES)))
    it = Coordinator(DATA, net, replace(HOW, personal=personal), Synchronous(1.0))
    models = own_models(it, it.train(2))
    assert models.shape == (6, net.dim)
    assert len({row.tobytes() for row in models}) == 6


@pytest.mark.parametrize("personal", [PFedMe(2.0), APFL()])
def test_steps_of_ones_own_know_no_corrections(personal):
    for how in (replace(HOW, correction=FedProx(0.1)), replace(HOW, momentum=0.5), replace(HOW, weight_decay=0.1)):
        with pytest.raises(CompositionError, match=r"steps of its own|plain steps"):
            experiment(personal, how)


@pytest.mark.parametrize("make", [
    lambda: Ditto(-1), lambda: Ditto(float("nan")), lambda: Ditto(float("inf")), lambda: Ditto("1"), lambda: Ditto(1, lr=0),
    lambda: Ditto(1, lr=float("nan")), lambda: Ditto(1, epochs=0), lambda: Ditto(1, epochs=1.0), lambda: FineTune(-1),
    lambda: FineTune(1.0), lambda: FineTune(True), lambda: FineTune(1, lr=-1), lambda: PFedMe(-1), lambda: PFedMe(1, lr=0),
    lambda: PFedMe(1, steps=0), lambda: PFedMe(float("nan")), lambda: APFL(1.1), lambda: APFL(float("nan")), lambda: APFL(-0.1),
    lambda: APFL("0.5"), lambda: APFL(0.5, lr=0), lambda: Ditto(None), lambda: APFL(None),
])  # fmt: skip
def test_what_is_out_of_range_is_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), 0.5])
def test_numbers_of_numpy_are_numbers(number):
    for make in (lambda n: Ditto(n, lr=n), lambda n: PFedMe(n, n), lambda n: APFL(n, lr=n), lambda n: FineTune(1, n)):
        assert repr(make(number)) == repr(make(0.5))
        assert make(number) == make(0.5)
    assert repr(Ditto(np.int64(2))) in (repr(Ditto(2.0)), repr(Ditto(2)))
