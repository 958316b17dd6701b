"""Chapter 3: differential privacy.

    mechanisms.py   clip and calibrate, as mathematics
    noise.py        where noise comes from; the tree of DP-FTRL
    accounting/     what happened (events), what it costs (accountants), what is left (the ledger)
    books.py        whose ledger it is, what it prices, up to when it is complete
    clipping.py     the bound alone, as a stage
    central.py      noise on the sum, and a ledger that ends the training
    local.py        noise at every client
    tree.py         DP-FTRL, for when nobody can be sampled
    dpsgd.py        noise inside local training, per example
    rules.py        what may stand beside a private stage
    auditing.py     lower bounds on ε from attacks
"""
