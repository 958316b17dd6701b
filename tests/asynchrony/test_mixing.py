"""FedAsync mixes models: against the formula written out, in its limits, and what it is refused beside."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from small import Lie, Timed, experiment, federation, final, named

from fl_course import (
    DPSGD,
    QSGD,
    Buffered,
    ByExamples,
    CentralDP,
    Clip,
    CompositionError,
    Coordinator,
    Correction,
    Discount,
    Downlink,
    Equal,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedDyn,
    FederatedDropout,
    FedNova,
    FedProx,
    LocalDP,
    LocalSGD,
    LogNormal,
    Mixing,
    PoissonSelection,
    PowerSGD,
    Rotate,
    Scaffold,
    SecureSum,
    SignSGD,
    Stage,
    Synchronous,
    TopK,
    TreeDP,
    Uniform,
    Update,
    WeightedMean,
    fedasync,
    fedbuff,
    logistic,
    mixed,
    mlp,
    stream,
)
from fl_course.core import Context, Server, Task
from fl_course.engine.sgd import train_alone
from fl_course.privacy.accounting import RDP


def by_hand(w, answers, alpha, s):
    """The next model, with fractions of nothing left out: answers = [(start, delta, weight, τ)], all in float64 lists."""
    total = sum(weight for _, _, weight, _ in answers)
    out = []
    for i in range(len(w)):
        each = []
        for start, delta, weight, age in answers:
            rate, local = alpha * s(age), start[i] + delta[i]
            each.append(weight / total * ((1 - rate) * w[i] + rate * local))
        out.append(math.fsum(each))
    return out


def step(rule, w, answers, version=9):
    """What the loop makes of answers whose updates are weighted already."""
    w = np.asarray(w, np.float32)
    updates = [Update(i, version - age, np.asarray(delta, np.float32) * np.float32(n), float(n))
               for i, (_, delta, n, age) in enumerate(answers)]  # fmt: skip
    starts = tuple(np.asarray(start, np.float32) for start, *_ in answers)
    ctx = Context(0, Server(w, version), starts=starts)
    aggregate = rule.combine(updates, [age for *_, age in answers], ctx)
    return FedAvg().step(ctx.server, aggregate).params


# --- the formula ---------------------------------------------------------------------------------------------------


def test_mixing_takes_back_what_a_stale_model_has_not_heard():
    """Both clients start from 0; the first walks to (1, 0), the second, one step stale, to (0, 1)."""
    rule = Mixing(0.6, Discount("polynomial", 0.5))
    w = step(rule, [0, 0], [([0, 0], [1, 0], 1, 0)], 0)
    np.testing.assert_allclose(w, [0.6, 0])
    np.testing.assert_allclose(step(rule, w, [([0, 0], [0, 1], 1, 1)], 1), [0.345, 0.424], atol=6e-4)
    added = FedAvg(0.6).step(Server(w, 1), WeightedMean(rule.discount).combine([Update(1, 0, np.float32([0, 1]))], [1])).params
    np.testing.assert_allclose(added, [0.6, 0.424], atol=6e-4)             # what adding the stale change gives instead


def walks(update):
    """Client 0 finds (1, 0) right, client 1 (0, 1), whatever they started from."""
    delta = np.zeros_like(update.delta)
    delta[update.client] = 1
    return replace(update, delta=delta)


def test_the_same_in_the_loop():
    """The same two clients, through messages, jobs and the clock."""
    it = experiment(
        federation((4, 4)), fleet=Timed({0: 1.0, 1: 1.5}), stages=[Lie(0, walks), Lie(1, walks)], **fedasync(2, 0.6),
    )  # fmt: skip
    history = it.train(2, it.initial(np.zeros(18)))
    assert [(r.clients, r.staleness) for r in history.records] == [((0,), (0,)), ((1,), (1,))]
    np.testing.assert_allclose(history.state.server.params[:2], [0.345, 0.424], atol=6e-4)
    it = experiment(
        federation((4, 4)), fleet=Timed({0: 1.0, 1: 1.5}), stages=[Lie(0, walks), Lie(1, walks)], **fedbuff(2, 1, lr=0.6),
    )  # fmt: skip
    np.testing.assert_allclose(it.train(2, it.initial(np.zeros(18))).state.server.params[:2], [0.6, 0.424], atol=6e-4)


@pytest.mark.parametrize("seed", range(20))
def test_any_answers_against_the_formula_written_out(seed):
    rng = stream(seed, "answers")
    d, count = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    alpha = float(rng.uniform(0.05, 1))
    discount = [None, Discount(), Discount("hinge", 10, 4), Discount("exponential", 0.9)][seed % 4]
    w = rng.standard_normal(d).astype(np.float32)
    answers = [(rng.standard_normal(d), rng.standard_normal(d), *rng.integers(1, 9, 2).tolist()) for _ in range(count)]
    answers[0] = (w, *answers[0][1:3], 0)
    expected = by_hand(w.tolist(), answers, alpha, (lambda age: 1.0) if discount is None else discount)
    np.testing.assert_allclose(step(Mixing(alpha, discount), w, answers), expected, atol=2e-6)


def test_one_answer_is_the_mixture_of_two_models():
    rng = stream(0, "one")
    w, start, delta = (rng.standard_normal(7).astype(np.float32) for _ in range(3))
    for weight in (1, 3, 1000):                                            # how many examples it has plays no part
        got = step(Mixing(0.3), w, [(start, delta, weight, 4)])
        np.testing.assert_allclose(got, mixed(w, start + delta, 0.3), atol=1e-6)


def test_the_mean_of_mixtures_does_not_depend_on_the_order():
    rng = stream(0, "order")
    w = rng.standard_normal(4)
    answers = [(rng.standard_normal(4), rng.standard_normal(4), n, age) for n, age in ((1, 0), (5, 2), (2, 7))]
    rule = Mixing(0.5, Discount())
    np.testing.assert_allclose(step(rule, w, answers), step(rule, w, answers[::-1]), atol=1e-6)


def test_an_answer_that_weighs_nothing_moves_nothing():
    got = step(Mixing(0.5), [1, 1], [([0, 0], [4, 4], 0, 1), ([1, 1], [2, 0], 1, 0)])
    np.testing.assert_allclose(got, [2, 1])


def test_discounts_as_published_and_not_as_often_copied():
    """Hinge: 0.0909 at τ = 5, where copies give 0.05 and 0.1. Polynomial: fresh 1 and τ = 3 a half; raising the version before
    τ is counted gives a fresh answer a half and τ = 3 a third."""
    assert Discount("hinge", 10, 4)(5) == pytest.approx(1 / 11)
    assert (Discount()(0), Discount()(3)) == (1.0, 0.5)
    assert [Mixing(0.6, Discount("exponential", 0.9)).rate(age) for age in (0, 1, 3)] == pytest.approx([0.6, 0.54, 0.4374])
    history = experiment(federation((4, 4)), fleet=Equal(), **fedasync(1)).train(3)
    assert [record.staleness for record in history.records] == [(0,)] * 3                  # in the loop: a fresh answer is fresh


# --- limits --------------------------------------------------------------------------------------------------------


def test_alpha_one_alone_is_fedbuff_with_a_buffer_of_one_to_the_bit():
    """K = 1, rate 1, nobody stale: the client's model becomes the server's."""
    for fleet in (Equal(), LogNormal(jitter=0.5)):
        one, other = (experiment(fleet=fleet, **parts).train(8) for parts in (fedasync(1, 1.0), fedbuff(1, 1, lr=1.0)))
        assert one.records == other.records
        assert one.state.server.params.tobytes() == other.state.server.params.tobytes()


def test_alpha_one_and_no_discount_puts_the_stale_model_in_the_place_of_the_servers():
    """And so what others did in between is lost: mixing is no adding."""
    sent = {}
    stages = [Lie(client, lambda update: sent.setdefault((update.client, update.version), update)) for client in range(6)]
    it = experiment(fleet=LogNormal(speed_spread=1.0), stages=stages, **fedasync(3, 1.0, discount=None))
    models, oldest = [it.initial().server.params], 0
    for state, record in it.run(9):
        (client,), (age,) = record.clients, record.staleness
        start = record.version - 1 - age
        np.testing.assert_allclose(state.server.params, models[start] + sent[client, start].delta, atol=1e-6)
        models.append(state.server.params)
        oldest = max(oldest, age)
    assert oldest > 1


@pytest.mark.parametrize("weights", [Uniform(), ByExamples()])
def test_in_rounds_it_is_fedavg_with_rate_alpha_and_with_alpha_one_to_the_bit(weights):
    parts = {"data": federation((3, 8, 5, 8, 4, 6)), "weights": weights, "schedule": Synchronous(0.7)}
    assert final(experiment(aggregation=Mixing(1.0, Discount()), **parts)) == final(experiment(**parts))
    small = experiment(aggregation=Mixing(0.3), **parts).train(4).state.server.params
    np.testing.assert_allclose(small, experiment(optimizer=FedAvg(0.3), **parts).train(4).state.server.params, atol=1e-5)


@pytest.mark.parametrize("discount", [Discount("polynomial", 0.0), Discount("exponential", 1.0), Discount("hinge", 0.0)])
@pytest.mark.parametrize("parts", [fedasync, fedbuff])
def test_exponent_nought_is_no_discount(parts, discount):
    own = {"buffer": 2} if parts is fedbuff else {}
    one, other = (experiment(fleet=LogNormal(), **parts(4, **own, discount=s)).train(8) for s in (discount, None))
    assert any(age for record in one.records for age in record.staleness)
    assert one.state.server.params.tobytes() == other.state.server.params.tobytes()


@pytest.mark.parametrize("parts", [fedasync(4, max_staleness=0), fedbuff(4, 2, max_staleness=0)])
def test_max_delay_nought_lets_only_the_fresh_in(parts):
    history = experiment(fleet=LogNormal(speed_spread=1.0), **parts).train(12)
    assert {age for record in history.records for age in record.staleness} == {0}
    refused = sum(record.metrics.get("too_stale", 0) for record in history.records)
    assert refused > 0
    spans = [span for record in history.records for span in record.spans]
    assert sum(span.fate == "too stale" for span in spans) == refused
    arrived = sum(span.nbytes for span in spans if span.fate in ("used", "too stale"))
    assert arrived == sum(record.bytes_up["update"] for record in history.records)      # what is refused has been sent


def test_fedasync_as_a_plain_loop():
    """Algorithm 1 with every version kept in a list, each client trained alone from the one that it started from."""
    it = experiment(fleet=LogNormal(speed_spread=1.0), **fedasync(4, 0.5))
    models = [it.initial().server.params.astype(float)]
    for state, record in it.run(12):
        (client,), (age,) = record.clients, record.staleness
        start = len(models) - 1 - age
        begun = Server(models[start].astype(np.float32), start)
        local = models[start] + train_alone(it.model, Task(client, begun, it.seed), it.data, it.training)
        rate = 0.5 / math.sqrt(1 + age)
        models.append((1 - rate) * models[-1] + rate * local)
        np.testing.assert_allclose(state.server.params, models[-1], atol=2e-6)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0, -0.1, 1.5, math.nan, math.inf, True, "0.5", None])
def test_a_share_that_is_none_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be in"):
        Mixing(alpha)


def test_a_discount_is_a_discount():
    with pytest.raises(TypeError, match="discount must be a Discount"):
        Mixing(0.5, 0.9)


def test_by_hand_it_needs_what_it_mixes():
    with pytest.raises(ValueError, match="give ctx"):
        Mixing().combine([Update(0, 0, np.zeros(2, np.float32))], [0])
    with pytest.raises(ValueError, match="shape"):
        step(Mixing(), [0, 0], [([0], [1, 0], 1, 0)])
    with pytest.raises(ValueError, match="zip"):
        Mixing().combine([Update(0, 0, np.zeros(2, np.float32))], [0], Context(0, Server(np.zeros(2, np.float32))))
    with pytest.raises(ValueError, match="from the future"):
        step(Mixing(0.5, Discount()), [0, 0], [([0, 0], [1, 0], 1, -1)])
    with pytest.raises(ValueError, match="cannot mix models of shape"):
        mixed([0, 0], [1], 0.5)
    with pytest.raises(ValueError, match="rate must be in"):
        mixed([0], [1], 1.5)


@dataclass(frozen=True)
class Doubles(Stage):
    """A user's own: the client halves, the server doubles the sum."""

    exact = True

    def client(self, update, ctx):
        return replace(update, delta=update.delta / 2)

    def server(self, aggregate, ctx):
        return replace(aggregate, total=aggregate.total * 2)


class Remembers(Correction):
    def absorb(self, server, aggregate, arrived, clients):
        return server


MODEL, NET = logistic(5, 3), mlp(5, 6, 3)
PRIVATE = {"accountant": RDP(), "noise_seed": 1}
UNSOUND = [
    {"optimizer": FedAvg(0.5)}, {"optimizer": FedAvgM()}, {"optimizer": FedAdam()},
    {"stages": [SecureSum(1.0)]}, {"stages": [SecureSum(1.0, masked=False)]}, {"stages": [CentralDP(1.0, 1.0, **PRIVATE)]},
    {"stages": [TreeDP(1.0, 1.0, participations=9, **PRIVATE)]}, {"stages": [TopK(0.5)]}, {"stages": [QSGD(4)]},
    {"stages": [SignSGD()]}, {"stages": [Rotate()]}, {"stages": [PowerSGD(MODEL, 1)]},
    {"stages": [Downlink()]}, {"stages": [FedNova()]}, {"stages": [Doubles()]}, {"selection": PoissonSelection()},
    {"training": LocalSGD(correction=Scaffold())}, {"training": LocalSGD(correction=FedDyn(0.1))},
    {"training": LocalSGD(correction=Remembers())},
]  # fmt: skip


@pytest.mark.parametrize("unsound", UNSOUND, ids=named)
def test_unsound_beside_it(unsound):
    with pytest.raises(CompositionError, match=r"\w+ \w+ \w+.*; \w+|, or \w+"):
        experiment(**(fedasync(3) | unsound))


def test_sub_models_are_no_whole_models():
    with pytest.raises(CompositionError, match="FederatedDropout has the server decode"):
        Coordinator(federation(), NET, stages=[FederatedDropout(NET)], **fedasync(3))


class Tells(Stage):
    """Says that it adds noise, and does nothing."""

    noisy = True


class Sends(Correction):
    def sends(self, server):
        return {"more": np.zeros(2, np.float32)}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"stages": [Tells()]}, "adds noise that is scaled"), ({"stages": [Downlink()]}, "on its way down"),
        ({"stages": [Rotate()]}, "decode or change the .sum"), ({"optimizer": FedAvg(2.0)}, "itself the server's step"),
        ({"training": LocalSGD(correction=Sends())}, "nothing beside them"),
    ],
    ids=["noise", "down", "server half", "optimiser", "beside"],
)
def test_the_sentence_says_why(parts, words):
    with pytest.raises(CompositionError, match=words):
        experiment(schedule=Synchronous(0.5), aggregation=Mixing(), **parts)


@pytest.mark.parametrize("unsound", [part for part in UNSOUND if "selection" not in part], ids=named)
def test_and_in_rounds(unsound):
    with pytest.raises(CompositionError, match=r"Mixing|no sum|multiplies"):
        experiment(schedule=Synchronous(0.5), weights=Uniform(), aggregation=Mixing(), **unsound)


SOUND = [
    {"stages": [Clip(0.1)]}, {"stages": [LocalDP(1.0, 1.0, **PRIVATE)]}, {"training": LocalSGD(correction=FedProx(0.1))},
    {"training": LocalSGD(private=DPSGD(1.0, 1.0, **PRIVATE))}, {"weights": ByExamples()}, {"weights": Stage()},
    {"schedule": Buffered(4, 3)},
]  # fmt: skip


@pytest.mark.parametrize("sound", SOUND, ids=named)
def test_sound_beside_it(sound):
    history = experiment(fleet=LogNormal(), strict=True, **(fedasync(3) | sound)).train(6)
    assert np.isfinite(history.state.server.params).all()
    assert history.state.server.version == 6
