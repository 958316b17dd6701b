"""Secure aggregation: the server learns the sum of the clients' vectors, and not one of the vectors.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, with its consistency
check; on a k-regular graph, Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020.

    field.py      arithmetic modulo a prime              shamir.py    shares of a secret
    grid.py       floats <-> integers modulo 2^b         masking.py   keys, seeds, masks
    graph.py      the round's parameters, who pairs whom messages.py  the nine messages, as bytes
    client.py     the client's state machine             server.py    the server's
    rounds.py     both wired together, drop-outs and liars included
    stage.py      SecureSum, all of it as a stage of the training loop       distributed.py  its noise

What is promised, and against whom
----------------------------------
Adversary: clients and server are semi-honest (they follow the protocol and look at everything they see); the server may
join forces with k < t clients; clients may vanish at any step. All messages pass through the server, so shares travel
encrypted and authenticated from client to client. Then the adversary learns the sum over the honest survivors and
nothing else, and either the sum is exact modulo R or the round is aborted with nothing opened.

A lying server gains little: clients check signatures, refuse two secrets of one peer, another set of survivors than
the one they signed, a second answer, a replayed message; 2t > n makes it impossible to collect t answers for each of
two different sets, and with k colluding clients 2t > n + k does (t >= floor(2n/3) + 1 for every k < n/3). Masks depend
on the hash of the received model, so clients that were sent different models do not add up. A lying server can always
make a round fail, and it can make the sum *wrong*: if it keeps one box of shares from one inbox, one end of a pair adds
a mask that the other does not take out, and the sum is a random number. That opens nothing, and a server that wants a
wrong sum can as well write one down; the semi-honest model allows it, and nothing here finds it. With SecAgg+ these
counts hold for each client's k + 1 holders, with overwhelming probability over the random graph; a malicious server that
may retry round ids could look for a graph that suits it.

What is not promised
--------------------
Identity keys are assumed to be known from somebody trusted: there is no public-key infrastructure in a course, so a
server that invents clients (Sybil) is out of scope. A client can send any vector it likes: nobody can see that it is
poisoned. And the exact sum itself tells something, the more so the fewer survivors (sparse updates, differences between
rounds): at least t are required, and only differential privacy bounds the rest. Python's integers and memory are not
made for secrets (no constant time, no wiping).
"""

from ..wire.ring import pack, unpack
from .distributed import DistributedNoise, discrete_gaussian
from .field import P31, P61, P521, PrimeField
from .graph import Setup, components, recommended_degree
from .grid import FixedPointGrid
from .masking import SharedWork, add_mask, insecure_random, mask
from .messages import Abort, Message, Refused
from .rounds import STAGES, Round, Transcript, new_round_id, run_round
from .shamir import reconstruct, reconstruct_keys, share, share_keys
from .stage import SecureSum

__all__ = [
    "P31", "P61", "P521", "STAGES", "Abort", "DistributedNoise", "FixedPointGrid", "Message", "PrimeField", "Refused",
    "Round", "SecureSum", "Setup", "SharedWork", "Transcript", "add_mask", "components", "discrete_gaussian",
    "insecure_random", "mask", "new_round_id", "pack", "recommended_degree", "reconstruct", "reconstruct_keys",
    "run_round", "share", "share_keys", "unpack",
]  # fmt: skip
