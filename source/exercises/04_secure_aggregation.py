# %% [markdown]
# # Exercises 4 · Secure aggregation
#
# Seven functions: cut a secret and mend it, mask and unmask, count, and break. Write each in its cell; the cell below it answers at
# once, offline, on fresh random inputs. Stuck? `hint("04.share")` gives one step more at each call, three steps; `reveal(…)` shows a
# solution. No exercise needs the answer of another.
#
# The numbers are small on purpose. Real secrets need a large prime and the operating system's generator.

# %%
import math

import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% [markdown] tags=["exercise"]
# ## 4.1 Cut a secret into shares
# *Difficulty 1 of 5 · 10 minutes.* The secret is $f(0)$ of the polynomial $f(x) = s + c_1 x + c_2 x^2 + …$ modulo a prime p. Make the
# shares $(x, f(x))$ for $x = 1 … n$.

# %% tags=["exercise"]
def share(secret, coefficients, n, p):
    """secret: s; coefficients: [c1, c2, …], t - 1 of them; n: how many shares; p: a prime. Returns [(1, f(1)), …, (n, f(n))]."""
    ### BEGIN SOLUTION
    return [(x, (secret + sum(c * x**k for k, c in enumerate(coefficients, start=1))) % p) for x in range(1, n + 1)]
    ### END SOLUTION

# %% tags=["check"]
check("04.share", share)

# %% [markdown] tags=["exercise"]
# ## 4.2 Put it together again
# *Difficulty 3 of 5 · 20 minutes.* Lagrange's formula at zero, modulo p: $s = \sum_i y_i \prod_{j \ne i} (0 - x_j) / (x_i - x_j)$. To
# divide by b modulo p is to multiply by `pow(b, -1, p)`.

# %% tags=["exercise"]
def reconstruct(shares, p):
    """shares: [(x, y), …], as many as are needed, in any order; p: a prime. Returns the secret, an int in [0, p)."""
    ### BEGIN SOLUTION
    secret = 0
    for x, y in shares:
        above, below = 1, 1
        for other, _ in shares:
            if other != x:
                above, below = above * -other % p, below * (x - other) % p
        secret += y * above * pow(below, -1, p)
    return secret % p
    ### END SOLUTION

# %% tags=["check"]
check("04.reconstruct", reconstruct)

# %% [markdown] tags=["exercise"]
# ## 4.3 What a float mask tells
# *Difficulty 2 of 5 · 15 minutes.* A client's number is 0 or 1, equally likely. It sends y = number + a normal mask of standard
# deviation `size`. How likely is it, for somebody who sees y, that the number was 1? (With a uniform mask modulo R: always 1/2.)

# %% tags=["exercise"]
def what_it_tells(y, size):
    """y: what was sent; size: standard deviation of the mask. Returns the probability that the number was 1."""
    ### BEGIN SOLUTION
    return 1 / (1 + np.exp(-(2 * y - 1) / (2 * size**2)))
    ### END SOLUTION

# %% tags=["check"]
check("04.what_it_tells", what_it_tells)

# %% [markdown] tags=["exercise"]
# ## 4.4 Pairwise masks that cancel
# *Difficulty 2 of 5 · 10 minutes.* For each pair u < v there is a mask. Client u adds it, client v subtracts it, modulo R. Leave `x` as
# it is.

# %% tags=["exercise"]
def mask_pairs(x, masks, R):
    """x: (n, d) integers; masks: {(u, v): (d,) integers} for u < v; R: the modulus. Returns what is sent, (n, d) in [0, R)."""
    ### BEGIN SOLUTION
    sent = np.array(x)
    for (u, v), mask in masks.items():
        sent[u] += mask
        sent[v] -= mask
    return sent % R
    ### END SOLUTION

# %% tags=["check"]
check("04.mask_pairs", mask_pairs)

# %% [markdown] tags=["exercise"]
# ## 4.5 Recover from a drop-out
# *Difficulty 3 of 5 · 15 minutes.* One client is gone before it sent anything. The server has the sum of what the survivors sent (masked
# as in 4.4; no self masks here), and has rebuilt the masks that the lost client shared with them. Mend the sum.

# %% tags=["exercise"]
def recover(total, gone, survivors, masks, R):
    """total: (d,) sum modulo R; gone: a client; survivors: a list; masks: {(u, v): (d,)}, u < v. Returns the sum of their inputs."""
    ### BEGIN SOLUTION
    total = np.array(total)
    for u in survivors:
        if u < gone:
            total -= masks[u, gone]
        else:
            total += masks[gone, u]
    return total % R
    ### END SOLUTION

# %% tags=["check"]
check("04.recover", recover)

# %% [markdown] tags=["exercise"]
# ## 4.6 Count the bytes
# *Difficulty 2 of 5 · 10 minutes.* Each of n clients sends d numbers, each an integer from 0 to $2^{bits} - 1$, masked modulo $2^b$, where
# b is as small as it can be with room for every possible sum. The b-bit numbers are packed without gaps. How many bytes does one client send?

# %% tags=["exercise"]
def vector_bytes(n, d, bits):
    """n: clients; d: numbers of each; bits: of one number before masking. Returns whole bytes of one client's vector."""
    ### BEGIN SOLUTION
    ring_bits = (n * (2**bits - 1)).bit_length()
    return math.ceil(d * ring_bits / 8)
    ### END SOLUTION

# %% tags=["check"]
check("04.vector_bytes", vector_bytes)

# %% [markdown] tags=["exercise"]
# ## 4.7 Break it with two answers
# *Difficulty 4 of 5 · 25 minutes.* Suppose the *server* deals out the masks. Whoever holds the masks reads everything, and a server
# that may ask twice holds them, too. One client sent y = x + self mask + pair mask (modulo p). The server told one half of the clients that
# it survived, and got t shares of its self mask; it told the other half that it dropped, and got t shares of its pair mask. Open x.
#
# (Then say why 2t > n makes this impossible while no client helps the server, and what the signatures of the consistency round
# are for.)

# %% tags=["exercise"]
def open_input(y, seed_shares, key_shares, p):
    """y: what was sent; seed_shares, key_shares: t shares (x, value) of the self mask and of the pair mask; p: a prime. Returns x."""
    ### BEGIN SOLUTION
    def at_zero(shares):
        total = 0
        for x, value in shares:
            weight = 1
            for other, _ in shares:
                if other != x:
                    weight = weight * other * pow(other - x, -1, p) % p
            total += value * weight
        return total

    return (y - at_zero(seed_shares) - at_zero(key_shares)) % p
    ### END SOLUTION

# %% tags=["check"]
check("04.open_input", open_input)

# %% [markdown]
# ## How far have you come?

# %%
progress()
