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
# $L(w) + \frac{\mu}{2}\|w - w_\text{global}\|^2$, and `grad` is the gradient of $L$ at `w`.

# %% exercise 02.resting_points [markdown]
# With pencil and paper. Client k's loss is a bowl along the axes: $L_k(w) = \frac12 \sum_i a_{ki} (w_i - m_{ki})^2$.
# Everything happens axis by axis. All clients take `steps` gradient steps and count alike. Where does the federation come to rest
# 1. if the clients run plain FedAvg and the server divides the average *change* by $1+\mu$;
# 2. if the clients run FedProx with this $\mu$ and the server averages?
#
# Both have a closed form. Compare them when you are done: one does not depend on μ.

# %% exercise 02.scaffold_client [markdown]
# One client's round of SCAFFOLD, option II. The client's gradient at `y` is `A @ (y - m)`. Walk `steps`
# corrected steps from the broadcast model `x`; then renew the client's control to the mean of its own gradients on the way, using
# only the way that was walked.

# %% exercise 02.server_control [markdown]
# `c` is the mean of the controls of all `clients`. This round only some of them came, and sent how their
# controls changed. What is `c` now?

# %% exercise 02.normalised_average [markdown]
# The server's step of FedNova: average the change *per step* with the weights $p_k = n_k/n$, and walk the
# average number of steps.

# %% exercise 02.server_adam [markdown]
# One server step as in Reddi et al. (2021), algorithm 2: no bias correction, τ outside the root. `delta` is
# the mean of local − broadcast.

# %% exercise 02.mended_feddyn [markdown]
# A colleague wrote a round of FedDyn. The client minimises
# $L_k(w) - \langle h_k, w\rangle + \frac{\alpha}{2}\|w-w_\text{global}\|^2$, and at rest $h_k$ must be its own gradient. One sign is wrong:
# the federation never finds the optimum. Run it, find the sign, and write the mended round below.

# %% tags=["given"]
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

# %% [markdown]
# ## An evening: your own method
# *Not checked by machine.* A correction is a frozen dataclass with two short methods. Write one that mixes FedProx and SCAFFOLD
# (a rope *and* controls), run it on `two_bowls(4.0)`, and find out where it rests and how fast it gets there. Start from
# `fl_course/drift/methods.py`.

# %%
progress()
