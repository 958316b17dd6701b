"""The engine: a cohort is trained at once. The way of a cohort: tasks → plan → parts → executor → updates.

    models.py        logistic, MLP, ConvNet: cohort first
    wrapped.py       any torch module; forward.py looks at its forward pass
    losses.py        what training makes small: cross-entropy, squared error, one logit
    local.py         what a client does: E epochs of SGD in batches of B
    correction.py    corrections that the fused engine knows too
    batches.py       the plan: which examples each client sees in which step
    cohort.py        the parts: who shares a tensor
    training.py      the trainer: which executor computes a part, and what a client hands back
    sgd.py           executors as text: the steps of SGD for a cohort, for one client, as in a textbook
    fused.py         the executor for dense networks: the same, faster
"""
