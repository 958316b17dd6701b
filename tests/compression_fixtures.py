"""What the tests of chapter 5 share: a small federation, a client's surroundings, and one update over the wire."""

import numpy as np

from fl_course import Aggregate, Context, Coordinator, LocalSGD, Server, Shards, Synchronous, Update, digits, mlp
from fl_course.federation.stages import client_half, server_half
from fl_course.wire.messages import decode_update, encode_update

MODEL = mlp(64, 16, 10)
DATA = digits().partition(Shards(2), clients=100, seed=0)
HOW = LocalSGD(lr=0.1, epochs=1, batch_size=10)


def ctx(seed=0, version=0, client=0, d=4, memory=None, **more):
    server = Server(np.zeros(d, np.float32), version)
    return Context(seed, server, client=client, memory={} if memory is None else memory, **more)


def through(stages, x, here, weight=1.0):
    """What the server reads of one update, over the wire."""
    update = decode_update(encode_update(client_half(stages, Update(here.client, 0, x, weight), here)))
    return server_half(stages, Aggregate(update.delta, weight), here).total


def fed(*stages, model=MODEL, **more):
    return Coordinator(DATA, model, more.pop("training", HOW), Synchronous(0.1), stages=stages, **more)
