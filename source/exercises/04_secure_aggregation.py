# %% [markdown]
# # Exercises 4 · Secure aggregation
#
# Seven functions: cut a secret and mend it, mask and unmask, count, and break. Write each in its cell; the cell below it answers at
# once, offline, on fresh random inputs. Stuck? `hint("04.share")` gives one step more at each call, three steps; `reveal(…)` shows a
# solution. No exercise needs the answer of another. A function leaves its arguments as they are: work on a copy.
#
# The numbers are small on purpose. Real secrets need a large prime and the operating system's generator.

# %%
import math

import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% exercise 04.share [markdown]
# The secret is $f(0)$ of the polynomial $f(x) = s + c_1 x + c_2 x^2 + …$ modulo a prime p. Make the
# shares $(x, f(x))$ for $x = 1 … n$.

# %% exercise 04.reconstruct [markdown]
# Lagrange's formula at zero, modulo p: $s = \sum_i y_i \prod_{j \ne i} (0 - x_j) / (x_i - x_j)$. To
# divide by b modulo p is to multiply by `pow(b, -1, p)`.

# %% exercise 04.what_it_tells [markdown]
# A client's number is 0 or 1, equally likely. It sends y = number + a normal mask of standard
# deviation `size`. How likely is it, for somebody who sees y, that the number was 1? (With a uniform mask modulo R: always 1/2.)
# By Bayes, with both numbers equally likely, P(1|y) = p(y|1) / (p(y|0) + p(y|1)), and the normal density around the number c is
# proportional to exp(-(y - c)² / (2·size²)).

# %% exercise 04.mask_pairs [markdown]
# For each pair u < v there is a mask. Client u adds it, client v subtracts it, modulo R. Leave `x` as
# it is.

# %% exercise 04.recover [markdown]
# One client is gone before it sent anything. The server has the sum of what the survivors sent (masked
# as in 4.4; no self masks here). `masks` holds the masks of all pairs, to be looked up; a real server has rebuilt only those of the
# lost client, and only those are still in the sum. Mend the sum. Leave `total` and the
# masks as they are.

# %% exercise 04.vector_bytes [markdown]
# Each of n clients sends d numbers, each an integer from 0 to $2^{bits} - 1$, masked modulo $2^b$, where
# b is as small as it can be with room for every possible sum. The b-bit numbers are packed without gaps. How many bytes does one client send?

# %% exercise 04.open_input [markdown]
# Suppose the *server* deals out the masks. Whoever holds the masks reads everything, and a server
# that may ask twice holds them, too. One client sent y = x + self mask + pair mask (modulo p). The server told one half of the clients that
# it survived, and got t shares of its self mask; it told the other half that it dropped, and got t shares of its pair mask (simplified: of the masks themselves, not of the key and the seed behind them). Open x. You may use
# `fl_course.secure_aggregation.reconstruct`, or your own from 4.2.
#
# With 2t > n this is impossible while no client helps the server: it needs t answers to each story, and nobody answers twice. The
# signatures of the consistency round show the clients that all of them were told the same story.

# %% [markdown]
# ## How far have you come?

# %%
progress()
