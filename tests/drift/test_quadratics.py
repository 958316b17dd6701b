"""Bowls: what their picture promises."""

import numpy as np
import pytest

from fl_course import Bowls, two_bowls


@pytest.mark.parametrize("distance", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("stretch", [1.0, 8.0])
def test_two_bowls_lie_as_far_apart_as_said_and_their_valleys_cross(distance, stretch):
    bowls = two_bowls(distance, stretch)
    assert np.linalg.norm(bowls.centres[0] - bowls.centres[1]) == pytest.approx(distance)
    for k, (steep, flat) in enumerate(((1, 0), (0, 1))):
        assert bowls.curvatures[k, steep, steep] == pytest.approx(stretch * bowls.curvatures[k, flat, flat])
        assert bowls.curvatures[k].max() == pytest.approx(1.0)       # so that a learning rate of 1 is stable for every stretch


def test_the_models_one_output_is_minus_the_loss():
    bowls = two_bowls(3.0)
    point, data = np.array([0.4, -1.1], np.float32), bowls.data()
    losses = bowls.losses(point.astype(float))
    np.testing.assert_allclose(bowls.model().predict(point, data.x)[:, 0], -losses, rtol=1e-5)
    away = point - bowls.centres
    np.testing.assert_allclose(losses, [0.5 * a @ A @ a for a, A in zip(away, bowls.curvatures, strict=True)])


@pytest.mark.parametrize("curvature", [np.diag([1.0, 0.0]), np.diag([1.0, -1.0]), np.array([[1.0, 0.5], [0.0, 1.0]])])
def test_a_bowl_without_a_minimum_is_refused(curvature):
    with pytest.raises(ValueError, match="symmetric with positive eigenvalues"):
        Bowls(np.zeros((1, 2)), curvature[None])
