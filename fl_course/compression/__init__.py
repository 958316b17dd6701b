"""Chapter 5: say less.

    feedback.py       the law that all compressors share: a payload, and a residual for what was left out
    sparse.py         top-k, random-k, threshold
    quantisation.py   n bits, ternary, signs; rotation; the way down
    lowrank.py        PowerSGD
    submodels.py      federated dropout: smaller both ways
"""
