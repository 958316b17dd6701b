"""The privacy sandwich of lesson 3: one epsilon, seen from above, from below, and by an attacker.

    above      what accountants prove at most, round by round
    below      what an audit of the same mechanism proves at least
    use        accuracy of a real federation trained with that noise, beside one without
    picture    what can be read off one client's noisy update

`read_off`, `one_image_update` and `audit_rounds` are plain functions, used by the lesson too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ...core import stream
from ...data.federated import FederatedData
from ...data.partition import IID
from ...data.sources import digits
from ...engine.local import LocalSGD
from ...engine.models import logistic
from ...federation.coordinator import Coordinator
from ...federation.interfaces import Stage
from ...federation.sampling import PoissonSelection
from ...federation.schedule import Synchronous
from ...federation.stages import Uniform
from ...privacy.accounting import RDP, Basic, Gaussian, PoissonSampled, Repeated, noise_for_budget
from ...privacy.auditing import epsilon_lower_bound
from ...privacy.central import CentralDP, noised
from ...privacy.mechanisms import clip as clip_to
from ...privacy.noise import NoiseSource
from .charts import Chart, ImageChart
from .controls import LogSlider, Slider, Steps
from .explorer import Explorer
from .points import Point
from .recipe import By, Recipe

CLIENTS, ROUNDS, DELTA = 700, 15, 1e-4
EPSILONS = tuple(2.0**k for k in range(-2, 12))              # to 2,048, where the image has come back
TRIALS = 3000                                                # of the audit, in each world


@lru_cache(maxsize=1)
def tiny_clients() -> FederatedData:
    """The digits among 700 clients, two or three images each: a crowd large enough to hide in."""
    return digits().partition(IID(), CLIENTS, seed=0, test_fraction=0.0)


def federation(cohort: int, stages: list[Stage]) -> Coordinator:
    """Softmax regression, one full-batch gradient step a client, `cohort` of 700 clients a round by their own coins."""
    return Coordinator(tiny_clients(), logistic(64, 10), LocalSGD(lr=1.0, batch_size=None), Synchronous(cohort / CLIENTS),
                       PoissonSelection(), Uniform(), stages)


@lru_cache(maxsize=16)
def without_privacy(cohort: int) -> tuple[float, ...]:
    """Accuracy by round of the same federation, without clip and noise."""
    return tuple(federation(cohort, []).train(ROUNDS).series("accuracy"))


# --- below ------------------------------------------------------------------------------------------------------------


def audit_rounds(noise_multiplier: float, rate: float, rounds: int, trials: int, seed: int = 0) -> np.ndarray:
    """(rounds,): for 1 … `rounds` rounds, a lower bound on epsilon at DELTA from watching a canary (95 % each).

    The canary client shouts; clipped, it moves the sum by one clip bound whenever its coin of probability `rate` falls.
    The attacker adds up what is released in its direction. The noise is made by the code that the stage runs.
    """
    rng = stream(seed, "sandwich audit")
    shape = (2, trials, rounds, 4)                           # two worlds; four coordinates are enough to see a direction
    canary = clip_to(np.array([1000.0, 0, 0, 0]), 1.0)
    sums = np.zeros(shape)
    sums[1] += (rng.random(shape[1:3]) < rate)[..., None] * canary
    scores = (noised(sums, noise_multiplier, 1.0, rng) @ canary).cumsum(axis=2)
    return np.array([epsilon_lower_bound(scores[1, :, t], scores[0, :, t], DELTA) for t in range(rounds)])


# --- the picture ------------------------------------------------------------------------------------------------------


def one_image_update(x: np.ndarray, label: int, classes: int = 10, lr: float = 1.0) -> np.ndarray:
    """(d,): the update of a client that holds one image x (features,), from a softmax regression of zeros."""
    error = np.full(classes, 1 / classes)
    error[label] -= 1
    return -lr * np.concatenate([np.outer(error, x).ravel(), error]).astype(np.float32)


def read_off(update: np.ndarray, features: int = 64) -> np.ndarray:
    """(features,) in [0, 1]: the image, if the update came of one image: row of W / entry of b, where b moved most."""
    classes = len(update) // (features + 1)
    weights, bias = update[: classes * features].reshape(classes, features), update[classes * features :]
    row = int(np.abs(bias).argmax())
    return np.clip(weights[row] / bias[row], 0, 1) if bias[row] else np.zeros(features)


def psnr(image: np.ndarray, guess: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, for values in [0, 1]; capped at 99."""
    error = float(np.mean((image - guess) ** 2))
    return 99.0 if error < 1e-10 else min(99.0, -10 * np.log10(error))


def attacked(x: np.ndarray, label: int, bound: float, noise_multiplier: float, rng: NoiseSource) -> np.ndarray:
    """(features,): what an attacker makes of the noisy sum who knows all other clients and takes them off."""
    update = clip_to(one_image_update(x, label), bound)
    return read_off(noised(update, noise_multiplier, bound, rng), len(x))


# --- the widget -------------------------------------------------------------------------------------------------------


def privacy_sandwich(epsilon: float, clip: float, cohort: int) -> Iterator[Point]:
    """Calibrate the noise to (epsilon, DELTA) over ROUNDS rounds, attack one update, then train and audit."""
    rate = cohort / CLIENTS
    z = noise_for_budget(epsilon, DELTA, ROUNDS, rate, RDP())
    data = tiny_clients()
    image, label = data.x[0].ravel(), int(data.y[0])
    guess = attacked(image, label, clip, z, stream(0, "attack"))
    quality = psnr(image, guess)
    yield Point(images={"the image": image.reshape(8, 8), "read off the noisy update": guess.reshape(8, 8)},
                text=f"Noise {z:.2f} clip bounds; the image read off one update has {quality:.0f} dB.")
    stage = CentralDP(clip, z, DELTA, accountant=RDP(), noise_seed=0)
    steps = federation(cohort, [stage]).run(ROUNDS)
    release = PoissonSampled(rate, Gaussian(z))
    proved = audit_rounds(z, rate, ROUNDS, TRIALS)
    for _, record in steps:
        t, accuracy, spent = record.version, record.metrics["accuracy"], record.metrics["epsilon"]
        basic = Basic().epsilon(Repeated(release, t), DELTA)
        yield Point(
            {"with this noise": (t, accuracy), "at most, by Rényi": (t, spent), "at most, added up": (t, basic),
             "at least, by audit": (t, float(proved[t - 1]) or np.nan)},      # a logarithmic axis has no 0
            text=f"After round {t}: accuracy {accuracy:.1%}; epsilon is between {proved[t - 1]:.2f} (audit) and "
                 f"{spent:.2f} (Rényi) at delta {DELTA:g}. Noise {z:.2f} clip bounds on the sum; the image read off one "
                 f"noisy update has {quality:.0f} dB.",
        )
    for t, accuracy in enumerate(without_privacy(cohort), start=1):
        yield Point({"without clip and noise": (t, accuracy)})


RECIPE = Recipe(
    data=By((), of=tiny_clients), model=logistic(64, 10), rounds=ROUNDS, lr=1.0, batch_size=None, poisson=True, uniform=True,
    fraction=By("cohort", of=lambda cohort: cohort / CLIENTS), clip=By("clip"), budget=By("epsilon"), delta=DELTA,
    lines={"with this noise": ("round", "accuracy"), "at most, by Rényi": ("round", "epsilon"),
           "without clip and noise": ("round", "plain_accuracy")},
    picture=("the image", "read off the noisy update"),
    text="After round {round}: accuracy {accuracy:.1%}; epsilon is at most {epsilon:.2f} (Rényi) "
         f"at delta {DELTA:g}. Noise {{noise:.2f}} clip bounds on the sum; the image read off one noisy update has "
         "{psnr:.0f} dB.",
    differs="The sum of the single prices and the audit need the notebook.",
)  # fmt: skip


def privacy_sandwich_explorer() -> Explorer:
    """Lesson 3: epsilon, the clip bound and the cohort."""
    return Explorer(
        privacy_sandwich,
        controls=[
            Steps("epsilon", EPSILONS, 2.0, "ε for the whole run"),
            LogSlider("clip", 0.125, 8, 13, value=1.0, label="clip bound C"),
            Slider("cohort", 35, 350, 35, value=140, label="clients a round, of 700"),
        ],
        charts=[
            Chart("accuracy by round", x="round", y="accuracy", x_range=(0, ROUNDS), y_range=(0, 1),
                  lines=("with this noise", "without clip and noise")),
            Chart("epsilon so far", x="round", y="ε", x_range=(0, ROUNDS), y_log=True,
                  lines=("at most, added up", "at most, by Rényi", "at least, by audit")),
            ImageChart("one client's image, and what an attacker reads", ("the image", "read off the noisy update")),
        ],
        title=f"The privacy sandwich: digits, {CLIENTS} clients, {ROUNDS} rounds, retrained as you move",
        recipe=RECIPE,
    )
