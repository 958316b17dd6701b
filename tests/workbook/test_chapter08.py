"""Chapter 8's checks: right answers written in another way pass, slips that learners make are named."""

import numpy as np
import pytest
import torch

from fl_course.workbook.exercises.ch08 import base_gradient, head_gradient
from fl_course.workbook.grading.checks import examine, find

SEEDS = range(4)


def mask_by_positions(shapes, personal):
    names = [personal] if isinstance(personal, str) else list(personal)
    mask, at = [], 0
    for name in names:
        if not any(tensor == name or tensor.startswith(name + ".") for tensor in shapes):
            raise ValueError(f"there is no layer {name}")
    for tensor, shape in shapes.items():
        size = 1
        for side in shape:
            size *= side
        mask += [any(tensor.startswith(name + ".") for name in names)] * size
        at += size
    return mask


def mask_of_ones(shapes, personal):
    return mask_by_positions(shapes, personal) * np.ones(1)


def fedrep_on_copies(B, w, x, y, head_steps, base_steps, lr):
    base, head = B.copy(), w.copy()
    for step in range(head_steps + base_steps):
        if step < head_steps:
            head -= lr * head_gradient(base, head, x, y)
        else:
            base -= lr * base_gradient(base, head, x, y)
    return [base - B, head]


def ditto_by_autograd(v, w, gradient, lam, lr):
    v, w = torch.tensor(v, requires_grad=True), torch.tensor(w)
    (lam / 2 * (v - w).square().sum()).backward()
    return v.detach().numpy() - lr * (gradient(v.detach().numpy()) + v.grad.numpy())


def ditto_as_two_steps(v, w, gradient, lam, lr):
    return (1 - lr * lam) * v + lr * lam * w - lr * gradient(v)


def adapted_by_autograd(w, support, query, alpha):
    w = torch.tensor(w, requires_grad=True)
    x, y = map(torch.tensor, support)
    (grad,) = torch.autograd.grad(((x @ w - y) ** 2).mean() / 2, w)
    x, y = map(torch.tensor, query)
    return (((x @ (w - alpha * grad) - y) ** 2).mean() / 2).item()


def meta_with_a_matrix(w, support, query, hessian, alpha):
    g = query(w - alpha * support(w))
    return g, (np.eye(len(w)) - alpha * hessian(w)) @ g


def meta_by_differences(w, support, query, hessian, alpha):
    """Hessian-free: to the checks' tolerance the same, for a smooth loss and a small step."""
    g = query(w - alpha * support(w))
    step = 1e-5
    return g, g - alpha * (support(w + step * g) - support(w - step * g)) / (2 * step)


def report_with_a_loop(right, alone, tests):
    shares, better = [], 0
    for r, a, n in zip(right, alone, tests, strict=True):
        if n:
            shares.append(r / n)
            better += r > a
    worst = sorted(shares)[: max(1, int(0.1 * len(shares)))]
    return [sum(shares) / len(shares), sum(worst) / len(worst), better / len(shares)]


def anchored_without_in_place(w, gradient, lam, lr, steps):
    theta = w
    for _ in range(steps):
        theta = theta - lr * (gradient(theta) + lam * (theta - w))
    return theta


def anchor_copied(w, gradient, lam, lr, steps):
    anchor, theta = w.copy(), np.array(w)
    for _ in range(steps):
        theta += -lr * gradient(theta) - lr * lam * (theta - anchor)
    return theta


def apfl_on_copies(v, w, gradient, alpha, lr):
    mixed = w + alpha * (v - w)
    v, w = v.copy(), w.copy()
    v -= lr * alpha * gradient(mixed)
    w -= lr * gradient(w)
    return [w, v]


@pytest.mark.parametrize(("name", "answer"), [
    ("08.personal_mask", mask_by_positions), ("08.personal_mask", mask_of_ones), ("08.fedrep_client", fedrep_on_copies),
    ("08.ditto_step", ditto_by_autograd), ("08.ditto_step", ditto_as_two_steps), ("08.adapted_loss", adapted_by_autograd),
    ("08.meta_gradient", meta_with_a_matrix), ("08.meta_gradient", meta_by_differences),
    ("08.fair_report", report_with_a_loop), ("08.mended_anchor", anchored_without_in_place),
    ("08.mended_anchor", anchor_copied), ("08.mended_apfl", apfl_on_copies),
])  # fmt: skip
def test_a_right_answer_in_other_words_passes(name, answer):
    for seed in SEEDS:
        result = examine(find(name), answer, np.random.default_rng(seed))
        assert result.passed, result


def apfl_in_place(v, w, gradient, alpha, lr):
    mixed = alpha * v + (1 - alpha) * w
    w -= lr * gradient(w)
    return w, v - lr * alpha * gradient(mixed)


def always_a_value_error(shapes, personal):
    raise ValueError


@pytest.mark.parametrize(("name", "answer", "words"), [
    ("08.mended_apfl", apfl_in_place, "argument 2 was changed in place"),
    ("08.personal_mask", always_a_value_error, "your function raised ValueError"),
    ("08.fair_report", lambda right, alone, tests: 0.5, "is the answer three numbers"),
])  # fmt: skip
def test_a_slip_is_said_in_words(name, answer, words):
    result = examine(find(name), answer, np.random.default_rng(0))
    assert result.state == "fail"
    assert words in result.message


def test_the_gradients_that_are_handed_out_are_those_of_the_loss():
    rng = np.random.default_rng(0)
    B, w, x, y = (rng.normal(size=size) for size in ((5, 2), 2, (8, 5), 8))
    base, head = torch.tensor(B, requires_grad=True), torch.tensor(w, requires_grad=True)
    (((torch.tensor(x) @ base @ head - torch.tensor(y)) ** 2).mean() / 2).backward()
    assert np.allclose(base_gradient(B, w, x, y), base.grad)
    assert np.allclose(head_gradient(B, w, x, y), head.grad)


def test_the_oracles_of_the_two_faults_speak():
    """What the exercise prints shows the fault, and shows that the solution has none."""
    from fl_course.workbook.exercises.ch08 import apfl_still_broken, mended_anchor, mended_apfl, still_broken

    downloaded = np.array([1.0, -2.0, 0.5])

    def walked(how, lam):
        return np.linalg.norm(how(downloaded.copy(), lambda w: w - 3, lam, 0.05, 50) - downloaded)

    assert walked(still_broken, 0.0) == walked(still_broken, 10.0)
    assert walked(mended_anchor, 10.0) < 0.2 * walked(mended_anchor, 0.0)
    for how, arrives in ((apfl_still_broken, 0.0), (mended_apfl, 3.0)):
        v, w = np.zeros(2), np.zeros(2)
        for _ in range(100):
            w, v = how(v, w, lambda w: w - 3, 1.0, 0.1)
        assert np.allclose(v, arrives, atol=1e-3)
