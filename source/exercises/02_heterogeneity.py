# %% [markdown]
# # Exercises 2 · Heterogeneity and client drift
#
# Seven functions, from ten minutes to half an hour. Write each in its cell; the cell below it answers at once, offline, on fresh
# random inputs. Stuck? `hint("02.proximal_step")` gives one step more at each call, three steps; `reveal(…)`, called twice, shows
# a solution. No exercise needs the answer of another.

# %%
import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% exercise 02.proximal_step [markdown]
# One local step of FedProx. The client minimises
# $L(w) + \frac{\mu}{2}\|w - w_\text{global}\|^2$, and `grad` is the gradient of $L$ at `w`. Return the new `w`, and leave the old one
# as it is: it may be the broadcast model, which the server still needs.

# %% exercise 02.resting_points [markdown]
# With pencil and paper. Client k's loss is a bowl along the axes: $L_k(w) = \frac12 \sum_i a_{ki} (w_i - m_{ki})^2$.
# Everything happens axis by axis. All clients take `steps` gradient steps and count alike. Where does the federation come to rest
# 1. if the clients run plain FedAvg and the server divides the average *change* by $1+\mu$;
# 2. if the clients run FedProx with this $\mu$ and the server averages?
#
# Both have a closed form; the lesson's section "Where does FedAvg stop?" has the one without μ. Along an axis a gradient step on a
# bowl of curvature $a$ shrinks the distance to its minimum by the factor $1-\eta a$. With the rope the client's bowl is another
# one: what is its curvature, and where is its minimum? Compare the two places when you are done: one does not depend on μ.

# %% exercise 02.scaffold_client [markdown]
# One client's round of SCAFFOLD, option II. The client's gradient at `y` is `A @ (y - m)`. Walk `steps`
# corrected steps $y \leftarrow y - \eta\,(g(y) - c_k + c)$ from the broadcast model `x`; then renew the client's control to the mean
# of its own (uncorrected) gradients on the way. It can be read off the way that was walked, without computing a gradient again.

# %% exercise 02.server_control [markdown]
# `c` is the mean of the controls of all clients; `clients` is their number. This round only some of them
# came, and sent how their controls changed (new minus old); the others keep theirs. What is `c` now? The lesson's two clients came
# every time; this is what is left to do when they do not.

# %% exercise 02.normalised_average [markdown]
# The server's step of FedNova: average the change *per step* with the weights $p_k = n_k/n$, and walk the
# average number of steps, with the same weights: $\sum_k p_k \tau_k$. (In the lesson both clients weighed alike.) Client $k$ took
# $\tau_k$ = `steps[k]` steps, has $n_k$ = `weights[k]` examples and sent `deltas[k]` = local − broadcast.

# %% exercise 02.server_adam [markdown]
# One server step of FedAdam as in Reddi et al. (2021), algorithm 2, and in the lesson. With `delta`, the mean
# of local − broadcast, in the place of the gradient,
#
# $$m \leftarrow \beta_1 m + (1-\beta_1)\bar\Delta, \quad v \leftarrow \beta_2 v + (1-\beta_2)\bar\Delta^2, \quad
# x \leftarrow x + \eta_s\, m / (\sqrt v + \tau),$$
#
# coordinate by coordinate, with the *new* $m$ and $v$. If you know Adam from elsewhere, two things differ: there is no bias
# correction (nothing is divided by $1-\beta^t$), and the sign is +, because the mean change already points downhill.

# %% exercise 02.mended_feddyn [markdown]
# A colleague wrote a round of FedDyn. The client minimises
# $L_k(w) - \langle h_k, w\rangle + \frac{\alpha}{2}\|w-w_\text{global}\|^2$, and at rest $h_k$ must be its own gradient. One sign is wrong:
# the federation never finds the optimum, and nothing raises an error. What must hold is known, though: `h` is
# the mean of all `h_k`, in every round. Run it, find the sign, and write the mended round below (change no argument in place).

# %% tags=["given"]
def broken_feddyn(w, h, h_k, A, m, alpha, steps, lr):
    local = np.tile(w, (len(m), 1))                                   # one row a client
    for k in range(len(m)):
        for _ in range(steps):
            gradient = A[k] @ (local[k] - m[k])
            local[k] = local[k] - lr * (gradient - h_k[k] + alpha * (local[k] - w))
    h_k = h_k + alpha * (local - w)
    h = h - alpha * (local - w).mean(axis=0)
    return local.mean(axis=0) - h / alpha, h, h_k


A = np.array([np.diag([0.2, 1.0]), np.diag([1.0, 0.2])])
m = np.array([[-2.0, -1.0], [2.0, 1.0]])
w, h, h_k = np.zeros(2), np.zeros(2), np.zeros((2, 2))
for _ in range(8):
    w, h, h_k = broken_feddyn(w, h, h_k, A, m, alpha=0.5, steps=3, lr=0.2)
optimum = np.linalg.solve(A.sum(axis=0), A[0] @ m[0] + A[1] @ m[1])
print("after 8 rounds:", w.round(2), " the optimum:", optimum.round(2))

# %% [markdown]
# ## An evening: your own method
# *Not checked by machine.* A correction is a frozen dataclass with two short methods. Write one that mixes FedProx and SCAFFOLD
# (a rope *and* controls), run it on `two_bowls(4.0)`, and find out where it rests and how fast it gets there. Start from
# `fl_course/drift/methods.py`.

# %%
progress()
