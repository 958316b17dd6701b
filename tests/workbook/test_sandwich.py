"""The privacy sandwich: what it shows agrees with the accountants, the audit and the eye, at every corner of its sliders."""

import numpy as np
import pytest

from fl_course import digits
from fl_course.core import stream
from fl_course.privacy.accounting import RDP, Gaussian, PoissonSampled, Repeated
from fl_course.workbook.widgets import sandwich
from fl_course.workbook.widgets.points import Run

IMAGE, LABEL = digits().x[0].ravel(), int(digits().y[0])


def test_a_picture_can_be_read_off_an_update_until_there_is_noise():
    update = sandwich.one_image_update(IMAGE, LABEL)
    assert sandwich.psnr(IMAGE, sandwich.read_off(update)) > 60
    quality = [np.mean([sandwich.psnr(IMAGE, sandwich.attacked(IMAGE, LABEL, 1.0, z, stream(s, "t"))) for s in range(5)])
               for z in (0.0, 0.01, 0.1, 1.0)]
    assert quality[0] > 60
    assert np.all(np.diff(quality) < 0)
    assert quality[-1] < 12


def test_one_image_update_is_what_a_client_sends():
    from fl_course import Coordinator, LocalSGD, Synchronous, from_clients, logistic

    data = from_clients("one", {"a": (IMAGE[None], np.array([LABEL]))}, 10, digits().x[:5], digits().y[:5])
    it = Coordinator(data, logistic(64, 10), LocalSGD(1.0, batch_size=None), Synchronous(1.0))
    sent = it.train(1, it.initial(np.zeros(650))).state.server.params
    assert np.allclose(sent, sandwich.one_image_update(IMAGE, LABEL), atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_the_audit_stays_below_the_accountant_and_catches_half_the_noise(seed):
    event = Repeated(PoissonSampled(0.5, Gaussian(1.0)), 15)
    claimed = RDP().epsilon(event, sandwich.DELTA)
    assert sandwich.audit_rounds(1.0, 0.5, 15, 1500, seed)[-1] <= claimed
    full = RDP().epsilon(Gaussian(2.0), sandwich.DELTA)                     # one round, everybody in: z = 2 is claimed …
    assert sandwich.audit_rounds(2.0, 1.0, 1, 1500, seed)[-1] <= full
    assert sandwich.audit_rounds(0.4, 1.0, 1, 1500, seed)[-1] > full        # … and a fifth of it delivered


@pytest.mark.parametrize("at", [(2.0, 1.0, 140), (0.25, 8.0, 350), (2048.0, 0.12, 35)])
def test_corners(at):
    run = Run({})
    for point in sandwich.privacy_sandwich(*at):
        run.add(point)
    rounds = sandwich.ROUNDS
    assert {len(run.lines[name]) for name in ("with this noise", "without clip and noise", "at most, by Rényi")} == {rounds}
    spent = [epsilon for _, epsilon in run.lines["at most, by Rényi"]]
    assert np.all(np.diff(spent) > 0)
    assert 0.98 * at[0] < spent[-1] <= at[0]
    assert all(low is None or low <= high for (_, low), high in zip(run.lines["at least, by audit"], spent, strict=True))


def test_its_accuracy_is_bought_with_epsilon():
    final = {}
    for epsilon in (0.25, 8.0):
        points = [point.lines["with this noise"][1] for point in sandwich.privacy_sandwich(epsilon, 1.0, 140)
                  if "with this noise" in point.lines]
        final[epsilon] = np.mean(points[-3:])
    assert final[8.0] > final[0.25] + 0.15


def test_the_pictures_are_pictures_and_come_back_at_the_end_of_the_slider():
    quality = {}
    for epsilon in (sandwich.EPSILONS[0], sandwich.EPSILONS[-1]):
        point = next(sandwich.privacy_sandwich(epsilon, 1.0, 140))
        assert not point.lines
        assert np.array_equal(point.images["the image"], IMAGE.reshape(8, 8))
        quality[epsilon] = sandwich.psnr(IMAGE, np.ravel(point.images["read off the noisy update"]))
    low, high = quality.values()
    assert low < 8 < 12 < high
    assert max(sandwich.EPSILONS) < 10_000
