"""Chapter 7: nobody waits.

    mixing.py      FedAsync's rule: the server mixes whole models
    schedules.py   rounds that leave nobody behind; FedAsync and FedBuff as lists of parts
    devices.py     known times; what a job takes, groups of speed, how many answers a second
    rehearsal.py   a run without training: the clock alone
    heard.py       who is heard, how stale, and comparing at equal cost

Buffers and bounded delay are `Buffered` in federation/schedule.py, discounts `Discount` in federation/aggregation.py.
"""
