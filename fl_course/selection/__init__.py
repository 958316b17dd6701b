"""Chapter 6: who is asked. In reading order:

    looks       what a client works out about itself when a selector asks
    fair        by the number of examples; in turn, so that nobody starves
    profile     the quality score of the design document, over measured profiles
    diversity   unlike each other: labels by greedy max-min, gradients by facility location (DivFL)
    power       Power-of-Choice: a probe, then the largest losses
    oort        Oort: useful and fast, and some that nobody knows yet
    tifl        TiFL: one tier of equally fast clients a round, with credits
    fairness    how evenly it was chosen: counts and their Gini coefficient

The devices are in federation/fleet.py, devices.py and traces.py; the drawing of lots in federation/sampling.py.
"""
