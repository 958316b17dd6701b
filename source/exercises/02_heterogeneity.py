# %% [markdown]
# # Exercises 2 · Heterogeneity and client drift
#
# Seven functions, from ten minutes to half an hour. Write each in its cell; the cell below it answers at once, offline, on fresh
# random inputs. Stuck? `hint("02.proximal_step")` gives one step more at each call, three steps; `reveal(…)`, called twice, shows
# a solution. No exercise needs the answer of another.

# %%
import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% [markdown] tags=["exercise"]
# ## 2.1 The proximal gradient
# *Difficulty 1 of 5 · 10 minutes.* One local step of FedProx. The client minimises
# $L(w) + \frac{\mu}{2}\|w - w_\text{global}\|^2$, and `grad` is the gradient of $L$ at `w`.

# %% tags=["exercise"]
def proximal_step(w, w_global, grad, lr, mu):
    """w, w_global, grad: (d,); lr, mu: numbers. Returns the new w, (d,)."""
    ### BEGIN SOLUTION
    return w - lr * (grad + mu * (w - w_global))
    ### END SOLUTION

# %% tags=["check"]
check("02.proximal_step", proximal_step)

# %% [markdown] tags=["exercise"]
# ## 2.2 Why dividing the average by 1 + μ is not FedProx
# *Difficulty 4 of 5 · 30 minutes, with pencil and paper.* Client k's loss is a bowl along the axes: $L_k(w) = \frac12 \sum_i a_{ki} (w_i - m_{ki})^2$.
# Everything happens axis by axis. All clients take `steps` gradient steps and count alike. Where does the federation come to rest
# 1. if the clients run plain FedAvg and the server divides the average *change* by $1+\mu$;
# 2. if the clients run FedProx with this $\mu$ and the server averages?
#
# Both have a closed form. Compare them when you are done: one does not depend on μ.

# %% tags=["exercise"]
def resting_points(a, m, lr, steps, mu):
    """a, m: (clients, d), curvatures and minima. Returns two arrays (d,): rest of case 1, rest of case 2."""
    ### BEGIN SOLUTION
    damped = 1 - (1 - lr * a) ** steps
    rope = (1 - (1 - lr * (a + mu)) ** steps) * a / (a + mu)
    return (damped * m).sum(0) / damped.sum(0), (rope * m).sum(0) / rope.sum(0)
    ### END SOLUTION

# %% tags=["check"]
check("02.resting_points", resting_points)

# %% [markdown] tags=["exercise"]
# ## 2.3 Control variates at the client
# *Difficulty 3 of 5 · 20 minutes.* One client's round of SCAFFOLD, option II. The client's gradient at `y` is `A @ (y - m)`. Walk `steps`
# corrected steps from the broadcast model `x`; then renew the client's control to the mean of its own gradients on the way, using
# only the way that was walked.

# %% tags=["exercise"]
def scaffold_client(x, c, c_k, A, m, steps, lr):
    """x, c, c_k, m: (d,); A: (d, d). Returns the local model (d,) and the new c_k (d,)."""
    ### BEGIN SOLUTION
    y = x
    for _ in range(steps):
        y = y - lr * (A @ (y - m) - c_k + c)
    return y, c_k - c + (x - y) / (steps * lr)
    ### END SOLUTION

# %% tags=["check"]
check("02.scaffold_client", scaffold_client)

# %% [markdown] tags=["exercise"]
# ## 2.4 Control variates at the server
# *Difficulty 2 of 5 · 10 minutes.* `c` is the mean of the controls of all `clients`. This round only some of them came, and sent how their
# controls changed. What is `c` now?

# %% tags=["exercise"]
def server_control(c, changes, clients):
    """c: (d,); changes: (n, d), one row for each client that came; clients: K ≥ n. Returns the new c, (d,)."""
    ### BEGIN SOLUTION
    return c + np.sum(changes, axis=0) / clients
    ### END SOLUTION

# %% tags=["check"]
check("02.server_control", server_control)

# %% [markdown] tags=["exercise"]
# ## 2.5 Normalised averaging
# *Difficulty 2 of 5 · 15 minutes.* The server's step of FedNova: average the change *per step* with the weights $p_k = n_k/n$, and walk the
# average number of steps.

# %% tags=["exercise"]
def normalised_average(w, deltas, steps, weights):
    """w: (d,); deltas: (n, d); steps: (n,) local steps; weights: (n,) examples. Returns the new w, (d,)."""
    ### BEGIN SOLUTION
    p = np.asarray(weights) / np.sum(weights)
    per_step = deltas / np.asarray(steps)[:, None]
    return w + (p @ steps) * (p @ per_step)
    ### END SOLUTION

# %% tags=["check"]
check("02.normalised_average", normalised_average)

# %% [markdown] tags=["exercise"]
# ## 2.6 Adam at the server
# *Difficulty 2 of 5 · 15 minutes.* One server step as in Reddi et al. (2021), algorithm 2: no bias correction, τ outside the root. `delta` is
# the mean of local − broadcast.

# %% tags=["exercise"]
def server_adam(x, m, v, delta, lr, beta1, beta2, tau):
    """x, m, v, delta: (d,). Returns the new x, m and v, each (d,)."""
    ### BEGIN SOLUTION
    m = beta1 * m + (1 - beta1) * delta
    v = beta2 * v + (1 - beta2) * delta**2
    return x + lr * m / (np.sqrt(v) + tau), m, v
    ### END SOLUTION

# %% tags=["check"]
check("02.server_adam", server_adam)

# %% [markdown] tags=["exercise"]
# ## 2.7 Find the sign error
# *Difficulty 3 of 5 · 20 minutes.* A colleague wrote a round of FedDyn. The client minimises
# $L_k(w) - \langle h_k, w\rangle + \frac{\alpha}{2}\|w-w_\text{global}\|^2$, and at rest $h_k$ must be its own gradient. One sign is wrong:
# the federation never finds the optimum. Run it, find the sign, and write the mended round below.

# %%
def broken_feddyn(w, h, h_k, A, m, alpha, steps, lr):
    local = np.tile(w, (len(m), 1))                                   # one row a client
    for k in range(len(m)):
        for _ in range(steps):
            local[k] = local[k] - lr * (A[k] @ (local[k] - m[k]) - h_k[k] + alpha * (local[k] - w))
    h_k = h_k + alpha * (local - w)
    h = h - alpha * (local - w).mean(axis=0)
    return local.mean(axis=0) - h / alpha, h, h_k


A, m = np.array([np.diag([0.2, 1.0]), np.diag([1.0, 0.2])]), np.array([[-2.0, -1.0], [2.0, 1.0]])
w, h, h_k = np.zeros(2), np.zeros(2), np.zeros((2, 2))
for _ in range(8):
    w, h, h_k = broken_feddyn(w, h, h_k, A, m, alpha=0.5, steps=3, lr=0.2)
print("after 8 rounds:", w.round(2), " the optimum:", np.linalg.solve(A.sum(0), A[0] @ m[0] + A[1] @ m[1]).round(2))

# %% tags=["exercise"]
def mended_feddyn(w, h, h_k, A, m, alpha, steps, lr):
    """w, h: (d,); h_k, m: (clients, d); A: (clients, d, d). Returns the new w, h and h_k."""
    ### BEGIN SOLUTION
    local = np.tile(w, (len(m), 1))
    for k in range(len(m)):
        for _ in range(steps):
            local[k] = local[k] - lr * (A[k] @ (local[k] - m[k]) - h_k[k] + alpha * (local[k] - w))
    h_k = h_k - alpha * (local - w)
    h = h - alpha * (local - w).mean(axis=0)
    return local.mean(axis=0) - h / alpha, h, h_k
    ### END SOLUTION

# %% tags=["check"]
check("02.mended_feddyn", mended_feddyn)

# %% [markdown]
# ## An evening: your own method
# *Not checked by machine.* A correction is a frozen dataclass with two short methods. Write one that mixes FedProx and SCAFFOLD
# (a rope *and* controls), run it on `two_bowls(4.0)`, and find out where it rests and how fast it gets there. Start from
# `fl_course/drift/methods.py`.

# %%
progress()
