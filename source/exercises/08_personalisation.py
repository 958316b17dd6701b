# %% [markdown]
# # Exercises 8 · Personalisation
#
# Eight functions, from five to fifteen minutes. Write each in its cell; the cell below it answers at once, offline, on fresh
# random inputs. Stuck? `hint("08.personal_mask")` gives one step more at each call, three steps; `reveal(…)`, called twice, shows
# a solution. No exercise needs the answer of another. A function leaves its arguments as they are: work on a copy.

# %%
import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% exercise 08.personal_mask [markdown]
# A model is one vector; `shapes` says which tensors lie in it, one after the other, for instance
# `{"base.weight": (4, 3), "base.bias": (4,), "head.weight": (2, 4), …}`. What stands before the first dot is the layer. Which of the d
# numbers stay with the client if the layers in `personal` are personal? A layer that no tensor belongs to is refused with a
# `ValueError`: a typing error must not let everything travel. No personal layer at all is allowed.

# %% exercise 08.fedrep_client [markdown]
# A client's round of FedRep in the smallest model that has a base and a head: an example $x$ is answered
# with $x B h$, where the base $B$ is shared and the head $h$ is the client's own. First `head_steps` gradient steps on the head, with
# the base as it came; then `base_steps` on the base, with the head that the first phase made. What travels is the change of the base;
# what stays is the head.

# %% exercise 08.ditto_step [markdown]
# One step of Ditto's personal model $v$, which minimises $L_k(v) + \frac{\lambda}{2}\|v - w\|^2$. `w` is the global model as
# the client downloaded it, and `gradient` the gradient of $L_k$.

# %% exercise 08.adapted_loss [markdown]
# What Per-FedAvg wants to be small: not the loss of $w$, but the loss *after* the client has adapted it. Take one gradient step of
# rate `alpha` (the lesson's $\eta_i$) on the support set, and return the loss of the adapted model on the query set. The model is linear, the loss of
# `(x, y)` is the mean of $\frac12 (x \cdot w - y)^2$.

# %% exercise 08.meta_gradient [markdown]
# The gradient of that, with respect to $w$. The inner step is $\tilde w = w - \alpha\,g_s(w)$ ($\alpha$ is the lesson's $\eta_i$) with the gradient
# $g_s$ = `support`; the examination's gradient is $g_q$ = `query`, and $H$ = `hessian` gives the second derivatives of the *support*
# loss. Return two vectors: the *first-order* version, which takes $\tilde w$ for $w$ plus a constant, and the *exact* one.

# %% exercise 08.fair_report [markdown]
# Every client measured its own model on its own held-out examples. Client k has `tests[k]` of them, maybe none (but somebody has some);
# its personalised model was right on `right[k]`, the model that it trained alone on `alone[k]`. Report three numbers over the clients
# that have tests: the mean accuracy, each client counting once; the mean accuracy of the worst tenth of the clients (rounded down,
# but at least one); and the share of the clients that personalisation made better than they are alone. A draw is no gain.

# %% exercise 08.mended_anchor [markdown]
# A colleague trains a personal model with a rope to the downloaded model `w`. It trains, the loss falls, and nothing raises an error.
# But there is an oracle: with λ = 0 the client trains alone, and with a large λ it must stay near `w`. Run it, look at the two
# distances, find the line, and write the mended one. (A fault of this kind stands in published code.)

# %% tags=["given"]
def broken_anchor(w, gradient, lam, lr, steps):
    theta = w
    for _ in range(steps):
        theta -= lr * (gradient(theta) + lam * (theta - w))
    return theta


downloaded = np.array([1.0, -2.0, 0.5])
for lam in (0.0, 10.0):
    personal = broken_anchor(downloaded.copy(), lambda w: w - 3, lam, lr=0.05, steps=50)
    print(f"λ = {lam:4}: the personal model is {np.linalg.norm(personal - downloaded):.3f} from the downloaded one")

# %% exercise 08.mended_apfl [markdown]
# One step of APFL. A client predicts with the mixture $\alpha v + (1-\alpha) w$ of its own model $v$ and its local copy $w$ of the
# global one. $w$ learns as in FedAvg; $v$ learns so that the *mixture* gets better: its gradient is that of
# $L_k(\alpha v + (1-\alpha) w)$ with respect to $v$. Both steps begin at the old models. The version below trains without an
# error, and published code has its fault. The oracle: with α = 1 the mixture is $v$ alone, so $v$ must come to the client's own
# minimum, here 3. Find the fault, and write the mended step.

# %% tags=["given"]
def broken_apfl(v, w, gradient, alpha, lr):
    mixed = alpha * v + (1 - alpha) * w
    mixed -= lr * alpha * gradient(mixed)
    return w - lr * gradient(w), v


v, w = np.zeros(2), np.zeros(2)
for _ in range(100):
    w, v = broken_apfl(v, w, lambda w: w - 3, alpha=1.0, lr=0.1)
print("w:", w.round(3), " v:", v.round(3))

# %% [markdown]
# ## How far have you come?

# %%
progress()
