"""Which stacks are refused when they are built, which run, and what noise is scaled to."""

import itertools
import math
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from compression_fixtures import MODEL, ctx, fed
from hypothesis import given, settings
from hypothesis import strategies as st
from small import named

from fl_course import (
    QSGD,
    CentralDP,
    Clip,
    CompositionError,
    Downlink,
    FederatedDropout,
    FedNova,
    LocalDP,
    PowerSGD,
    RandomK,
    Rotate,
    SecureSum,
    SignSGD,
    Stage,
    Ternary,
    TopK,
    Uniform,
    Update,
    mlp,
)
from fl_course.compression.feedback import Compression
from fl_course.federation.stages import client_half
from fl_course.wire.payloads import Sparse, numbers

# --- what does not go together ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stretch(Compression):
    """A compressor that does not say by how much it lengthens."""

    lengthens = True


@dataclass(frozen=True)
class Quiet(Stage):
    """Changes nothing, and does not say so."""

    def client(self, update, ctx):
        return update


@dataclass(frozen=True)
class Turn(Stage):
    """Exact, in other coordinates."""

    exact = True

    def client(self, update, ctx):
        return replace(update, delta=-numbers(update.delta))

    def sends(self, example, ctx):
        return self.client(example, ctx)

    def server(self, aggregate, ctx):
        return replace(aggregate, total=-numbers(aggregate.total))


class Hum(Stage):
    noisy = True


class Steady(Quiet):
    exact = lossy = keeps_zeros = True


DP, SUM = CentralDP(1.0, 0.5), SecureSum(1.0)
REFUSED = [
    ([TopK(), SUM], "places"), ([QSGD(8), SUM], "shared grid"), ([PowerSGD(MODEL), SUM], "before SecureSum"),
    ([SignSGD(), SUM], "before SecureSum"), ([FederatedDropout(MODEL), SUM], "before SecureSum"),
    ([SUM, TopK()], "masked"), ([SUM, Rotate()], "after SecureSum"), ([SUM, QSGD(8)], "masked"),
    ([TopK(), DP], "residual"), ([DP, TopK()], "residual"), ([DP, SignSGD()], "residual"), ([PowerSGD(MODEL), DP], "residual"),
    ([DP, Stretch()], "longer"), ([QSGD(8), DP], "put CentralDP before"), ([Ternary(), DP], "put CentralDP before"),
    ([QSGD(8), Ternary()], "both round"), ([QSGD(8), TopK()], "put TopK before QSGD"),
    ([Ternary(), RandomK()], "put RandomK before Ternary"), ([QSGD(8), FederatedDropout(MODEL)], "put FederatedDropout before"),
    ([SignSGD(), TopK(feedback=False)], r"put TopK before SignSGD, and say SignSGD\(feedback=False\)"),
    ([TopK(), RandomK()], "has packed it"),
    ([TopK(), TopK()], "both keep a residual"), ([TopK(feedback=False), SignSGD()], "hands it a part"),
    ([TopK(), SignSGD()], "both keep a residual"), ([PowerSGD(MODEL), QSGD(8)], "has packed it"),
    ([TopK(), QSGD(1)], "no level for zero"), ([TopK(), Rotate()], "put Rotate"), ([QSGD(8), Clip(1.0)], "put Clip before"),
    ([TopK(), FedNova()], "put FedNova before"), ([PowerSGD(mlp(64, 8, 10))], "cuts the layers"),
    ([FederatedDropout(mlp(64, 8, 10))], "cuts the layers"), ([Downlink(), FederatedDropout(MODEL)], "put Downlink last"),
    ([Downlink(), Downlink(4)], "and once"), ([Rotate(), FederatedDropout(MODEL)], "does not hold"),
    ([Quiet(), FederatedDropout(MODEL)], "keeps_zeros = True"), ([TopK(), Quiet()], "lossy = True"),
    ([TopK(), Turn(), QSGD(8)], "would be missing in the residual"), ([Hum(), Stretch()], "declare longest"),
    ([TopK(), Turn(), Steady(), QSGD(8)], "would be missing in the residual"), ([FedNova(), FedNova()], "FedNova twice"),
]  # fmt: skip


def names(value):
    return " → ".join(type(stage).__name__ for stage in value) if isinstance(value, list) else ""


@pytest.mark.parametrize(("stages", "why"), REFUSED, ids=names)
def test_unsound_stacks_are_refused_when_built(stages, why):
    with pytest.raises(CompositionError, match=why):
        fed(*stages, weights=Uniform())


SOUND = [
    [Rotate(), QSGD(4)], [Rotate(), SUM], [DP, TopK(feedback=False)], [TopK(feedback=False), DP], [RandomK(), DP],
    [DP, QSGD(8, 64)], [DP, RandomK(0.5)], [DP, Rotate(), Ternary(8)], [DP, FederatedDropout(MODEL)],
    [DP, SignSGD(feedback=False)],
    [LocalDP(1.0, 1.0), QSGD(8)], [LocalDP(1.0, 1.0), TopK()], [TopK(), QSGD(8)], [TopK(), Clip(1.0), QSGD(8)],
    [FederatedDropout(MODEL), QSGD(8), Downlink()], [Clip(1.0), QSGD(8)], [TopK(), SignSGD(feedback=False)], [FedNova(), TopK()],
    [Clip(1.0), TopK()], [TopK(), Turn()], [DP, Clip(1.0)], [TopK(), Steady(), Clip(1.0)], [Rotate(), TopK(), Turn()],
    [Clip(1.0), Steady(), FederatedDropout(MODEL)], [LocalDP(1.0, 1.0), FederatedDropout(MODEL)], [Turn(), QSGD(8)],
    [FedNova(), FederatedDropout(MODEL)], [PowerSGD(mlp(64, 16, 10))],          # the same model is enough, not the same object
]  # fmt: skip


@pytest.mark.parametrize("stages", SOUND, ids=names)
def test_sound_stacks_run(stages):
    assert np.isfinite(fed(*stages, weights=Uniform()).train(2).state.server.params).all()


def test_what_is_advised_is_accepted():
    """ "Put A before B" is said only where that is fine."""
    parts = [TopK(), TopK(feedback=False), RandomK(), RandomK(feedback=True), QSGD(8), Ternary(), SignSGD(), PowerSGD(MODEL),
             SignSGD(feedback=False), FederatedDropout(MODEL), Rotate(), Clip(1.0), FedNova()]  # fmt: skip
    advised = 0
    for one, two in itertools.permutations(parts, 2):
        try:
            fed(one, two, weights=Uniform())
        except CompositionError as why:
            names = re.search(r"put (?:Rotate\(\) first|(\w+) before)", str(why))
            if names:
                quiet = replace(one, feedback=False) if "feedback=False" in str(why) else one
                fed(two, quiet, weights=Uniform())
                advised += 1
    assert advised > 25


def test_the_same_object_in_two_places_is_two_stages():
    same = Rotate()
    with pytest.raises(CompositionError, match="put Rotate"):
        fed(same, TopK(), same)
    clip = Clip(0.5)
    experiment = fed(clip, TopK(), clip, weights=Uniform())
    assert experiment.stages[0] is clip
    assert experiment.stages[2] == clip
    assert len({id(stage) for stage in experiment.pipeline}) == 4
    for last in experiment.train(2).records:
        assert last.clients


def test_the_same_object_twice_is_seen():
    same = TopK()
    with pytest.raises(CompositionError, match="both keep"):
        fed(same, same)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from(
    [QSGD(1), QSGD(2), QSGD(3, 4), QSGD(8), QSGD(8, 3), Ternary(), Ternary(5), RandomK(0.2), RandomK(0.2, feedback=True)]))
def test_nothing_is_ever_longer_than_declared(seed, d, stage):
    """The declaration is what noise is scaled to, so it must hold for every throw of the dice, spikes included."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(d) * (rng.random(d) < rng.random()) + np.eye(d)[0] * rng.random()
    x = (x / np.linalg.norm(x)).astype(np.float32)
    sent = stage.client(Update(0, 0, x), ctx(version=seed, d=d)).delta.dense()
    assert np.linalg.norm(sent.astype(float)) <= stage.longest(1.0, d) * (1 + 1e-6)


def test_noise_is_scaled_to_what_rounding_can_add():
    def deviation(*after):
        record = fed(DP, *after, weights=Uniform()).train(1).records[0]
        return record.metrics["noise_std"]

    assert deviation(QSGD(8, 64)) == pytest.approx(deviation() * (1 + 16 / 254), rel=1e-5)
    assert deviation(QSGD(8)) == pytest.approx(deviation() * (1 + 2 * math.sqrt(MODEL.dim) / 254), rel=1e-5)
    assert deviation(TopK(feedback=False)) == deviation(SignSGD(feedback=False)) == deviation()
    assert deviation(FederatedDropout(MODEL, 0.5)) == pytest.approx(2 * deviation())


def test_clipping_a_sparse_update_clips_what_is_sent():
    x = np.array([3, 0.1, -4, 0.2], np.float32)
    update = client_half([TopK(0.5, feedback=False), Clip(1.0)], Update(0, 0, x), ctx())
    assert isinstance(update.delta, Sparse)
    assert np.allclose(update.delta.dense(), [0.6, 0, -0.8, 0])
    update = client_half([TopK(0.5, feedback=False), Clip(1.0, norm=1)], Update(0, 0, x), ctx())
    assert np.allclose(update.delta.dense(), [3 / 7, 0, -4 / 7, 0])


def test_what_coarse_grids_can_add_at_most():
    """No number leaves [-max, max], so a vector of d numbers grows by sqrt(d) at most, however coarse the grid."""
    for stage in (Ternary(), QSGD(1), QSGD(2)):
        assert stage.longest(2.0, 100) == pytest.approx(20, rel=1e-5)
        assert stage.longest(2.0, 1) == pytest.approx(2, rel=1e-5)
    assert Ternary(9).longest(1.0, 100) == pytest.approx(3, rel=1e-5)
    assert QSGD(3, 16).longest(1.0, 100) == pytest.approx(1 + 8 / 6, rel=1e-5)
    assert RandomK(0.25).longest(3.0, 40) == 12
    assert RandomK(0.25, feedback=True).longest(3.0, 40) == 3


def test_what_is_left_unsaid_means():
    assert Downlink() == Downlink(8, 64)
    assert PowerSGD(MODEL) == PowerSGD(MODEL, 2, True)
    assert (TopK(), RandomK(), QSGD()) == (TopK(0.01, True), RandomK(0.01, False), QSGD(8, None))


@pytest.mark.parametrize("stage", [RandomK(0.1), QSGD(4), Ternary(), FederatedDropout(MODEL)], ids=named)
def test_luck_is_drawn_for_each_client_and_version_and_seed(stage):
    x = np.random.default_rng(0).standard_normal(MODEL.dim).astype(np.float32)

    def sent(**where):
        return stage.client(Update(0, 0, x), ctx(d=x.size, **where)).delta.dense().tobytes()

    assert sent() == sent()
    assert len({sent(), sent(client=1), sent(version=1), sent(seed=1), sent(client=1, version=1)}) == 5
