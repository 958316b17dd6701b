"""One number for one thing: weights, sensitivity, the way of the noise, what may leave a client; all seen at construction."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import DIM, UNIFORM, Spy, Timed, experiment, federation, named

from fl_course import (
    DPSGD,
    QSGD,
    ByExamples,
    CentralDP,
    CompositionError,
    Coordinator,
    Correction,
    Evaluation,
    FederatedDropout,
    FedNova,
    LocalDP,
    LocalSGD,
    PowerSGD,
    Rotate,
    SecureSum,
    SignSGD,
    Stage,
    Synchronous,
    TopK,
    TreeDP,
    Uniform,
    logistic,
    mlp,
)
from fl_course.core import Aggregate, Context, Server, Update
from fl_course.federation.stages import Weighting, client_half
from fl_course.privacy.accounting import (
    PLD,
    RDP,
    ZCDP,
    Advanced,
    Basic,
    ChosenBy,
    Composed,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    Ledger,
    PoissonSampled,
    Repeated,
    tally,
)
from fl_course.privacy.mechanisms import norm

DENSE = mlp(DIM, 8, 3)
PRIVATE = [CentralDP(1.0, 1.0), TreeDP(1.0, 1.0), LocalDP(1.0, 1.0)]


# --- weights ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roots(Weighting):
    """A weighting of the user's own: the root of n_k. What it declares may be less than what it hands out."""

    largest: float | None = None

    def client(self, update, ctx):
        weight = math.sqrt(update.metrics["examples"])
        return replace(update, delta=update.delta * np.float32(weight), weight=weight)


@dataclass(frozen=True)
class Loud(Stage):
    """Counts itself three times and says nowhere that it weighs."""

    def client(self, update, ctx):
        return replace(update, delta=3 * update.delta, weight=3.0)


@dataclass(frozen=True)
class Squares(ByExamples):
    """n_k² under the name and the cap of data-size weights."""

    def client(self, update, ctx):
        weight = update.metrics["examples"] ** 2
        return replace(update, delta=update.delta * np.float32(weight), weight=weight)


@dataclass(frozen=True)
class Louder(Uniform):
    """Uniform by name."""

    def client(self, update, ctx):
        return replace(update, delta=5 * update.delta, weight=5.0)


WEIGHTINGS = [ByExamples(), ByExamples(cap=4), Uniform(), Roots()]


@pytest.mark.parametrize(("weighting", "private", "first"), [
    *((weighting, private, first) for weighting in WEIGHTINGS for private in (None, *PRIVATE) for first in (True, False)),
    *((Loud(), private, True) for private in PRIVATE),
], ids=named)  # fmt: skip
def test_who_counts_how_much_is_said_in_one_field(weighting, private, first):
    stages = [weighting] if private is None else [weighting, private] if first else [private, weighting]
    for weights in (UNIFORM, ByExamples(), ByExamples(cap=4)):
        with pytest.raises(CompositionError, match=r"weigh|weight|count"):
            experiment(weights=weights, stages=stages)


@pytest.mark.parametrize("weights", [ByExamples(cap=3), Roots(largest=math.sqrt(8)), Uniform(), Stage()], ids=named)
@pytest.mark.parametrize("stage", [CentralDP(0.7, 1.0, noise_seed=1), TreeDP(0.7, 1.0, 9, noise_seed=1)], ids=named)
def test_nobody_moves_the_sum_by_more_than_the_noise_is_scaled_to(weights, stage):
    """The largest contribution, of clients of any size, over the deviation of the noise that is really added, is 1/z."""
    data = federation((1, 3, 8, 8, 2, 5))
    how = LocalSGD(lr=50.0, epochs=3, batch_size=1)
    it = Coordinator(data, mlp(DIM, 2222, 3), how, Synchronous(1.0), weights=weights, stages=[stage])
    spy = Spy()
    object.__setattr__(it, "stages", (stage, spy))
    it.train(1)
    longest = max(norm(update.delta) for update in spy.sent)
    zeros = Aggregate(np.zeros(it.model.dim), 0.0)
    noise = stage.server(zeros, Context(0, Server(np.zeros(it.model.dim, np.float32)), experiment=it)).total
    assert longest / noise.std() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("stage", PRIVATE[:2], ids=named)
@pytest.mark.parametrize("weights", [
    Squares(cap=8), Roots(largest=2.0), Roots(), Roots(math.inf), Roots(math.nan), Loud(),
], ids=named)  # fmt: skip
def test_weights_beyond_what_they_declare_are_refused_under_noise(stage, weights):
    with pytest.raises(CompositionError, match="weigh"):
        experiment(weights=weights, stages=[stage])
    experiment(weights=Roots(largest=3.0), stages=[stage])


@pytest.mark.parametrize(("weights", "words"), [
    (Roots(largest=3.0), "scaled to updates that count once"), (Roots(), "no weight bound"), (Louder(), "weighs 5"),
    (ByExamples(cap=4), "how many examples"),
], ids=named)  # fmt: skip
def test_local_noise_is_for_updates_that_count_once(weights, words):
    with pytest.raises(CompositionError, match=words):
        experiment(weights=weights, stages=[LocalDP(1.0, 1.0)])


def test_a_client_that_weighs_too_much_during_the_run_cannot_answer():
    """The trial at construction knows the largest client only; the clip holds everybody to the bound."""
    it = experiment(weights=Roots(largest=3.0), stages=[CentralDP(1.0, 1.0)])
    late = Update(0, 0, np.ones(it.model.dim, np.float32), metrics={"examples": 10.0})
    with pytest.raises(CompositionError, match=r"client 0 weighs 3.16"):
        client_half(it.pipeline, late, Context(0, it.initial().server, client=0, experiment=it))


# --- the trial ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside(Stage):
    """Sends something beside the update, and declares it nowhere."""

    def client(self, update, ctx):
        return replace(update, extras={"hint": np.zeros(2, np.float32)})


class Packed(Stage):
    def client(self, update, ctx):
        return replace(update, delta={"packed": update.delta})


LEAKY = [[FedNova()], [PowerSGD(logistic(DIM, 3))], [PowerSGD(logistic(DIM, 3), feedback=False)], [TopK(0.5, feedback=False)],
         [SignSGD(feedback=False)], [QSGD(8)], [Beside()], [Packed()], [Stage(), Beside()]]  # fmt: skip


@pytest.mark.parametrize("stages", LEAKY, ids=named)
def test_what_local_noise_does_not_cover_is_refused_at_construction(stages):
    with pytest.raises(CompositionError):
        experiment(weights=UNIFORM, stages=[*stages, LocalDP(1.0, 1.0)])


@pytest.mark.parametrize("stage", PRIVATE[:2], ids=named)
@pytest.mark.parametrize("stages", [[Beside()], [Packed()], [FedNova()]], ids=named)
def test_nor_may_it_pass_beside_central_noise(stage, stages):
    with pytest.raises(CompositionError):
        experiment(weights=UNIFORM, stages=[*stages, stage])


@pytest.mark.parametrize("stage", PRIVATE, ids=named)
def test_nor_what_a_correction_of_the_users_own_sends(stage):
    class Aside(Correction):
        def finish(self, task, delta, steps, lr, gradient):
            return {"aside": delta}

        def sends(self, server):
            return {"aside": np.zeros_like(server.params)}

    with pytest.raises(CompositionError, match="aside would leave beside the update"):
        experiment(weights=UNIFORM, stages=[stage], training=LocalSGD(correction=Aside()))


def test_the_trial_leaves_no_trace():
    """Copies of the stages, a client of no experiment, no file, no session; what it cannot try it leaves to the first round."""
    spy, calls, last = Spy(), [], CentralDP(1.0, 1.0)

    @dataclass(frozen=True)
    class Needs(Stage):
        kept: list

        def client(self, update, ctx):
            self.kept.append(update)
            calls.append(ctx.client)
            return replace(update, delta=update.delta * ctx.session["something"])

    needs = Needs([])
    it = experiment(weights=UNIFORM, stages=[spy, needs, last])
    assert (spy.sent, needs.kept, calls) == ([], [], ["trial"])
    assert it.stages == (spy, needs, last)
    experiment(weights=UNIFORM, stages=[needs])                  # nothing is private: nothing is tried
    assert calls == ["trial"]


# --- the way of the noise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("private", [CentralDP, TreeDP])
@pytest.mark.parametrize("around", [
    ([], []), ([FederatedDropout(DENSE, 0.5)], []), ([Rotate()], []), ([], [QSGD(8)]), ([], [Rotate()]),
    ([], [SecureSum(clip=1.0, rounding="toward zero")]), ([Rotate()], [SecureSum(clip=1.0, rounding="toward zero")]),
], ids=named)  # fmt: skip
def test_a_release_does_not_tell_that_nobody_came(private, around):
    """With next to no updates everything is noise, and it is the same noise whether all, few or none of them answer."""
    stage = private(1e-6, 1e6, 9, noise_seed=1) if private is TreeDP else private(1e-6, 1e6, noise_seed=1)
    models = []
    for gone in ((), (0,), tuple(range(6))):
        fleet = Timed(dict.fromkeys(range(6), 1.0), gone=gone)
        stages = [*around[0], stage, *around[1]]
        it = Coordinator(federation(), DENSE, schedule=Synchronous(1.0), weights=UNIFORM, stages=stages, fleet=fleet)
        history = it.train(2)
        assert [len(record.clients) for record in history.records] == [6 - len(gone)] * 2
        models.append(history.state.server.params - it.initial().server.params)
    assert np.linalg.norm(models[0]) > 1
    for other in models[1:]:
        assert np.allclose(models[0], other, atol=1e-4)


# --- what is claimed --------------------------------------------------------------------------------------------------------


def test_no_coin_amplifies_a_cohort_that_was_chosen():
    coins, plain = PoissonSampled(0.1, Gaussian(2.0)), {Gaussian(2.0): 1}
    few = FixedSizeSampled(2, 20, Gaussian(2.0, "replace-one"))
    for event in (ChosenBy("loss", coins), PoissonSampled(0.1, ChosenBy("loss", Gaussian(2.0))),
                  ChosenBy("loss", ChosenBy("speed", coins)), PoissonSampled(0.1, FixedSizeSampled(2, 9, Gaussian(2.0)))):
        assert tally(event) == plain
    assert tally(ChosenBy("loss", few)) == {Gaussian(2.0, "replace-one"): 1}
    assert tally(ChosenBy("loss", Repeated(coins, 3))) == {Gaussian(2.0): 3}
    assert tally(ChosenBy("loss", Composed((coins, coins)))) == {Gaussian(2.0): 2}


RELEASES = st.sampled_from([Gaussian(2.0), Gaussian(0.7), Laplace(3.0)])
WRAPPED = st.recursive(
    RELEASES,
    lambda inner: st.one_of(
        st.builds(PoissonSampled, st.sampled_from([0.01, 0.5, 1.0]), inner), st.builds(ChosenBy, st.just("rule"), inner),
        st.builds(lambda event: FixedSizeSampled(2, 9, event), inner), st.builds(Repeated, inner, st.integers(1, 3)),
        st.builds(lambda one, two: Composed((one, two)), inner, inner),
    ), max_leaves=3,
)  # fmt: skip


def everybody(event):
    """The releases in an event, as if everybody took part in each."""
    if isinstance(event, Composed):
        return [release for part in event.events for release in everybody(part)]
    if isinstance(event, Repeated):
        return everybody(event.event) * event.count
    return everybody(event.event) if isinstance(event, ChosenBy | PoissonSampled | FixedSizeSampled) else [event]


@given(WRAPPED)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_rule_anywhere_costs_what_it_costs_if_everybody_takes_part(event):
    chosen = ChosenBy("rule", event)
    for rule in (chosen, PoissonSampled(0.1, chosen), ChosenBy("rule", PoissonSampled(0.1, event))):
        assert tally(rule) == tally(everybody(event))


@pytest.mark.parametrize("make", [
    lambda d: CentralDP(1.0, 1.0, delta=d), lambda d: TreeDP(1.0, 1.0, delta=d), lambda d: LocalDP(1.0, 1.0, delta=d),
    lambda d: LocalDP(1.0, 1.0, "laplace", delta=d), lambda d: DPSGD(1.0, 1.0, delta=d, accountant=PLD()),
    lambda d: Ledger(None, d), lambda d: Ledger(3.0, d, events=((Gaussian(1.0), 2),)),
])  # fmt: skip
def test_a_delta_without_an_answer_is_refused_at_construction(make):
    make(1e-12)
    for delta in (1e-13, 1e-300, 0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="delta"):
            make(delta)


def test_other_accountants_take_a_smaller_delta_and_a_wrong_one_is_named():
    for accountant in (RDP(), ZCDP(), Basic(), Advanced()):
        assert CentralDP(1.0, 1.0, delta=1e-13, accountant=accountant)
    for wrong in (PLD, None, "PLD", object()):
        with pytest.raises(ValueError, match=r"accountant must be one of .*PLD"):
            CentralDP(1.0, 1.0, accountant=wrong)


# --- numbers in clear -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [
    [LocalDP(1.0, 1.0)], [SecureSum(1.0)], [SecureSum(1.0, masked=False)], [Rotate(), SecureSum(1.0)],
], ids=named)  # fmt: skip
def test_a_federated_evaluation_beside_what_hides_clients_is_refused(stages):
    with pytest.raises(CompositionError, match=r"Evaluation\(federated=True\)"):
        experiment(weights=UNIFORM, stages=stages, evaluation=Evaluation(federated=True))
    experiment(weights=UNIFORM, stages=stages, evaluation=Evaluation(every=2))
    experiment(weights=UNIFORM, stages=[CentralDP(1.0, 1.0)], evaluation=Evaluation(federated=True))
