"""A simulation on several processes: the same bytes on any number of them, and who dies costs only its clients' answers."""

import os
import signal
import time

import pytest
from small import experiment, federation

from fl_course import (
    Buffered,
    CompositionError,
    Elsewhere,
    FedAdam,
    LocalSGD,
    LogNormal,
    Processes,
    SecureSum,
    Synchronous,
    TopK,
    Uniform,
)

UNIFORM = Uniform()
def test_two_processes_or_one_the_same_bytes():
    """Residuals in the drawers, moments at the server, jobs in flight with their own models, drop-outs: to the bit."""
    it = experiment(
        federation(ids=[3, "b", 11, "ward 7", 0, "z"]), stages=[TopK(0.2)], optimizer=FedAdam(lr=0.05), schedule=Buffered(4, 2),
        fleet=LogNormal(speed_spread=1.0, drop=0.1),
    )  # fmt: skip
    here = it.train(8)
    with Processes(it, 2) as post:
        there = it.train(8, work=Elsewhere(post))
        workers = post.workers
    assert there.records == here.records
    assert there.state.server.params.tobytes() == here.state.server.params.tobytes()
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_a_process_that_dies_costs_its_clients_answers_and_the_run_goes_on():
    it = experiment(schedule=Synchronous(1.0))
    with Processes(it, 2) as post:
        steps = it.run(3, work=Elsewhere(post))
        assert len(next(steps)[1].clients) == 6
        os.kill(post.workers[1].pid, signal.SIGKILL)
        time.sleep(0.2)
        record = next(steps)[1]
        assert record.clients == (0, 2, 4)
        assert sum("its process has ended" in event for event in record.events) == 3
        assert next(steps)[1].clients == (0, 2, 4)


def test_what_cannot_be_done_by_other_processes_is_refused_in_a_sentence():
    for bad in (0, 2.0, True, 1000):
        with pytest.raises(ValueError, match="whole number"):
            Processes(experiment(), bad)
    with pytest.raises(CompositionError, match="exchange keys"):
        Processes(experiment(weights=UNIFORM, stages=[SecureSum(clip=1.0)]))
    with pytest.raises(ValueError, match="put its own functions"):
        Processes(experiment(training=LocalSGD(lr=0.1, epochs=lambda client, rng: 1)))
