"""Chapter 9: some of the clients lie, and the server is curious.

    robust.py        what all rules share: one client one vote, what is no number is left out, too few are refused
    rules.py         beside which mechanisms a rule is sound
    distances.py     who lies how far from whom
    outliers.py      removal by norm or by distance
    coordinates.py   median and trimmed mean, number by number
    krum.py          Krum, Multi-Krum, Bulyan
    geometric.py     the geometric median
    clipping.py      norm bound, centred clipping
    fltrust.py       a root set at the server
    before.py        mixing and bucketing, before any rule
    attacks.py       label flip, sign flip, noise, scaling, ALIE, IPM, mimic
    backdoor.py      a trigger, and model replacement
    inversion.py     examples out of gradients
    leaks.py         labels out of gradients, members out of losses
"""
