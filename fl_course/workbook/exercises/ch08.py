"""The exercises of chapter 8: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

import numpy as np

from fl_course.workbook.grading.checks import Exercise, Mistake, Wrong, agrees_with, expect
from fl_course.workbook.grading.compare import same, short

# --- 08.personal_mask ------------------------------------------------------------------------------------------------


def personal_mask(shapes, personal):
    """shapes: name -> shape, in the order of the vector; personal: names of layers. Returns (d,) booleans, True: stays."""
    def layer_of(name):
        return name.split(".")[0]

    missing = [layer for layer in personal if layer not in map(layer_of, shapes)]
    if missing:
        raise ValueError(f"no tensor belongs to {missing}; there are {list(shapes)}")
    parts = [np.full(int(np.prod(shape)), layer_of(name) in personal) for name, shape in shapes.items()]
    return np.concatenate(parts)


def any_prefix(shapes, personal):
    parts = [np.full(int(np.prod(s)), any(name.startswith(p) for p in personal)) for name, s in shapes.items()]
    return _refusing(shapes, personal, np.concatenate(parts))


def anywhere(shapes, personal):
    parts = [np.full(int(np.prod(s)), any(p in name for p in personal)) for name, s in shapes.items()]
    return _refusing(shapes, personal, np.concatenate(parts))


def what_travels(shapes, personal):
    return ~personal_mask(shapes, personal)


def never_refuses(shapes, personal):
    parts = [np.full(int(np.prod(shape)), name.split(".")[0] in personal) for name, shape in shapes.items()]
    return np.concatenate(parts)


def first_axis(shapes, personal):
    parts = [np.full(shape[0], name.split(".")[0] in personal) for name, shape in shapes.items()]
    return _refusing(shapes, personal, np.concatenate(parts))


def summed_shape(shapes, personal):
    parts = [np.full(sum(shape), name.split(".")[0] in personal) for name, shape in shapes.items()]
    return _refusing(shapes, personal, np.concatenate(parts))


def whole_names(shapes, personal):
    parts = [np.full(int(np.prod(shape)), name in personal) for name, shape in shapes.items()]
    return _refusing(shapes, personal, np.concatenate(parts))


def weights_alone(shapes, personal):
    parts = [np.full(int(np.prod(s)), name in [f"{p}.weight" for p in personal]) for name, s in shapes.items()]
    return _refusing(shapes, personal, np.concatenate(parts))


def places(shapes, personal):
    return np.flatnonzero(personal_mask(shapes, personal))


def personal_last(shapes, personal):
    return np.sort(personal_mask(shapes, personal))


def mask_by_tensor(shapes, personal):
    return _refusing(shapes, personal, np.array([name.split(".")[0] in personal for name in shapes]))


def first_layer_alone(shapes, personal):
    return personal_mask(shapes, personal[:1])


def refuses_nothing_named(shapes, personal):
    if not personal:
        raise ValueError("name a layer")
    return personal_mask(shapes, personal)


def _refusing(shapes, personal, mask):
    personal_mask(shapes, personal)
    return mask


def test_personal_mask(fn, rng):
    for personal in (("head",), ("head", "base"), (), ("header",), ("neck",), ("hea",)):
        a, b, c, e = (int(n) for n in rng.permutation([2, 3, 4, 5]))
        shapes = {
            "base.weight": (b, a), "base.bias": (b,), "head.weight": (c, b), "head.bias": (c,), "header.weight": (e, c),
            "forehead.bias": (e,),
        }  # fmt: skip
        tried = f"shapes = {shapes}, personal = {personal}"
        if personal in (("neck",), ("hea",)):
            try:
                got = fn(dict(shapes), personal)
            except ValueError:
                continue
            raise Wrong(f"tried {tried}: expected a ValueError, because no layer is called {personal[0]!r}, got {short(got)}")
        got, want = fn(dict(shapes), personal), personal_mask(shapes, personal)
        expect(np.shape(got) if got is not None else None, want.shape, f"{tried}: the shape of the mask")
        expect(np.asarray(got), want, f"{tried}: the mask")


# --- 08.fedrep_client ------------------------------------------------------------------------------------------------


def head_gradient(B, h, x, y):
    """(k,): of the mean of ½ (x B h - y)², with respect to the head h."""
    return B.T @ x.T @ (x @ B @ h - y) / len(y)


def base_gradient(B, h, x, y):
    """(d, k): of the mean of ½ (x B h - y)², with respect to the base B."""
    return np.outer(x.T @ (x @ B @ h - y) / len(y), h)


def fedrep_client(B, h, x, y, head_steps, base_steps, lr):
    """B: (d, k) base, h: (k,) head, x: (n, d), y: (n,). Returns what travels (d, k) and what stays (k,)."""
    head, base = h, B
    for _ in range(head_steps):
        head = head - lr * head_gradient(base, head, x, y)
    for _ in range(base_steps):
        base = base - lr * base_gradient(base, head, x, y)
    return base - B, head


def both_at_once(B, h, x, y, head_steps, base_steps, lr):
    head, base = h, B
    for step in range(max(head_steps, base_steps)):
        g, step_h = base_gradient(base, head, x, y), head_gradient(base, head, x, y)
        base = base - lr * g if step < base_steps else base
        head = head - lr * step_h if step < head_steps else head
    return base - B, head


def base_first(B, h, x, y, head_steps, base_steps, lr):
    change, _ = fedrep_client(B, h, x, y, 0, base_steps, lr)
    return change, fedrep_client(B + change, h, x, y, head_steps, 0, lr)[1]


def base_under_old_head(B, h, x, y, head_steps, base_steps, lr):
    change, _ = fedrep_client(B, h, x, y, 0, base_steps, lr)
    return change, fedrep_client(B, h, x, y, head_steps, 0, lr)[1]


def steps_swapped(B, h, x, y, head_steps, base_steps, lr):
    return fedrep_client(B, h, x, y, base_steps, head_steps, lr)


def base_not_change(B, h, x, y, head_steps, base_steps, lr):
    change, head = fedrep_client(B, h, x, y, head_steps, base_steps, lr)
    return B + change, head


def both_as_changes(B, h, x, y, head_steps, base_steps, lr):
    change, head = fedrep_client(B, h, x, y, head_steps, base_steps, lr)
    return change, head - h


def old_head_kept(B, h, x, y, head_steps, base_steps, lr):
    return fedrep_client(B, h, x, y, head_steps, base_steps, lr)[0], h


def head_travels(B, h, x, y, head_steps, base_steps, lr):
    change, head = fedrep_client(B, h, x, y, head_steps, base_steps, lr)
    return head - h, B + change


def stays_first(B, h, x, y, head_steps, base_steps, lr):
    return fedrep_client(B, h, x, y, head_steps, base_steps, lr)[::-1]


def wrong_way_round(B, h, x, y, head_steps, base_steps, lr):
    change, head = fedrep_client(B, h, x, y, head_steps, base_steps, lr)
    return -change, head


def change_alone(B, h, x, y, head_steps, base_steps, lr):
    return fedrep_client(B, h, x, y, head_steps, base_steps, lr)[0]


def overwritten_base(B, h, x, y, head_steps, base_steps, lr):
    head, base = h, B
    for _ in range(head_steps):
        head = head - lr * head_gradient(base, head, x, y)
    for _ in range(base_steps):
        base -= lr * base_gradient(base, head, x, y)
    return base - B, head


def uphill(B, h, x, y, head_steps, base_steps, lr):
    return fedrep_client(B, h, x, y, head_steps, base_steps, -lr)


def draw_linear_client(rng):
    d, k, n = 5, 2, 8
    B, h = rng.normal(size=(d, k)), rng.normal(size=k)
    x, y = rng.normal(size=(n, d)), rng.normal(size=n)
    steps = rng.permutation([2, 3, 4])[:2]
    return B, h, x, y, int(steps[0]), int(steps[1]), 0.1


# --- 08.ditto_step ---------------------------------------------------------------------------------------------------


def ditto_step(v, w, gradient, lam, lr):
    """v: (d,) the personal model; w: (d,) the model as downloaded; gradient: (d,) -> (d,). Returns the new v (d,)."""
    return v - lr * (gradient(v) + lam * (v - w))


def pulled_by_itself(v, w, gradient, lam, lr):
    return v - lr * (gradient(v) + lam * (v - v))


def gradient_of_global(v, w, gradient, lam, lr):
    return v - lr * (gradient(w) + lam * (v - w))


def pushed_away(v, w, gradient, lam, lr):
    return v - lr * (gradient(v) - lam * (v - w))


def rope_doubled(v, w, gradient, lam, lr):
    return v - lr * (gradient(v) + 2 * lam * (v - w))


def rope_halved(v, w, gradient, lam, lr):
    return v - lr * (gradient(v) + lam / 2 * (v - w))


def rope_without_rate(v, w, gradient, lam, lr):
    return v - lr * gradient(v) - lam * (v - w)


def mixed_models(v, w, gradient, lam, lr):
    return (v - lr * gradient(v) + lam * w) / (1 + lam)


def from_the_global(v, w, gradient, lam, lr):
    return w - lr * (gradient(v) + lam * (v - w))


def ditto_change(v, w, gradient, lam, lr):
    return -lr * (gradient(v) + lam * (v - w))


def climbs(v, w, gradient, lam, lr):
    return v + lr * (gradient(v) + lam * (v - w))


def squared_distance(v, w, gradient, lam, lr):
    return v - lr * (gradient(v) + lam / 2 * np.sum((v - w) ** 2))


def pulled_to_zero(v, w, gradient, lam, lr):
    return v - lr * (gradient(v) + lam * v)


def own_gradient_shrunk(v, w, gradient, lam, lr):
    return v - lr * ((1 - lam) * gradient(v) + lam * (v - w))


def at_the_middle(v, w, gradient, lam, lr):
    return v - lr * (gradient((v + w) / 2) + lam * (v - w))


def cubic(w):
    """The gradient of a loss that is no bowl: it grows with the cube of w."""
    return 0.5 * w + w**3 - 1.0


def draw_ditto(rng):
    return rng.normal(size=4), rng.normal(size=4), cubic, float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.05, 0.2))


# --- 08.adapted_loss -------------------------------------------------------------------------------------------------


def adapted_loss(w, support, query, alpha):
    """w: (d,); support, query: (x (n, d), y (n,)) each; the loss is the mean of ½ (x·w - y)². Returns one number."""
    x, y = support
    adapted = w - alpha * x.T @ (x @ w - y) / len(y)
    x, y = query
    return np.mean((x @ adapted - y) ** 2) / 2


def examined_on_support(w, support, query, alpha):
    return adapted_loss(w, support, support, alpha)


def learnt_from_query(w, support, query, alpha):
    return adapted_loss(w, query, query, alpha)


def roles_swapped(w, support, query, alpha):
    return adapted_loss(w, query, support, alpha)


def not_adapted(w, support, query, alpha):
    return adapted_loss(w, support, query, 0.0)


def all_of_both(w, support, query, alpha):
    both = tuple(np.concatenate(parts) for parts in zip(support, query, strict=True))
    return adapted_loss(w, both, query, alpha)


def adapted_uphill(w, support, query, alpha):
    return adapted_loss(w, support, query, -alpha)


def summed_gradient(w, support, query, alpha):
    return adapted_loss(w, support, query, alpha * len(support[1]))


def half_forgotten(w, support, query, alpha):
    return 2 * adapted_loss(w, support, query, alpha)


def gradient_doubled(w, support, query, alpha):
    return adapted_loss(w, support, query, 2 * alpha)


def loss_summed(w, support, query, alpha):
    return len(query[1]) * adapted_loss(w, support, query, alpha)


def adapted_alone(w, support, query, alpha):
    x, y = support
    return w - alpha * x.T @ (x @ w - y) / len(y)


def adapted_twice(w, support, query, alpha):
    return adapted_loss(adapted_alone(w, support, query, alpha), support, query, alpha)


def divided_by_support(w, support, query, alpha):
    return adapted_loss(w, support, query, alpha) * len(query[1]) / len(support[1])


def draw_split(rng):
    d, n, m = 3, 4, 6
    support = rng.normal(size=(n, d)), rng.normal(size=n)
    query = rng.normal(size=(m, d)), rng.normal(size=m)
    return rng.normal(size=d), support, query, float(rng.uniform(0.2, 0.4))


# --- 08.meta_gradient ------------------------------------------------------------------------------------------------


def meta_gradient(w, support, query, hessian, alpha):
    """w: (d,); support, query: (d,) -> (d,), gradients; hessian: (d,) -> (d, d), of the support loss. Two (d,)."""
    adapted = w - alpha * support(w)
    first_order = query(adapted)
    return first_order, first_order - alpha * hessian(w) @ first_order


def at_the_start(w, support, query, hessian, alpha):
    return query(w), query(w) - alpha * hessian(w) @ query(w)


def support_again(w, support, query, hessian, alpha):
    return meta_gradient(w, support, support, hessian, alpha)


def query_first(w, support, query, hessian, alpha):
    return meta_gradient(w, query, query, hessian, alpha)


def hessian_after(w, support, query, hessian, alpha):
    adapted = w - alpha * support(w)
    return query(adapted), query(adapted) - alpha * hessian(adapted) @ query(adapted)


def curvature_added(w, support, query, hessian, alpha):
    first = meta_gradient(w, support, query, hessian, alpha)[0]
    return first, first + alpha * hessian(w) @ first


def curvature_alone(w, support, query, hessian, alpha):
    first = meta_gradient(w, support, query, hessian, alpha)[0]
    return first, hessian(w) @ first


def rate_forgotten(w, support, query, hessian, alpha):
    first = meta_gradient(w, support, query, hessian, alpha)[0]
    return first, first - hessian(w) @ first


def curvature_of_support_gradient(w, support, query, hessian, alpha):
    first = meta_gradient(w, support, query, hessian, alpha)[0]
    return first, first - alpha * hessian(w) @ support(w)


def entry_by_entry(w, support, query, hessian, alpha):
    first = meta_gradient(w, support, query, hessian, alpha)[0]
    return first, first - alpha * np.diag(hessian(w)) * first


def exact_first(w, support, query, hessian, alpha):
    return meta_gradient(w, support, query, hessian, alpha)[::-1]


def first_alone(w, support, query, hessian, alpha):
    return meta_gradient(w, support, query, hessian, alpha)[0]


def exact_alone(w, support, query, hessian, alpha):
    return meta_gradient(w, support, query, hessian, alpha)[1]


def same_twice(w, support, query, hessian, alpha):
    first = meta_gradient(w, support, query, hessian, alpha)[0]
    return first, first


def whole_walk(w, support, query, hessian, alpha):
    first, exact = meta_gradient(w, support, query, hessian, alpha)
    return first + support(w), exact + support(w)


def support_loss(w):
    """The gradient of the support loss ½ wᵀAw + ¼ Σ w⁴ - Σ w, A = [[2, 1, 0], [1, 3, 1], [0, 1, 1]]."""
    return np.array([[2.0, 1, 0], [1, 3, 1], [0, 1, 1]]) @ w + w**3 - 1


def support_curvature(w):
    return np.array([[2.0, 1, 0], [1, 3, 1], [0, 1, 1]]) + np.diag(3 * w**2)


def query_loss(w):
    return np.array([[1.0, 0, 1], [0, 2, 0], [1, 0, 3]]) @ w + 2


def draw_meta(rng):
    return rng.normal(size=3), support_loss, query_loss, support_curvature, float(rng.uniform(0.05, 0.2))


# --- 08.fair_report --------------------------------------------------------------------------------------------------


def fair_report(right, alone, tests):
    """right, alone, tests: (K,) whole numbers, tests may be 0. Returns (mean, worst tenth, share that gains)."""
    tested = tests > 0
    accuracy = right[tested] / tests[tested]
    tenth = max(1, len(accuracy) // 10)
    worst = np.sort(accuracy)[:tenth].mean()
    return accuracy.mean(), worst, np.mean(right[tested] > alone[tested])


def all_in_one_pot(right, alone, tests):
    _, worst, gains = fair_report(right, alone, tests)
    return right.sum() / tests.sum(), worst, gains


def untested_fail(right, alone, tests):
    accuracy = right / np.maximum(tests, 1)
    tenth = max(1, len(accuracy) // 10)
    return accuracy.mean(), np.sort(accuracy)[:tenth].mean(), np.mean(right > alone)


def worst_one(right, alone, tests):
    mean, _, gains = fair_report(right, alone, tests)
    return mean, (right[tests > 0] / tests[tests > 0]).min(), gains


def best_tenth(right, alone, tests):
    mean, _, gains = fair_report(right, alone, tests)
    accuracy = right[tests > 0] / tests[tests > 0]
    return mean, np.sort(accuracy)[-max(1, len(accuracy) // 10) :].mean(), gains


def tenth_percentile(right, alone, tests):
    mean, _, gains = fair_report(right, alone, tests)
    return mean, np.quantile(right[tests > 0] / tests[tests > 0], 0.1), gains


def draws_count(right, alone, tests):
    mean, worst, _ = fair_report(right, alone, tests)
    return mean, worst, np.mean(right[tests > 0] >= alone[tests > 0])


def gains_of_everybody(right, alone, tests):
    mean, worst, _ = fair_report(right, alone, tests)
    return mean, worst, np.mean(right > alone)


def gains_counted(right, alone, tests):
    mean, worst, _ = fair_report(right, alone, tests)
    return mean, worst, np.sum(right > alone)


def who_loses(right, alone, tests):
    mean, worst, _ = fair_report(right, alone, tests)
    return mean, worst, np.mean(right[tests > 0] < alone[tests > 0])


def mean_gain(right, alone, tests):
    mean, worst, _ = fair_report(right, alone, tests)
    tested = tests > 0
    return mean, worst, np.mean((right - alone)[tested] / tests[tested])


def tenth_of_all(right, alone, tests):
    mean, _, gains = fair_report(right, alone, tests)
    accuracy = np.sort(right[tests > 0] / tests[tests > 0])
    return mean, accuracy[: max(1, len(tests) // 10)].mean(), gains


def median_client(right, alone, tests):
    _, worst, gains = fair_report(right, alone, tests)
    return np.median(right[tests > 0] / tests[tests > 0]), worst, gains


def right_answers(right, alone, tests):
    tested = tests > 0
    tenth = max(1, int(tested.sum()) // 10)
    return right[tested].mean(), np.sort(right[tested])[:tenth].mean(), np.mean(right[tested] > alone[tested])


def in_percent(right, alone, tests):
    return tuple(100 * part for part in fair_report(right, alone, tests))


def mean_alone(right, alone, tests):
    return fair_report(right, alone, tests)[0]


def draw_report(rng):
    """33 clients, of which 29 have tests: a tenth of those is 2, of all 3. Sizes differ, and draws and losses occur."""
    tests = np.where(np.arange(33) % 9 == 4, 0, rng.integers(5, 60, size=33))
    right = rng.binomial(tests, rng.uniform(0.4, 0.95, size=33))
    alone = rng.binomial(tests, rng.uniform(0.4, 0.8, size=33))
    alone = np.where(np.arange(33) % 7 == 0, right, alone)
    return right, alone, tests


def test_report(fn, rng):
    for _ in range(4):
        right, alone, tests = draw_report(rng)
        got, want = fn(right.copy(), alone.copy(), tests.copy()), fair_report(right, alone, tests)
        tried = f"right = {short(right)}, alone = {short(alone)}, tests = {short(tests)}"
        triple = isinstance(got, (tuple, list, np.ndarray)) and len(got) == 3
        expect(triple, True, f"{tried}: is the answer three numbers")
        for what, mine, true in zip(("the mean", "the worst tenth", "the share that gains"), got, want, strict=True):
            expect(mine, true, f"{tried}: {what}")
    three = np.array([4, 9, 5]), np.array([2, 9, 6]), np.array([10, 10, 10])
    expect(fn(*(part.copy() for part in three)), fair_report(*three), "three clients: right = [4 9 5], alone = [2 9 6] of 10")


# --- 08.mended_anchor ------------------------------------------------------------------------------------------------


def mended_anchor(w, gradient, lam, lr, steps):
    """w: (d,) as downloaded, left as it is; gradient: (d,) -> (d,). Returns the personal model (d,)."""
    theta = w.copy()
    for _ in range(steps):
        theta -= lr * (gradient(theta) + lam * (theta - w))
    return theta


def still_broken(w, gradient, lam, lr, steps):
    theta = w
    for _ in range(steps):
        theta -= lr * (gradient(theta) + lam * (theta - w))
    return theta


def anchor_walks_along(w, gradient, lam, lr, steps):
    theta = w.copy()
    for _ in range(steps):
        anchor = theta.copy()
        theta -= lr * (gradient(theta) + lam * (theta - anchor))
    return theta


def one_step_behind(w, gradient, lam, lr, steps):
    theta, anchor = w.copy(), w.copy()
    for _ in range(steps):
        before = theta.copy()
        theta -= lr * (gradient(theta) + lam * (theta - anchor))
        anchor = before
    return theta


def rope_turned(w, gradient, lam, lr, steps):
    return mended_anchor(w, gradient, -lam, lr, steps)


def gradient_at_anchor(w, gradient, lam, lr, steps):
    theta = w.copy()
    for _ in range(steps):
        theta -= lr * (gradient(w) + lam * (theta - w))
    return theta


def from_zero(w, gradient, lam, lr, steps):
    theta = np.zeros_like(w)
    for _ in range(steps):
        theta -= lr * (gradient(theta) + lam * (theta - w))
    return theta


def anchored_at_zero(w, gradient, lam, lr, steps):
    theta = w.copy()
    for _ in range(steps):
        theta -= lr * (gradient(theta) + lam * theta)
    return theta


def pulled_once(w, gradient, lam, lr, steps):
    theta = w.copy()
    for _ in range(steps):
        theta -= lr * gradient(theta)
    return theta - lr * lam * (theta - w)


def change_of_anchor(w, gradient, lam, lr, steps):
    return mended_anchor(w, gradient, lam, lr, steps) - w


def twice_the_rope(w, gradient, lam, lr, steps):
    return mended_anchor(w, gradient, 2 * lam, lr, steps)


def single_step(w, gradient, lam, lr, steps):
    return mended_anchor(w, gradient, lam, lr, 1)


def anchor_and_model(w, gradient, lam, lr, steps):
    return w, mended_anchor(w, gradient, lam, lr, steps)


def draw_anchor(rng):
    return rng.normal(size=4), cubic, float(rng.uniform(0.5, 2.0)), float(rng.uniform(0.02, 0.05)), int(rng.integers(4, 7))


def test_anchor(fn, rng):
    for _ in range(4):
        w, gradient, lam, lr, steps = draw_anchor(rng)
        mine = w.copy()
        tried = f"w = {short(w)}, λ = {lam:.3g}, lr = {lr:.3g}, {steps} steps"
        got = fn(mine, gradient, lam, lr, steps)
        if not same(mine, w):
            raise Wrong(f"tried {tried}: afterwards w is {short(mine)}; it is the anchor, and must be as it was downloaded")
        expect(got, mended_anchor(w, gradient, lam, lr, steps), tried)


# --- 08.mended_apfl --------------------------------------------------------------------------------------------------


def mended_apfl(v, w, gradient, alpha, lr):
    """v: (d,) personal, w: (d,) the local copy of the global model. Returns the new w, which travels, and the new v."""
    mixed = alpha * v + (1 - alpha) * w
    return w - lr * gradient(w), v - lr * alpha * gradient(mixed)


def apfl_still_broken(v, w, gradient, alpha, lr):
    mixed = alpha * v + (1 - alpha) * w
    mixed -= lr * alpha * gradient(mixed)
    return w - lr * gradient(w), v


def keeps_the_mixture(v, w, gradient, alpha, lr):
    mixed = alpha * v + (1 - alpha) * w
    return w - lr * gradient(w), mixed - lr * alpha * gradient(mixed)


def share_forgotten(v, w, gradient, alpha, lr):
    return w - lr * gradient(w), v - lr * gradient(alpha * v + (1 - alpha) * w)


def trains_v_alone(v, w, gradient, alpha, lr):
    return w - lr * gradient(w), v - lr * gradient(v)


def trains_v_with_share(v, w, gradient, alpha, lr):
    return w - lr * gradient(w), v - lr * alpha * gradient(v)


def mixes_the_new(v, w, gradient, alpha, lr):
    new = w - lr * gradient(w)
    return new, v - lr * alpha * gradient(alpha * v + (1 - alpha) * new)


def share_turned(v, w, gradient, alpha, lr):
    return w - lr * gradient(w), v - lr * alpha * gradient((1 - alpha) * v + alpha * w)


def w_learns_from_mixture(v, w, gradient, alpha, lr):
    step = gradient(alpha * v + (1 - alpha) * w)
    return w - lr * (1 - alpha) * step, v - lr * alpha * step


def w_left_alone(v, w, gradient, alpha, lr):
    return w, mended_apfl(v, w, gradient, alpha, lr)[1]


def personal_first(v, w, gradient, alpha, lr):
    return mended_apfl(v, w, gradient, alpha, lr)[::-1]


def personal_alone(v, w, gradient, alpha, lr):
    return mended_apfl(v, w, gradient, alpha, lr)[1]


def follows_w(v, w, gradient, alpha, lr):
    return w - lr * gradient(w), v - lr * alpha * gradient(w)


def hands_out_mixture(v, w, gradient, alpha, lr):
    new_w, new_v = mended_apfl(v, w, gradient, alpha, lr)
    return new_w, alpha * new_v + (1 - alpha) * new_w


def climbs_mixed(v, w, gradient, alpha, lr):
    return mended_apfl(v, w, gradient, alpha, -lr)


def draw_apfl(rng):
    return rng.normal(size=4), rng.normal(size=4), cubic, float(rng.uniform(0.2, 0.4)), float(rng.uniform(0.1, 0.3))


EXERCISES = (
    Exercise(
        name="08.personal_mask",
        title="Split the vector",
        difficulty=2,
        minutes=10,
        test=test_personal_mask,
        hints=(
            "A tensor is named `layer.tensor`; what stands before the dot is its layer.",
            "A tensor of shape (4, 3) is 12 numbers of the vector: `np.full(int(np.prod(shape)), stays)`, one after the other.",
            "First look for names in `personal` that no tensor has before its dot, and raise ValueError; then `np.concatenate`.",
        ),
        solution=personal_mask,
        mistakes=(
            Mistake(any_prefix, "`head` is not `header`: compare the whole word before the dot."),
            Mistake(anywhere, "`head` stands in `forehead`, too: compare the whole word before the dot."),
            Mistake(what_travels, "Inside out: True means that the number stays with the client."),
            Mistake(never_refuses, "A layer that does not exist must be refused: else a typing error makes everything travel."),
            Mistake(first_axis, "A tensor of shape (4, 3) is 12 numbers, not 4: multiply the sizes."),
            Mistake(summed_shape, "A tensor of shape (4, 3) is 12 numbers, not 7: multiply the sizes."),
            Mistake(whole_names, "`head` names a layer, and its tensors are `head.weight` and `head.bias`: look before the dot."),
            Mistake(weights_alone, "The bias of a layer belongs to it, too."),
            Mistake(places, "These are the positions of the personal numbers. A mask (d,) of True and False is asked for."),
            Mistake(personal_last, "Right number of Trues, wrong places: they lie where their tensor lies in the vector."),
            Mistake(mask_by_tensor, "That is one entry a tensor. One a number is asked for, (d,)."),
            Mistake(first_layer_alone, "Several layers may be personal: look for each of them."),
            Mistake(refuses_nothing_named, "No personal layer is allowed: the mask is then False everywhere, which is FedAvg."),
        ),
    ),
    Exercise(
        name="08.fedrep_client",
        title="FedRep's two phases",
        difficulty=3,
        minutes=15,
        test=agrees_with(fedrep_client, draw_linear_client, 4),
        hints=(
            "Two loops, one after the other: in the first only the head moves, in the second only the base.",
            "The second loop sees the head as the first left it: `base_gradient(base, head, x, y)`.",
            "Return (base - B, head): the base's change travels, the head stays. Write `base = base - …`, so that B is kept.",
        ),
        solution=fedrep_client,
        given=(head_gradient, base_gradient),
        mistakes=(
            Mistake(both_at_once, "Head and base move together here, as in FedPer. FedRep trains the head first, then the base."),
            Mistake(base_first, "The other order: first the head, with the base as it came, then the base."),
            Mistake(base_under_old_head, "The base is trained under the old head. Use the head that the first phase made."),
            Mistake(steps_swapped, "`head_steps` belong to the head and `base_steps` to the base."),
            Mistake(base_not_change, "What travels is the *change* of the base, base - B."),
            Mistake(both_as_changes, "The head stays with the client, so it is kept as it is, not as a change."),
            Mistake(old_head_kept, "The trained head must be kept for the next round; you return the old one."),
            Mistake(head_travels, "It is the base that travels; the head stays (the other way round is LG-FedAvg)."),
            Mistake(stays_first, "What travels comes first, then what stays."),
            Mistake(wrong_way_round, "A change is local - broadcast: base - B."),
            Mistake(change_alone, "The new head is asked for, too: it waits at the client for the next round."),
            Mistake(overwritten_base, "`-=` writes into B itself, so that base - B is zero: write `base = base - …`."),
            Mistake(uphill, "Uphill: subtract the gradient."),
        ),
    ),
    Exercise(
        name="08.ditto_step",
        title="Ditto's gradient",
        difficulty=1,
        minutes=5,
        test=agrees_with(ditto_step, draw_ditto),
        hints=(
            "The gradient of ½ λ ‖v - w‖² with respect to v is λ (v - w).",
            "The client's own gradient is taken at v, its own model.",
            "`v - lr * (gradient(v) + lam * (v - w))`.",
        ),
        solution=ditto_step,
        mistakes=(
            Mistake(pulled_by_itself, "v - v is zero: the rope is tied to the model itself, and λ does nothing. Tie it to w."),
            Mistake(gradient_of_global, "The gradient is taken at w. It is the *personal* model v that learns."),
            Mistake(pushed_away, "The rope pushes instead of pulling: its gradient is + λ (v - w)."),
            Mistake(rope_doubled, "The ½ in ½ λ ‖v - w‖² cancels the 2: the gradient is λ (v - w)."),
            Mistake(rope_halved, "The square brings a factor 2 that cancels the ½: the gradient is λ (v - w)."),
            Mistake(rope_without_rate, "The rope is part of the gradient: the learning rate applies to both."),
            Mistake(mixed_models, "A weighted mean of two models is another method. Take one gradient step."),
            Mistake(from_the_global, "The step starts at v, not at w."),
            Mistake(ditto_change, "That is the step. The new v is asked for."),
            Mistake(climbs, "Uphill: subtract."),
            Mistake(squared_distance, "That adds the penalty's value to every entry. Its *gradient* is asked for, λ (v - w)."),
            Mistake(pulled_to_zero, "That pulls to zero, as weight decay does. Ditto pulls to w."),
            Mistake(own_gradient_shrunk, "λ weighs the rope only; the client's own gradient counts in full."),
            Mistake(at_the_middle, "The gradient is taken half-way between the models. Take it at v."),
        ),
    ),
    Exercise(
        name="08.adapted_loss",
        title="An inner step, and an examination",
        difficulty=2,
        minutes=10,
        test=agrees_with(adapted_loss, draw_split),
        hints=(
            "Learn from the support set, be examined on the query set.",
            "The gradient of the mean of ½ (x·w - y)² is xᵀ(x w - y) / n.",
            "`adapted = w - alpha * gradient on support`; then half the mean square of `x @ adapted - y` on query.",
        ),
        solution=adapted_loss,
        mistakes=(
            Mistake(examined_on_support, "Examined on what it has just learnt: any overfitting looks good. Use the query set."),
            Mistake(learnt_from_query, "The examination questions were learnt beforehand. Learn from the support set."),
            Mistake(roles_swapped, "The roles are swapped: learn from support, examine on query."),
            Mistake(not_adapted, "That is the loss of w itself. First take a step on the support set."),
            Mistake(all_of_both, "You learn from both sets; the query set must not be seen before the examination."),
            Mistake(adapted_uphill, "Uphill: subtract the gradient."),
            Mistake(summed_gradient, "The loss is a *mean*: divide the gradient by the number of support examples."),
            Mistake(half_forgotten, "The loss has a ½."),
            Mistake(gradient_doubled, "With the ½ in the loss the gradient is xᵀ(x w - y) / n, without a 2."),
            Mistake(loss_summed, "The loss is a mean, not a sum."),
            Mistake(adapted_alone, "That is the adapted model. Its loss on the query set is asked for."),
            Mistake(adapted_twice, "One step is asked for."),
            Mistake(divided_by_support, "The query loss is a mean over the *query* examples."),
        ),
    ),
    Exercise(
        name="08.meta_gradient",
        title="First order against second order",
        difficulty=2,
        minutes=15,
        test=agrees_with(meta_gradient, draw_meta),
        hints=(
            "Both begin with the adapted model w - α·support(w), and ask for the query gradient there.",
            "The adapted model moves with w as I - α H(w), where H is the Hessian of the support loss at w.",
            "exact = first - α H(w) @ first, by the chain rule; first order leaves the second term out.",
        ),
        solution=meta_gradient,
        mistakes=(
            Mistake(at_the_start, "The query gradient is taken at w. Take it at the adapted model."),
            Mistake(support_again, "The adapted model is examined on the support set again: use `query` there."),
            Mistake(query_first, "The inner step is made with `query`. It belongs to the examination."),
            Mistake(hessian_after, "The Hessian belongs to the inner step, and that was made at w."),
            Mistake(curvature_added, "The sign: w ↦ w - α·support(w) has the derivative I *minus* α H."),
            Mistake(curvature_alone, "The derivative of w itself is missing: (I - α H) @ first."),
            Mistake(rate_forgotten, "The inner step has the rate α, and so has its Hessian."),
            Mistake(curvature_of_support_gradient, "The Hessian is applied to the *query* gradient at the adapted model."),
            Mistake(entry_by_entry, "The Hessian is a matrix: `hessian(w) @ first`. You used its diagonal only."),
            Mistake(exact_first, "First order comes first, then the exact one."),
            Mistake(first_alone, "Both are asked for: return (first order, exact)."),
            Mistake(exact_alone, "Both are asked for; this is the exact one only."),
            Mistake(same_twice, "The exact one has the Hessian's term as well."),
            Mistake(whole_walk, "The support gradient has served its purpose in the inner step; do not add it again."),
        ),
    ),
    Exercise(
        name="08.fair_report",
        title="A fair evaluation",
        difficulty=2,
        minutes=15,
        test=test_report,
        hints=(
            "Leave out clients without tests, in all three numbers.",
            "Each client counts once: the mean of the clients' accuracies, not all answers in one pot.",
            "The tenth has `max(1, clients with tests // 10)` clients; a client gains if right > alone.",
        ),
        solution=fair_report,
        mistakes=(
            Mistake(all_in_one_pot, "Clients with many tests count more here. Each client counts once."),
            Mistake(untested_fail, "A client without tests is not at 0 %: nobody knows. Leave it out everywhere."),
            Mistake(worst_one, "That is the worst client. The mean of the worst *tenth* is asked for."),
            Mistake(best_tenth, "These are the best. `np.sort` sorts upwards."),
            Mistake(tenth_percentile, "That is the border of the worst tenth. The mean of those below is asked for."),
            Mistake(draws_count, "A draw is no gain: strictly more right answers than alone."),
            Mistake(gains_of_everybody, "Clients without tests cannot gain or lose: leave them out of the share, too."),
            Mistake(gains_counted, "That is the number that gains. Their share of the clients with tests is asked for."),
            Mistake(who_loses, "That is the share that loses."),
            Mistake(mean_gain, "That is how much is gained on average. *How many* gain is asked for."),
            Mistake(tenth_of_all, "The tenth is one of the clients that have tests."),
            Mistake(median_client, "That is the median client; the mean is asked for."),
            Mistake(right_answers, "These are numbers of right answers. Divide by the client's own tests."),
            Mistake(in_percent, "Shares between 0 and 1 are asked for, not per cent."),
            Mistake(mean_alone, "A mean hides who was left behind: return all three."),
        ),
    ),
    Exercise(
        name="08.mended_anchor",
        title="What is wrong with this one? (A rope)",
        difficulty=3,
        minutes=15,
        test=test_anchor,
        hints=(
            "Print `theta - w` inside the loop of the broken one.",
            "How many models are there? `theta = w` gives one array a second name, and `-=` writes into it.",
            "Begin with `theta = w.copy()`.",
        ),
        solution=mended_anchor,
        mistakes=(
            Mistake(still_broken, "theta and w are one array under two names (also after `theta = w[:]`), so theta - w is zero."),
            Mistake(anchor_walks_along, "The anchor walks along with the model, so the rope is never taut. Anchor it at w."),
            Mistake(one_step_behind, "The anchor follows one step behind. It stays at w, as downloaded."),
            Mistake(rope_turned, "The rope pushes away: + λ (theta - w)."),
            Mistake(gradient_at_anchor, "The gradient is taken at w in every step. Take it at theta."),
            Mistake(from_zero, "The walk begins at w, not at zero."),
            Mistake(anchored_at_zero, "That pulls to zero. The anchor is w."),
            Mistake(pulled_once, "The rope pulls in every step, not once at the end."),
            Mistake(change_of_anchor, "That is the change. The personal model is asked for."),
            Mistake(twice_the_rope, "The gradient of ½ λ ‖θ - w‖² has no 2."),
            Mistake(single_step, "`steps` steps are asked for, not one."),
            Mistake(anchor_and_model, "Only the personal model is asked for; w is left as it is."),
        ),
    ),
    Exercise(
        name="08.mended_apfl",
        title="What is wrong with this one? (A mixture)",
        difficulty=3,
        minutes=15,
        test=agrees_with(mended_apfl, draw_apfl),
        hints=(
            "Which array does the broken one's second step write to, and who keeps that array?",
            "The gradient is taken at the mixture, and the step is made by v.",
            "By the chain rule v's gradient is α·gradient(mixed): `v - lr * alpha * gradient(mixed)`.",
        ),
        solution=mended_apfl,
        mistakes=(
            Mistake(apfl_still_broken, "That is the broken one: the step is made by a mixture that nobody keeps, and v stays."),
            Mistake(keeps_the_mixture, "v is replaced by the mixture, and a part of it is lost each round. Let v make the step."),
            Mistake(share_forgotten, "v enters the mixture with the share α, so its gradient has the factor α."),
            Mistake(trains_v_alone, "That trains v alone, without w. It is the mixture's loss that counts."),
            Mistake(trains_v_with_share, "The gradient is taken at v. Take it at the mixture α v + (1 - α) w."),
            Mistake(mixes_the_new, "Both steps begin at the old models: mix v with the old w."),
            Mistake(share_turned, "α is the share of v, and 1 - α that of w."),
            Mistake(w_learns_from_mixture, "w learns for all clients, from its own loss: w - lr·gradient(w)."),
            Mistake(w_left_alone, "w must learn, too: it is what travels."),
            Mistake(personal_first, "w comes first, then v."),
            Mistake(personal_alone, "Both are asked for: return (w, v)."),
            Mistake(follows_w, "v takes w's gradient. Take it at the mixture."),
            Mistake(hands_out_mixture, "The mixture is made when the client predicts. What is kept is v."),
            Mistake(climbs_mixed, "Uphill: subtract."),
        ),
    ),
)  # fmt: skip
