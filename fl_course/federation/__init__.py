"""The federation: one loop, and the parts that every chapter uses.

    interfaces.py    the sockets, on one page: read it first
    coordinator.py   the loop: select → broadcast → train → encode → sum → step → evaluate → record
    work.py          local training and client halves of the jobs; whoever fails costs its own answer
    elsewhere.py     clients that train in other processes, nodes or pages, on the simulated or the real clock
    orders.py        what is sent to them and comes back, and who carries it
    node.py          their end: the same work, and the drawers
    processes.py     other processes of this machine: a simulation on more cores
    arrival.py       what may arrive, said by the experiment; every answer is held against it
    clock.py         simulated seconds, exactly
    state.py         what a run carries from one step to the next
    composition.py   what an experiment must satisfy before it runs
    sampling.py      who is asked: k of K, or everybody by a coin
    schedule.py      when to start clients and when the server steps: rounds, deadlines, buffers
    fleet.py         simulated speed, links, drop-outs
    stages.py        the law of two halves; weighting
    aggregation.py   the weighted sum
    optimizers.py    the server's step
    evaluation.py    accuracy, loss, fairness, drift
    history.py       records → pandas, JSON, CSV, figures
    timeline.py      every job as a bar on the simulated clock
    checkpoint.py    a state in a file
    archive.py       a state as plain data and back, exactly
    entries.py       what the library's parts keep in it, looked at when it comes from a file
    identity.py      what decides a run: whose file it is
"""
