"""Chapter 2: clients that differ pull apart.

    methods.py      FedProx, SCAFFOLD, FedDyn, FedNova; stragglers
    quadratics.py   client losses that one can draw and solve: bowls
"""
