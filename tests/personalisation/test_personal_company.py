"""Every personal method beside every other mechanism: it is refused when it is built, with a sentence, or it runs and keeps
what it promises: what travels is finite and of the right length, nothing personal is in it, a saved run goes on bit for bit."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from small import Lie, federation

from fl_course import (
    APFL,
    DPSGD,
    IFCA,
    IID,
    QSGD,
    BinaryCrossEntropy,
    Buffered,
    CentralDP,
    Clip,
    Clusters,
    ConvNet,
    CoordinateMedian,
    Coordinator,
    Devices,
    DistributedNoise,
    Ditto,
    DivFL,
    Downlink,
    Evaluation,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedDyn,
    FederatedDropout,
    FedNova,
    FedPer,
    FedProx,
    FedRep,
    FineTune,
    Krum,
    LabelFlip,
    LGFedAvg,
    LocalDP,
    LocalSGD,
    LogNormal,
    LoRA,
    Oort,
    PerFedAvg,
    PFedMe,
    PoissonSelection,
    PowerOfChoice,
    PowerSGD,
    RandomK,
    Rotate,
    Scaffold,
    Scaling,
    SecureSum,
    SemiSynchronous,
    SignSGD,
    Split,
    SquaredError,
    Stage,
    Stragglers,
    Synchronous,
    Threshold,
    TopK,
    TreeDP,
    Uniform,
    compare,
    digits,
    from_clients,
    load,
    mlp,
    own_models,
    save,
    stream,
)
from fl_course.core import CompositionError
from fl_course.federation import work
from fl_course.federation.interfaces import PersonalTraining, Selector
from fl_course.privacy.accounting import RDP

NET, DATA = mlp(5, 6, 3), federation((4, 6, 5, 8, 4, 7))
HOW = LocalSGD(lr=0.3, epochs=2, batch_size=4)
ADAPTERS = ("dense0.lora_a", "dense0.lora_b")
METHODS: tuple[tuple[PersonalTraining, Any], ...] = (
    (FedPer(), Split(NET, "dense1")), (FedRep(2), Split(NET, "dense1")), (LGFedAvg(), Split(NET, "dense0")),
    (FedPer(), Split(NET)),
    (FedPer(), Split(LoRA(NET, "dense0", 1), ADAPTERS)), (FedPer(), Split(NET, ("dense0", "dense1"))), (FineTune(), NET),
    (Ditto(0.5), NET), (PFedMe(2.0), NET), (APFL(), NET), (PerFedAvg(0.1, "exact"), NET), (PerFedAvg(0.1), NET),
    (IFCA(), Clusters(NET, 2)),
)  # fmt: skip
PRIVATE = {"accountant": RDP(), "noise_seed": 3}


def stages_for(model):
    return (
        Clip(0.1), CentralDP(0.05, 0.5, **PRIVATE), TreeDP(0.05, 0.5, participations=9, **PRIVATE), LocalDP(0.05, 0.5, **PRIVATE),
        LocalDP(0.05, 0.5, "laplace", **PRIVATE), SecureSum(0.5, max_weight=8), SecureSum(0.5, masked=False, max_weight=8),
        SecureSum(0.5, masked=False, noise=DistributedNoise(0.1, 0.5, noise_seed=1)), TopK(0.2), TopK(0.2, feedback=False),
        RandomK(0.3), Threshold(0.1), QSGD(4), SignSGD(), Rotate(), PowerSGD(model, 1), PowerSGD(NET, 1), FederatedDropout(NET),
        Downlink(), FedNova(),
    )  # fmt: skip


SURROUNDINGS = (
    {}, {"weights": Uniform()}, {"weights": Uniform(), "selection": PoissonSelection()}, {"schedule": Buffered(4, 2)},
    {"optimizer": FedAdam(0.01)}, {"optimizer": FedAvgM(), "schedule": Synchronous(0.8, deadline=0.5)},
)  # fmt: skip


def build(personal, model, how=HOW, **parts):
    usual = {"schedule": Synchronous(0.8), "fleet": LogNormal(jitter=0.5), "evaluation": Evaluation(every=2), "strict": True}
    return Coordinator(DATA, model, replace(how, personal=personal), **(usual | parts))


def hold(it, monkeypatch, tmp_path):
    """Three rounds; every promise is read off the bytes, the states and the drawers."""
    sent = []
    real = work.encode_update
    monkeypatch.setattr(work, "encode_update", lambda update, rooms: sent.append(real(update)) or sent[-1])
    states, events = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for state, record in it.run(3):
            states.append(state)
            events += record.events
    monkeypatch.setattr(work, "encode_update", real)
    assert not [event for event in events if "refused" in event or "failed" in event], events
    server = states[-1].server
    assert server.params.shape == (it.model.dim,)
    assert np.isfinite(server.params).all()
    models = own_models(it, states[-1])
    assert models.shape == (6, it.model.whole.dim)
    assert np.isfinite(models).all()
    for state in states:
        for drawer in state.memory.values():
            for number in drawer.get("personal", np.zeros(0, np.float32))[:40:3]:
                if number and isinstance(it.model, Split):
                    assert not any(number.tobytes() in message for message in sent)
    save(tmp_path / "run.fl", states[0], it)
    again = it.train(2, load(tmp_path / "run.fl", it)).state
    if not any(getattr(stage, "noise_seed", 1) is None or (stage.masks and stage.masked) for stage in it.stages):
        assert again.server.params.tobytes() == server.params.tobytes()
        assert own_models(it, again).tobytes() == models.tobytes()


@pytest.mark.parametrize("i", range(len(METHODS)))
def test_every_stage_in_every_surrounding_is_refused_or_keeps_its_promises(i, monkeypatch, tmp_path):
    personal, model = METHODS[i]
    accepted, refused = 0, []
    for number, stage in enumerate((None, *stages_for(model))):
        usual = [] if isinstance(personal, PFedMe | PerFedAvg) else [SURROUNDINGS[1 if number % 2 else 0]]     # they take long
        for around in [SURROUNDINGS[(number + i) % 6], *usual]:
            try:
                it = build(personal, model, stages=[] if stage is None else [stage], **around)
            except (ValueError, TypeError) as why:
                refused.append(str(why))
                continue
            try:
                hold(it, monkeypatch, tmp_path)
            except Exception as why:
                raise AssertionError(f"{personal} on {model} was accepted beside {stage}, {around}: {why!r}") from why
            accepted += 1
    assert accepted >= (2 if model.dim == 0 else 8 if usual else 5)
    assert all(len(sentence) > 40 for sentence in refused)


@pytest.mark.parametrize(("personal", "model"), METHODS)
def test_differential_privacy_secure_sums_compression_and_buffers(personal, model):
    """The pairs that are named: which of them go."""
    goes = {}
    for name, parts in {
        "CentralDP": {"stages": [CentralDP(0.05, 0.5, **PRIVATE)], "weights": Uniform()},
        "LocalDP": {"stages": [LocalDP(0.05, 0.5, **PRIVATE)], "weights": Uniform()},
        "SecureSum": {"stages": [SecureSum(0.5, max_weight=8)]},
        "TopK": {"stages": [TopK(0.2)]}, "QSGD": {"stages": [QSGD(8)]}, "Buffered": {"schedule": Buffered(4, 2)},
    }.items():  # fmt: skip
        try:
            build(personal, model, **parts)
            goes[name] = True
        except CompositionError:
            goes[name] = False
    nothing = model.dim == 0
    ifca = isinstance(personal, IFCA)
    assert goes == {
        "CentralDP": not nothing and not ifca, "LocalDP": not nothing and not ifca, "SecureSum": not nothing and not ifca,
        "TopK": not nothing, "QSGD": not nothing, "Buffered": True,
    }  # fmt: skip


@pytest.mark.parametrize(("personal", "model"), METHODS)
@pytest.mark.parametrize("correction", [FedProx(0.1), Scaffold(), FedDyn(0.5)])
def test_corrections_are_refused_or_move_the_global_path_alone(personal, model, correction):
    how = replace(HOW, correction=correction)
    full = {"schedule": Synchronous(1.0), "weights": Uniform(), "fleet": LogNormal()}
    try:
        it = build(personal, model, how, **full)
    except CompositionError as why:
        sentence = str(why)
    else:
        sentence = ""
    assert bool(sentence) != isinstance(personal, FineTune | Ditto)
    if sentence:
        assert "correction" in sentence or "leave it out" in sentence
        return
    plain = build(None, NET, how, **full)
    assert it.train(3).state.server.params.tobytes() == plain.train(3).state.server.params.tobytes()


@pytest.mark.parametrize(("personal", "model"), METHODS)
def test_devices_that_do_part_of_their_epochs(personal, model, monkeypatch, tmp_path):
    hold(build(personal, model, replace(HOW, epochs=Stragglers(0.5, 3))), monkeypatch, tmp_path)


@pytest.mark.parametrize(("personal", "model"), METHODS)
@pytest.mark.parametrize("parts", [
    {"aggregation": Krum(1)}, {"aggregation": CoordinateMedian(1)}, {"attack": LabelFlip((0, 1))}, {"attack": Scaling((0,), 9.0)},
    {"selection": DivFL()}, {"selection": PowerOfChoice(3)}, {"selection": Oort()}, {"fleet": Devices()},
    {"schedule": SemiSynchronous()},
])  # fmt: skip
def test_robust_rules_attacks_selectors_and_devices(personal, model, parts, monkeypatch, tmp_path):
    try:
        it = build(personal, model, **({"schedule": Synchronous(1.0), "weights": Uniform()} | parts))
    except (CompositionError, ValueError) as why:
        sentence = str(why)
    else:
        hold(it, monkeypatch, tmp_path)
        return
    assert len(sentence) > 40
    assert not model.speaks                                             # a whole model goes with all of them


def test_two_things_cannot_take_the_place_of_local_training():
    with pytest.raises(ValueError, match="takes the place"):
        replace(HOW, private=DPSGD(0.5, 0.5, accountant=RDP()), personal=Ditto())
    for wrong in (FedPer, "FedPer", FedProx(0.1), DPSGD(0.5, 0.5, accountant=RDP())):
        with pytest.raises(TypeError, match="personal must be"):
            replace(HOW, personal=wrong)


def test_a_whole_network_is_asked_for_where_one_is_kept():
    for personal in (FineTune(), Ditto(), PFedMe(1.0), APFL(), PerFedAvg()):
        for model in (Split(NET, "dense1"), Split(NET), Clusters(NET, 2), Clusters(NET, 1)):
            with pytest.raises(CompositionError, match="whole network"):
                build(personal, model)
    for model in (Split(NET, "dense1"), Clusters(NET, 2), Split(NET), Clusters(NET, 1)):
        with pytest.raises(CompositionError, match=r"personal=FedRep"):
            build(None, model)


@dataclass(frozen=True)
class Asking(Selector):
    def asks(self, idle, k, rng, reports):
        return idle

    def answer(self, look):
        outputs = look.model.predict(look.server.params, look.x)
        return {"loss": float(look.model.loss.judge(outputs.astype(float), look.y)[1].mean())}

    def select(self, idle, k, rng, reports):
        return sorted(idle, key=lambda c: -reports[c]["probe_loss"])[:k]


def test_selectors_that_ask_how_good_the_model_is_need_a_whole_one():
    build(Ditto(0.5), NET, selection=Asking()).train(2)
    build(FedPer(), Split(NET), selection=Asking()).train(2)
    for personal, model in ((FedPer(), Split(NET, "dense1")), (IFCA(), Clusters(NET, 2))):
        with pytest.raises(CompositionError, match="only a part"):
            build(personal, model, selection=Asking())
        with pytest.raises(CompositionError, match="own_measure"):
            build(personal, model, evaluation=Evaluation(federated=True))


@dataclass(frozen=True)
class Mean(PersonalTraining):
    """A user's own: keeps the mean of all models that it has downloaded. Says nothing about itself."""

    def train(self, tasks, trainer):
        for task in tasks:
            seen = task.memory.get("seen", 0)
            task.memory["personal"] = (task.memory.get("personal", 0) * seen + task.server.params) / np.float32(seen + 1)
            task.memory["seen"] = seen + 1
        return trainer.steps(tasks)

    def own(self, tasks, trainer):
        return np.stack([task.memory.get("personal", task.server.params) for task in tasks])


def test_a_users_own_method_fits_the_socket(monkeypatch, tmp_path):
    it = build(Mean(), NET, schedule=Synchronous(1.0), fleet=LogNormal())
    hold(it, monkeypatch, tmp_path)
    downloaded = [it.initial().server.params] + [state.server.params for state, _ in it.run(2)]
    np.testing.assert_allclose(own_models(it, it.train(3)), np.stack([np.mean(downloaded, axis=0)] * 6), atol=1e-6)
    with pytest.raises(CompositionError, match="moves every"):
        build(Mean(), NET, stages=[FederatedDropout(NET)])


def test_who_sends_the_whole_network_is_refused():
    split = Split(NET, "dense1")
    for payload in (np.zeros(NET.dim, np.float32), np.zeros(split.dim - 1, np.float32), np.zeros(0, np.float32)):
        it = build(FedPer(), split, stages=[Lie(0, lambda update, p=payload: replace(update, delta=p))],
                   schedule=Synchronous(1.0), strict=False)  # fmt: skip
        record = it.train(1).records[0]
        assert 0 not in record.clients
        assert len(record.clients) == 5
        assert any("was refused" in event for event in record.events)


def test_the_names_of_clients_and_their_order_do_not_matter():
    for personal, model in METHODS:
        runs = []
        for order in (range(6), (3, 1, 5, 0, 4, 2)):
            data = federation((4, 6, 5, 8, 4, 7), ids=["a", "b", 7, "d", 9, "f"], order=list(order))
            it = Coordinator(data, model, replace(HOW, personal=personal), Synchronous(1.0))
            state = it.train(2).state
            places = [data.position(c) for c in ("a", "b", 7, "d", 9, "f")]
            runs.append((state.server.params.tobytes(), own_models(it, state)[places].tobytes()))
        assert runs[0] == runs[1], personal


def test_one_client_alone_and_a_client_with_one_example():
    data = federation((1,), tests=5)
    for personal, model in METHODS:
        it = Coordinator(data, model, replace(HOW, personal=personal), Synchronous(1.0))
        assert np.isfinite(own_models(it, it.train(2))).all()


def test_fine_tuning_does_not_reach_the_wire_under_privacy():
    """The same noise, the same run: what is tuned at home is nowhere in what was released."""
    runs = [build(p, NET, stages=[CentralDP(0.05, 0.5, **PRIVATE)], weights=Uniform()).train(3)
            for p in (None, Ditto(0.1), FineTune(9))]
    assert len({run.state.server.params.tobytes() for run in runs}) == 1
    assert len({str([(r.bytes_up, r.bytes_down, r.events) for r in run.records]) for run in runs}) == 1


def test_a_stage_of_a_users_own_stands_behind_what_ifca_brings():
    @dataclass(frozen=True)
    class Twice(Stage):
        keeps_zeros = True

        def client(self, update, ctx):
            assert isinstance(update.delta, np.ndarray)
            return replace(update, delta=2 * update.delta)

        def server(self, aggregate, ctx):
            return replace(aggregate, total=aggregate.total / 2)

    one, two = (build(IFCA(), Clusters(NET, 2), stages=stages, optimizer=FedAvg()).train(3).state.server.params
                for stages in ([], [Twice()]))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_method_in_the_wrong_place_is_told_the_right_one():
    with pytest.raises(TypeError, match=r"LocalSGD\(personal="):
        Coordinator(DATA, NET, HOW, stages=[Ditto(0.5)])
    with pytest.raises(TypeError, match=r"personal="):
        replace(HOW, correction=FedPer())


def test_personal_norms_of_a_convolutional_network_are_fedbn():
    """Li et al. (2021): normalisation stays at home, all else is averaged. A Split says it."""
    data = digits().partition(IID(), 20)
    net = ConvNet(8, 10, widths=(4, 8), groups=2)
    split = Split(net, ("norm0", "norm1"))
    assert split.own.size == 2 * 4 + 2 * 8
    it = Coordinator(data, split, LocalSGD(lr=0.1, personal=FedPer()), Synchronous(0.2))
    models = own_models(it, it.train(2))
    assert len({row[split.own].tobytes() for row in models}) > 4
    assert len({row[split.shared].tobytes() for row in models}) == 1


@pytest.mark.parametrize("loss", [SquaredError(), BinaryCrossEntropy()])
def test_other_losses_are_split_as_well(loss):
    rng = stream(0, "x")
    y = (lambda: rng.standard_normal((9, 1))) if isinstance(loss, SquaredError) else (lambda: rng.integers(0, 2, 9))
    data = from_clients("x", {c: (rng.standard_normal((9, 5)), y()) for c in "abcd"}, 0 if isinstance(loss, SquaredError) else 2)
    net = mlp(5, 4, 1, loss=loss)
    for personal, model in ((FedRep(2), Split(net, "dense1")), (Ditto(0.5), net), (PerFedAvg(0.1, "exact"), net), (APFL(), net),
                            (IFCA(), Clusters(net, 2)), (PFedMe(1.0), net), (FineTune(), net)):  # fmt: skip
        it = Coordinator(data, model, replace(HOW, lr=0.1, personal=personal), Synchronous(1.0))
        told = compare(it, it.train(2), 1)
        assert np.isfinite(told.scores["own"]).all()
        assert told.measure == loss.measure
