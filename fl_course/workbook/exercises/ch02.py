"""The exercises of chapter 2: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

import numpy as np

from fl_course.workbook.grading.checks import Exercise, Mistake, agrees_with

# --- 02.proximal_step ------------------------------------------------------------------------------------------------


def proximal_step(w, w_global, grad, lr, mu):
    """w, w_global, grad: (d,); lr, mu: numbers. Returns the new w, (d,)."""
    return w - lr * (grad + mu * (w - w_global))


def rope_pushes(w, w_global, grad, lr, mu):
    return w - lr * (grad - mu * (w - w_global))


def rope_to_zero(w, w_global, grad, lr, mu):
    return w - lr * (grad + mu * w)


def unsquared_norm(w, w_global, grad, lr, mu):
    return w - lr * (grad + mu / 2 * (w - w_global) / np.linalg.norm(w - w_global))


def twice_the_rope(w, w_global, grad, lr, mu):
    return w - lr * (grad + 2 * mu * (w - w_global))


def half_the_rope(w, w_global, grad, lr, mu):
    return w - lr * (grad + mu / 2 * (w - w_global))


def damped_step(w, w_global, grad, lr, mu):
    return w - lr * grad / (1 + mu)


def mu_outside_the_rate(w, w_global, grad, lr, mu):
    return w - lr * grad - mu * (w - w_global)


def objective_gradient(w, w_global, grad, lr, mu):
    return grad + mu * (w - w_global)


def rope_uphill(w, w_global, grad, lr, mu):
    return w + lr * (grad + mu * (w - w_global))


def from_the_broadcast(w, w_global, grad, lr, mu):
    return w_global - lr * (grad + mu * (w - w_global))


def changes_w(w, w_global, grad, lr, mu):
    w -= lr * (grad + mu * (w - w_global))
    return w


def adds_the_objective(w, w_global, grad, lr, mu):
    return w - lr * (grad + mu / 2 * np.sum((w - w_global) ** 2))


def rate_of_one(w, w_global, grad, lr, mu):
    return w - (grad + mu * (w - w_global))


def rope_after_the_step(w, w_global, grad, lr, mu):
    new = w - lr * grad
    return new - lr * mu * (new - w_global)


def length_of_the_rope(w, w_global, grad, lr, mu):
    return w - lr * (grad + mu * np.linalg.norm(w - w_global))


def draw_step(rng):
    return *rng.normal(size=(3, 4)), float(rng.uniform(0.05, 0.5)), float(rng.uniform(0.2, 2.0))


# --- 02.resting_points -----------------------------------------------------------------------------------------------


def resting_points(a, m, lr, steps, mu):
    """a, m: (clients, d), curvatures and minima. Returns two arrays (d,): rest of case 1, rest of case 2."""
    damped = 1 - (1 - lr * a) ** steps
    rope = (1 - (1 - lr * (a + mu)) ** steps) * a / (a + mu)
    return (damped * m).sum(0) / damped.sum(0), (rope * m).sum(0) / rope.sum(0)


def damped_moves(a, m, lr, steps, mu):
    first, second = resting_points(a, m, lr, steps, mu)
    return first / (1 + mu), second


def rope_without_pull(a, m, lr, steps, mu):
    rope = 1 - (1 - lr * (a + mu)) ** steps
    return resting_points(a, m, lr, steps, mu)[0], (rope * m).sum(0) / rope.sum(0)


def rest_at_the_optimum(a, m, lr, steps, mu):
    return resting_points(a, m, lr, steps, mu)[0], (a * m).sum(0) / a.sum(0)


def swapped(a, m, lr, steps, mu):
    return resting_points(a, m, lr, steps, mu)[::-1]


def mean_of_the_minima(a, m, lr, steps, mu):
    return m.mean(axis=0), resting_points(a, m, lr, steps, mu)[1]


def optimum_without_rope(a, m, lr, steps, mu):
    return (a * m).sum(0) / a.sum(0), resting_points(a, m, lr, steps, mu)[1]


def walk_without_rope(a, m, lr, steps, mu):
    rope = (1 - (1 - lr * a) ** steps) * a / (a + mu)
    return resting_points(a, m, lr, steps, mu)[0], (rope * m).sum(0) / rope.sum(0)


def what_is_left(a, m, lr, steps, mu):
    damped = (1 - lr * a) ** steps
    rope = (1 - lr * (a + mu)) ** steps * a / (a + mu)
    return (damped * m).sum(0) / damped.sum(0), (rope * m).sum(0) / rope.sum(0)


def twice_the_first(a, m, lr, steps, mu):
    first = resting_points(a, m, lr, steps, mu)[0]
    return first, first


def weights_not_shares(a, m, lr, steps, mu):
    damped = 1 - (1 - lr * a) ** steps
    rope = (1 - (1 - lr * (a + mu)) ** steps) * a / (a + mu)
    return (damped * m).mean(0), (rope * m).mean(0)


def endless_walk(a, m, lr, steps, mu):
    rope = a / (a + mu)
    return resting_points(a, m, lr, steps, mu)[0], (rope * m).sum(0) / rope.sum(0)


def axes_added(a, m, lr, steps, mu):
    damped = 1 - (1 - lr * a) ** steps
    rope = (1 - (1 - lr * (a + mu)) ** steps) * a / (a + mu)
    return (damped * m).sum() / damped.sum(), (rope * m).sum() / rope.sum()


def only_fedprox(a, m, lr, steps, mu):
    return resting_points(a, m, lr, steps, mu)[1]


def draw_bowls(rng):
    clients = int(rng.integers(2, 5))
    a, m = rng.uniform(0.2, 1.0, (clients, 2)), rng.normal(size=(clients, 2))
    return a, m, float(rng.uniform(0.1, 0.5)), int(rng.integers(3, 9)), float(rng.uniform(0.3, 1.5))


# --- 02.scaffold_client ----------------------------------------------------------------------------------------------


def scaffold_client(x, c, c_k, A, m, steps, lr):
    """x, c, c_k, m: (d,); A: (d, d). Returns the local model (d,) and the new c_k (d,)."""
    y = x
    for _ in range(steps):
        y = y - lr * (A @ (y - m) - c_k + c)
    return y, c_k - c + (x - y) / (steps * lr)


def controls_swapped(x, c, c_k, A, m, steps, lr):
    y = x
    for _ in range(steps):
        y = y - lr * (A @ (y - m) + c_k - c)
    return y, c_k - c + (x - y) / (steps * lr)


def way_backwards(x, c, c_k, A, m, steps, lr):
    y = scaffold_client(x, c, c_k, A, m, steps, lr)[0]
    return y, c_k - c + (y - x) / (steps * lr)


def lr_forgotten(x, c, c_k, A, m, steps, lr):
    y = scaffold_client(x, c, c_k, A, m, steps, lr)[0]
    return y, c_k - c + (x - y) / steps


def correction_kept(x, c, c_k, A, m, steps, lr):
    y = scaffold_client(x, c, c_k, A, m, steps, lr)[0]
    return y, (x - y) / (steps * lr)


def gradient_at_the_start(x, c, c_k, A, m, steps, lr):
    return scaffold_client(x, c, c_k, A, m, steps, lr)[0], A @ (x - m)


def steps_forgotten(x, c, c_k, A, m, steps, lr):
    y = scaffold_client(x, c, c_k, A, m, steps, lr)[0]
    return y, c_k - c + (x - y) / lr


def same_array(x, c, c_k, A, m, steps, lr):
    y = x
    for _ in range(steps):
        y -= lr * (A @ (y - m) - c_k + c)
    return y, c_k - c + (x - y) / (steps * lr)


def renewal_swapped(x, c, c_k, A, m, steps, lr):
    y = scaffold_client(x, c, c_k, A, m, steps, lr)[0]
    return y, c - c_k + (x - y) / (steps * lr)


def plain_walk(x, c, c_k, A, m, steps, lr):
    y = x
    for _ in range(steps):
        y = y - lr * A @ (y - m)
    return y, c_k - c + (x - y) / (steps * lr)


def change_of_control(x, c, c_k, A, m, steps, lr):
    y = scaffold_client(x, c, c_k, A, m, steps, lr)[0]
    return y, (x - y) / (steps * lr) - c


def change_of_model(x, c, c_k, A, m, steps, lr):
    y, new = scaffold_client(x, c, c_k, A, m, steps, lr)
    return y - x, new


def always_at_the_start(x, c, c_k, A, m, steps, lr):
    y = x - steps * lr * (A @ (x - m) - c_k + c)
    return y, c_k - c + (x - y) / (steps * lr)


def controls_outside_the_rate(x, c, c_k, A, m, steps, lr):
    y = x
    for _ in range(steps):
        y = y - lr * A @ (y - m) + c_k - c
    return y, c_k - c + (x - y) / (steps * lr)


def draw_client(rng):
    root = rng.normal(size=(3, 3)) / 2
    x, c, c_k, m = rng.normal(size=(4, 3))
    return x, c, c_k, root @ root.T + 0.2 * np.eye(3), m, int(rng.integers(2, 6)), float(rng.uniform(0.05, 0.3))


# --- 02.server_control -----------------------------------------------------------------------------------------------


def server_control(c, changes, clients):
    """c: (d,); changes: (n, d), one row for each client that came; clients: K ≥ n. Returns the new c, (d,)."""
    return c + np.sum(changes, axis=0) / clients


def mean_of_those_who_came(c, changes, clients):
    return c + np.mean(changes, axis=0)


def forgets_the_past(c, changes, clients):
    return np.sum(changes, axis=0) / clients


def plain_sum(c, changes, clients):
    return c + np.sum(changes, axis=0)


def divided_twice(c, changes, clients):
    return c + np.mean(changes, axis=0) / clients


def against_the_changes(c, changes, clients):
    return c - np.sum(changes, axis=0) / clients


def c_divided_too(c, changes, clients):
    return (c + np.sum(changes, axis=0)) / clients


def blended(c, changes, clients):
    return (1 - len(changes) / clients) * c + np.sum(changes, axis=0) / clients


def changes_c(c, changes, clients):
    c += np.sum(changes, axis=0) / clients
    return c


def numbers_added(c, changes, clients):
    return c + np.sum(changes) / clients


def mean_change(c, changes, clients):
    return np.mean(changes, axis=0)


def divided_by_the_absent(c, changes, clients):
    return c + np.sum(changes, axis=0) / (clients - len(changes))


def halfway_to_the_mean(c, changes, clients):
    return (c + np.mean(changes, axis=0)) / 2


def draw_changes(rng):
    came = int(rng.integers(2, 5))
    return rng.normal(size=3), rng.normal(size=(came, 3)), 2 * came + int(rng.integers(1, 9))  # never as many away as here


# --- 02.normalised_average -------------------------------------------------------------------------------------------


def normalised_average(w, deltas, steps, weights):
    """w: (d,); deltas: (n, d); steps: (n,) local steps; weights: (n,) examples. Returns the new w, (d,)."""
    p = np.asarray(weights) / np.sum(weights)
    per_step = deltas / np.asarray(steps)[:, None]
    return w + (p @ steps) * (p @ per_step)


def steps_ignored(w, deltas, steps, weights):
    return w + np.asarray(weights) / np.sum(weights) @ deltas


def one_step_only(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + p @ (deltas / np.asarray(steps)[:, None])


def unweighted_steps(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + np.mean(steps) * (p @ (deltas / np.asarray(steps)[:, None]))


def divided_by_all_steps(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + (p @ steps) * (p @ deltas) / np.sum(steps)


def as_in_the_lesson(w, deltas, steps, weights):
    return w + np.mean(steps) * (deltas / np.asarray(steps)[:, None]).mean(axis=0)


def direction_unweighted(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + (p @ steps) * (deltas / np.asarray(steps)[:, None]).mean(axis=0)


def change_only(w, deltas, steps, weights):
    return normalised_average(w, deltas, steps, weights) - w


def counts_not_shares(w, deltas, steps, weights):
    return w + (np.asarray(weights) @ steps) * (np.asarray(weights) @ (deltas / np.asarray(steps)[:, None]))


def direction_by_counts(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + (p @ steps) * (np.asarray(weights) @ (deltas / np.asarray(steps)[:, None]))


def everybodys_steps(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + np.sum(steps) * (p @ (deltas / np.asarray(steps)[:, None]))


def walks_back(w, deltas, steps, weights):
    return 2 * w - normalised_average(w, deltas, steps, weights)


def times_the_steps(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + p @ (deltas * np.asarray(steps)[:, None])


def mean_by_mean(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + (p @ deltas) / (p @ steps)


def across_the_rows(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + (p @ steps) * (p @ (deltas / np.asarray(steps)))


def longest_walk(w, deltas, steps, weights):
    p = np.asarray(weights) / np.sum(weights)
    return w + np.max(steps) * (p @ (deltas / np.asarray(steps)[:, None]))


def draw_deltas(rng):
    clients = int(rng.integers(2, 6))
    steps = rng.permutation(np.arange(1, 30))[:clients]
    return rng.normal(size=3), rng.normal(size=(clients, 3)), steps, rng.permutation(np.arange(5, 40))[:clients]


# --- 02.server_adam --------------------------------------------------------------------------------------------------


def server_adam(x, m, v, delta, lr, beta1, beta2, tau):
    """x, m, v, delta: (d,). Returns the new x, m and v, each (d,)."""
    m = beta1 * m + (1 - beta1) * delta
    v = beta2 * v + (1 - beta2) * delta**2
    return x + lr * m / (np.sqrt(v) + tau), m, v


def walks_uphill(x, m, v, delta, lr, beta1, beta2, tau):
    new, m, v = server_adam(x, m, v, delta, lr, beta1, beta2, tau)
    return 2 * x - new, m, v


def tau_inside_the_root(x, m, v, delta, lr, beta1, beta2, tau):
    m, v = server_adam(x, m, v, delta, lr, beta1, beta2, tau)[1:]
    return x + lr * m / np.sqrt(v + tau), m, v


def no_root(x, m, v, delta, lr, beta1, beta2, tau):
    m, v = server_adam(x, m, v, delta, lr, beta1, beta2, tau)[1:]
    return x + lr * m / (v + tau), m, v


def follows_the_delta(x, m, v, delta, lr, beta1, beta2, tau):
    m, v = server_adam(x, m, v, delta, lr, beta1, beta2, tau)[1:]
    return x + lr * delta / (np.sqrt(v) + tau), m, v


def old_moments(x, m, v, delta, lr, beta1, beta2, tau):
    return x + lr * m / (np.sqrt(v) + tau), *server_adam(x, m, v, delta, lr, beta1, beta2, tau)[1:]


def corrected_for_bias(x, m, v, delta, lr, beta1, beta2, tau):
    m, v = server_adam(x, m, v, delta, lr, beta1, beta2, tau)[1:]
    return x + lr * m / (1 - beta1) / (np.sqrt(v / (1 - beta2)) + tau), m, v


def corrected_and_kept(x, m, v, delta, lr, beta1, beta2, tau):
    m, v = server_adam(x, m, v, delta, lr, beta1, beta2, tau)[1:]
    m, v = m / (1 - beta1), v / (1 - beta2)
    return x + lr * m / (np.sqrt(v) + tau), m, v


def betas_turned(x, m, v, delta, lr, beta1, beta2, tau):
    return server_adam(x, m, v, delta, lr, 1 - beta1, 1 - beta2, tau)


def not_squared(x, m, v, delta, lr, beta1, beta2, tau):
    m = beta1 * m + (1 - beta1) * delta
    v = beta2 * v + (1 - beta2) * delta
    with np.errstate(invalid="ignore"):
        return x + lr * m / (np.sqrt(v) + tau), m, v


def square_of_the_mean(x, m, v, delta, lr, beta1, beta2, tau):
    m = beta1 * m + (1 - beta1) * delta
    v = beta2 * v + (1 - beta2) * m**2
    return x + lr * m / (np.sqrt(v) + tau), m, v


def tau_forgotten(x, m, v, delta, lr, beta1, beta2, tau):
    return server_adam(x, m, v, delta, lr, beta1, beta2, 0.0)


def as_momentum(x, m, v, delta, lr, beta1, beta2, tau):
    m, v = beta1 * m + delta, beta2 * v + (1 - beta2) * delta**2
    return x + lr * m / (np.sqrt(v) + tau), m, v


def model_only(x, m, v, delta, lr, beta1, beta2, tau):
    return server_adam(x, m, v, delta, lr, beta1, beta2, tau)[0]


def one_beta(x, m, v, delta, lr, beta1, beta2, tau):
    return server_adam(x, m, v, delta, lr, beta1, beta1, tau)


def moments_in_the_wrong_order(x, m, v, delta, lr, beta1, beta2, tau):
    x, m, v = server_adam(x, m, v, delta, lr, beta1, beta2, tau)
    return x, v, m


def changes_x(x, m, v, delta, lr, beta1, beta2, tau):
    new, m, v = server_adam(x, m, v, delta, lr, beta1, beta2, tau)
    x[:] = new
    return x, m, v


def draw_moments(rng):
    x, m, delta = rng.normal(size=(3, 4))
    lr, beta1, beta2, tau = rng.uniform((0.05, 0.55, 0.8, 0.05), (0.9, 0.75, 0.95, 0.3)).tolist()
    return x, m, rng.uniform(0.1, 1.0, 4), delta, lr, beta1, beta2, tau


# --- 02.mended_feddyn ------------------------------------------------------------------------------------------------


def mended_feddyn(w, h, h_k, A, m, alpha, steps, lr):
    """w, h: (d,); h_k, m: (clients, d); A: (clients, d, d). Returns the new w, h and h_k."""
    local = np.tile(w, (len(m), 1))
    for k in range(len(m)):
        for _ in range(steps):
            local[k] = local[k] - lr * (A[k] @ (local[k] - m[k]) - h_k[k] + alpha * (local[k] - w))
    h_k = h_k - alpha * (local - w)
    h = h - alpha * (local - w).mean(axis=0)
    return local.mean(axis=0) - h / alpha, h, h_k


def _feddyn(w, h, h_k, A, m, alpha, steps, lr, memory=1.0, rope=1.0, client=1.0, server=1.0, out=1.0):
    """One round with the sign of each term to choose."""
    local = np.tile(w, (len(m), 1))
    for k in range(len(m)):
        for _ in range(steps):
            local[k] = local[k] - lr * (A[k] @ (local[k] - m[k]) - memory * h_k[k] + rope * alpha * (local[k] - w))
    h_k = h_k - client * alpha * (local - w)
    h = h - server * alpha * (local - w).mean(axis=0)
    return local.mean(axis=0) - out * h / alpha, h, h_k


def as_it_was(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, client=-1)


def local_memory_flipped(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, memory=-1, client=-1)


def rope_flipped(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, rope=-1, client=-1)


def server_flipped(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, client=-1, server=-1)


def output_flipped(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, client=-1, out=-1)


def server_turned_too(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, server=-1)


def local_turned_too(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, memory=-1)


def output_turned_too(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, out=-1)


def rope_turned_too(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, rope=-1)


def moves_added_up(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, server=len(m))


def alpha_forgotten(w, h, h_k, A, m, alpha, steps, lr):
    return _feddyn(w, h, h_k, A, m, alpha, steps, lr, client=1 / alpha, server=1 / alpha)


def memories_overwritten(w, h, h_k, A, m, alpha, steps, lr):
    new, mean, rows = mended_feddyn(w, h, h_k, A, m, alpha, steps, lr)
    h[:], h_k[:] = mean, rows
    return new, h, h_k


def gradient_at_the_end(w, h, h_k, A, m, alpha, steps, lr):
    new, mean, rows = mended_feddyn(w, h, h_k, A, m, alpha, steps, lr)
    local = w - (rows - h_k) / alpha
    return new, mean, np.stack([A[k] @ (local[k] - m[k]) for k in range(len(m))])


def old_memory_sent(w, h, h_k, A, m, alpha, steps, lr):
    new, mean, rows = mended_feddyn(w, h, h_k, A, m, alpha, steps, lr)
    return new + (mean - h) / alpha, mean, rows


def draw_feddyn(rng):
    clients = int(rng.integers(2, 4))
    root = rng.normal(size=(clients, 2, 2)) / 2
    A, h_k = root @ root.transpose(0, 2, 1) + 0.2 * np.eye(2), rng.normal(size=(clients, 2))
    alpha, steps, lr = float(rng.uniform(0.3, 0.8)), int(rng.integers(2, 6)), float(rng.uniform(0.1, 0.3))
    return rng.normal(size=2), h_k.mean(axis=0), h_k, A, rng.normal(size=(clients, 2)), alpha, steps, lr


EXERCISES = (
    Exercise(
        name="02.proximal_step", title="The proximal gradient", difficulty=1, minutes=10,
        test=agrees_with(proximal_step, draw_step), solution=proximal_step,
        hints=("Write down the objective: L(w) + mu/2·‖w - w_global‖². What is the gradient of the second part?",
               "The gradient of ½‖w - w_global‖² by w is w - w_global.",
               "w - lr * (grad + …): the new term stands inside the bracket, beside the gradient."),
        mistakes=(
            Mistake(rope_pushes, "The rope pushes away from the broadcast model: the new term is *added* to the gradient."),
            Mistake(rope_to_zero, "That pulls towards zero (weight decay). The rope leads to the broadcast model."),
            Mistake(unsquared_norm, "That is the gradient of the norm itself; FedProx squares it, so that the pull grows with "
                                    "the distance."),
            Mistake(twice_the_rope, "The rope is too strong by 2: the objective has mu/2, and the square brings the 2 back."),
            Mistake(half_the_rope, "The rope is too weak by 2: the square's factor 2 cancels the 1/2 of mu/2."),
            Mistake(mu_outside_the_rate, "The learning rate multiplies the rope's part too: mu stands inside the bracket."),
            Mistake(objective_gradient, "That is the gradient of FedProx's objective. Step against it: return the new w."),
            Mistake(rope_uphill, "You go uphill: subtract lr times the gradient."),
            Mistake(from_the_broadcast, "The step starts where the client stands, at w. w_global is only the rope's other end."),
            Mistake(changes_w, "`w -= …` writes into the caller's array, perhaps the broadcast model itself: `w = w - …`."),
            Mistake(adds_the_objective, "You add the *value* of the rope's term, one number. Add its gradient, a vector (d,)."),
            Mistake(rate_of_one, "The learning rate is not used."),
            Mistake(rope_after_the_step, "Your rope pulls from where the plain step ended. Take both gradients at the same w."),
            Mistake(length_of_the_rope, "A norm has no direction: the rope pulls along the vector w - w_global."),
            Mistake(damped_step, "Dividing by 1 + mu only shortens the step. Where the gradient is zero nothing would move, "
                                 "but FedProx still pulls back."),
        ),
    ),
    Exercise(
        name="02.resting_points", title="Why dividing the average by 1 + μ is not FedProx", difficulty=4, minutes=30,
        test=agrees_with(resting_points, draw_bowls), solution=resting_points,
        hints=("At rest the mean of the clients' moves is zero. If that mean is divided by 1 + mu, when is it zero?",
               "Without a rope client k moves by -M·(x - m_k), M = 1 - (1 - lr·a_k)^steps; at rest x = Σ M·m_k / Σ M.",
               "With the rope the curvature is a + mu, and the walk leads from x towards x - a/(a + mu)·(x - m): so "
               "M = (1 - (1 - lr·(a + mu))^steps)·a/(a + mu)."),
        mistakes=(
            Mistake(damped_moves, "The division shrinks each *move*, not the resting point: a move of zero stays zero."),
            Mistake(rope_without_pull, "With a rope the walk does not lead to m but to the minimum of the client's own bowl "
                                       "and the rope together: the factor a/(a + mu) is missing."),
            Mistake(rest_at_the_optimum, "FedProx comes nearer to the optimum but does not reach it: its M is not "
                                         "proportional to a."),
            Mistake(mean_of_the_minima, "FedAvg rests at the mean of the minima only after endless walks. Here: `steps` steps."),
            Mistake(optimum_without_rope, "FedAvg misses the optimum as soon as steps > 1: M = 1 - (1 - lr·a)^steps, not a."),
            Mistake(walk_without_rope, "The walk itself feels the rope too: each step shrinks by 1 - lr·(a + mu)."),
            Mistake(what_is_left, "(1 - lr·a)^steps is the distance that is *left*. What was walked is 1 minus that."),
            Mistake(twice_the_first, "The first is right. The rope acts in every step, and that does move the resting point."),
            Mistake(weights_not_shares, "The mean of M·m is not yet a place: divide Σ M·m by Σ M."),
            Mistake(endless_walk, "That is FedProx after endless walks. With `steps` steps, 1 - (1 - lr·(a + mu))^steps too."),
            Mistake(axes_added, "Every axis for itself: add up over the clients only, axis 0."),
            Mistake(only_fedprox, "Two places are asked: the divided average first, then FedProx."),
            Mistake(swapped, "Both are right, in the wrong order: first the divided average, then FedProx."),
        ),
    ),
    Exercise(
        name="02.scaffold_client", title="Control variates at the client", difficulty=3, minutes=20,
        test=agrees_with(scaffold_client, draw_client), solution=scaffold_client,
        hints=("Each step goes down the gradient, minus what this client always says, plus what everybody says.",
               "y ← y - lr·(g(y) - c_k + c). Afterwards: what was the mean *plain* gradient on the way?",
               "The way walked is x - y = lr·Σ(g - c_k + c); solve it for the mean of g."),
        mistakes=(
            Mistake(controls_swapped, "The controls have changed places: take out the client's own c_k, put in c."),
            Mistake(way_backwards, "The gradient points against the way: x - y, not y - x."),
            Mistake(lr_forgotten, "A way is not a gradient: divide by the learning rate too."),
            Mistake(correction_kept, "The steps held the correction -c_k + c as well; take it out again to get the client's "
                                     "own gradient."),
            Mistake(steps_forgotten, "The way is the sum of all steps; a *mean* gradient is asked: divide by `steps` too."),
            Mistake(same_array, "After `y = x` both are one array, and `y -= …` moves x too. Use `y = y - …`."),
            Mistake(renewal_swapped, "The steps held -c_k + c. To take that out of their mean, add c_k and subtract c."),
            Mistake(plain_walk, "These are FedAvg's steps. The controls correct every step: gradient - c_k + c."),
            Mistake(change_of_control, "That is how much the control changed, which is what is sent. Return the new c_k itself."),
            Mistake(change_of_model, "y - x is the change. Return the local model y."),
            Mistake(always_at_the_start, "All your gradients are taken at x. Each step takes its own where it stands, at y."),
            Mistake(controls_outside_the_rate, "The controls are gradients: the learning rate multiplies them too."),
            Mistake(gradient_at_the_start, "That is option I, the gradient at the broadcast model. Option II is asked: the "
                                           "mean of the gradients on the way."),
        ),
    ),
    Exercise(
        name="02.server_control", title="Control variates at the server", difficulty=2, minutes=10,
        test=agrees_with(server_control, draw_changes), solution=server_control,
        hints=("c is the mean of c_k over *all* clients, whoever took part.",
               "Those who did not come did not change: their change is 0.",
               "Add the sum of the changes, divided by the number of all clients."),
        mistakes=(
            Mistake(mean_of_those_who_came, "Divide by all clients, not by those who came: otherwise c is no longer the mean "
                                            "of the c_k, and the corrections do not cancel."),
            Mistake(forgets_the_past, "The changes are changes: add them to the c that the server has."),
            Mistake(divided_twice, "You divide twice, by those who came and by all. The *sum* of the changes, divided by all."),
            Mistake(against_the_changes, "The sign is turned: a control that grew by a change makes the mean grow."),
            Mistake(c_divided_too, "c is a mean already. Only the sum of the changes is divided by all clients."),
            Mistake(blended, "You let c fade, as if the rows were new controls. They are *changes*: c stays whole."),
            Mistake(changes_c, "`c += …` writes into the caller's array. Make a new one: `c + …`."),
            Mistake(numbers_added, "You add up over the d numbers as well. Add up over the clients: axis 0."),
            Mistake(mean_change, "Two things: the server's old c is lost, and all clients count, not only those who came."),
            Mistake(divided_by_the_absent, "You divide by those who stayed away. c is the mean over *all* clients."),
            Mistake(halfway_to_the_mean, "The mean of a control and a *change* is neither. Add the changes, 1/K each."),
            Mistake(plain_sum, "c is a mean, so the changes count 1/K each."),
        ),
    ),
    Exercise(
        name="02.normalised_average", title="Normalised averaging (FedNova)", difficulty=2, minutes=15,
        test=agrees_with(normalised_average, draw_deltas), solution=normalised_average,
        hints=("First make the changes comparable: how far did each client go *per step*?",
               "Average these with the weights p_k = n_k/n, then walk as many steps as the clients did on average.",
               "The average number of steps carries the same weights: Σ p_k·τ_k."),
        mistakes=(
            Mistake(steps_ignored, "This is FedAvg: whoever took more steps counts more."),
            Mistake(one_step_only, "The direction is right, but the server walks one step only; walk Σ p_k·τ_k steps."),
            Mistake(unweighted_steps, "The mean number of steps must carry the weights p_k too."),
            Mistake(as_in_the_lesson, "In the lesson's example all weigh alike. Here both means carry the weights p_k."),
            Mistake(direction_unweighted, "The mean change per step must carry the weights p_k too."),
            Mistake(change_only, "That is the change. Return the new model: add it to w."),
            Mistake(counts_not_shares, "The weights must add up to 1: p_k = n_k/n, in both means."),
            Mistake(direction_by_counts, "The changes per step are weighted by n_k; weigh them by the shares p_k = n_k/n."),
            Mistake(everybodys_steps, "You walk as many steps as all clients together. Walk their *mean* number, Σ p_k·τ_k."),
            Mistake(walks_back, "The sign is turned: deltas are added to the model."),
            Mistake(times_the_steps, "You multiply by the steps. A change *per step* is the change divided by them."),
            Mistake(mean_by_mean, "You divide the mean change by the mean number of steps. Divide each client's by its own."),
            Mistake(across_the_rows, "`deltas / steps` divides columns. One number a *row* is `steps[:, None]`, shape (n, 1)."),
            Mistake(longest_walk, "You walk as far as the busiest client. Walk the mean number of steps, Σ p_k·τ_k."),
            Mistake(divided_by_all_steps, "Divide each client's change by its own number of steps, before averaging."),
        ),
    ),
    Exercise(
        name="02.server_adam", title="Adam at the server", difficulty=2, minutes=15,
        test=agrees_with(server_adam, draw_moments), solution=server_adam,
        hints=("The mean delta takes the place of the gradient, but it already points downhill.",
               "m: running mean of delta; v: running mean of delta²; both are renewed before the step.",
               "x + lr·m/(√v + tau), without a bias correction."),
        mistakes=(
            Mistake(walks_uphill, "delta = local - broadcast already points downhill: add it."),
            Mistake(tau_inside_the_root, "Here tau stands outside the root: √v + tau."),
            Mistake(no_root, "v is a square; take its root."),
            Mistake(follows_the_delta, "The step follows the running mean m, not the newest delta."),
            Mistake(corrected_for_bias, "That is Adam's bias correction, m/(1 - β₁) and v/(1 - β₂). Algorithm 2 leaves it out."),
            Mistake(corrected_and_kept, "The moments are divided by 1 - β, Adam's bias correction. Algorithm 2 leaves it out."),
            Mistake(betas_turned, "The betas are turned round: β goes with the *old* moment, 1 - β with what is new."),
            Mistake(not_squared, "v is the running mean of delta *squared*."),
            Mistake(square_of_the_mean, "v takes the square of delta itself, not of the running mean m."),
            Mistake(tau_forgotten, "tau is missing: the step is divided by √v + tau."),
            Mistake(as_momentum, "That is momentum's m = β·m + delta. Adam's m is a running mean: delta counts 1 - β₁."),
            Mistake(model_only, "The server needs its memory in the next round: return x, m and v."),
            Mistake(one_beta, "v has a β of its own: beta2."),
            Mistake(moments_in_the_wrong_order, "Everything is right but the order: x, m, v."),
            Mistake(changes_x, "`x += …` writes into the caller's array. Make a new one: `x = x + …`."),
            Mistake(old_moments, "Renew m and v first, then step with the new ones."),
        ),
    ),
    Exercise(
        name="02.mended_feddyn", title="Find the sign error", difficulty=3, minutes=20,
        test=agrees_with(mended_feddyn, draw_feddyn), solution=mended_feddyn,
        hints=("One sign is wrong. At the optimum every h_k must equal the client's own gradient there.",
               "At rest after long training g - h_k + alpha·(local - w) = 0: which new h_k makes g - h_k = 0 without the rope?",
               "h must stay the mean of all h_k. Compare the two lines that renew them."),
        mistakes=(
            Mistake(as_it_was, "That is still the broken round. Print h and the mean of h_k side by side."),
            Mistake(local_memory_flipped, "The local step was right: h_k is taken *out* of the gradient. Another line is wrong."),
            Mistake(rope_flipped, "The rope was right: it pulls back to the broadcast model. Another line is wrong."),
            Mistake(server_flipped, "Now h and the mean of h_k agree, but both are wrong: the optimum is no resting point."),
            Mistake(server_turned_too, "h_k is mended. The line of h was right before: it must stay the mean of all h_k."),
            Mistake(local_turned_too, "The renewal is mended, but the local step was right before: h_k is taken *out* of it."),
            Mistake(output_turned_too, "h_k is mended. The last line was right before: the mean model *minus* h/alpha."),
            Mistake(rope_turned_too, "h_k is mended. The rope was right before: it pulls *back* to the broadcast model."),
            Mistake(moves_added_up, "h_k is mended. h was right before: it moves by the *mean* of the changes."),
            Mistake(alpha_forgotten, "The sign is right; the memories change by alpha times the move."),
            Mistake(memories_overwritten, "Right, but `-=` writes into the caller's arrays. Make new ones: `h_k = h_k - …`."),
            Mistake(gradient_at_the_end, "That h_k is the gradient itself, which FedDyn reaches only after a long walk. One sign "
                                         "is enough."),
            Mistake(old_memory_sent, "h is renewed first, and the *new* h goes into the model that is sent."),
            Mistake(output_flipped, "The last line was right: the server sends out the mean model *minus* h/alpha."),
        ),
    ),
)
