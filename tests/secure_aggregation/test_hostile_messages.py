"""Any field of any of the nine messages, replaced by anything that fits into a frame: the round goes on, or ends cleanly."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_course.secure_aggregation import Abort, Refused, Round, Setup, insecure_random, run_round
from fl_course.secure_aggregation import messages as wire
from fl_course.secure_aggregation.masking import private_key, public_bytes, usable
from fl_course.secure_aggregation.server import SecureServer
from fl_course.wire.messages import WireError, frame, unframe

IDS, T, D = (0, 1, 2, 3, "e"), 3, 4
INPUTS = {i: np.arange(D, dtype=np.uint32) * 1000 + 7 * k + 2**31 for k, i in enumerate(IDS)}
UP = ("secagg-advertise", "secagg-shares", "secagg-masked", "secagg-consistent", "secagg-unmasked")
DOWN = ("secagg-roster", "secagg-inbox", "secagg-survivors", "secagg-unmask")

arrays = st.builds(
    lambda shape, dtype: np.ones(shape, dtype),
    st.sampled_from([(), (0,), (1,), (16,), (32,), (2, 3), (16, 1), (64,)]), st.sampled_from(["<f4", "|u1", "<i8", "|b1", "<f8"]),
)  # fmt: skip
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.sampled_from([0, 1, 4, 5, -1, 2**31, 2**63, 2**64 - 1]),
    st.floats(), st.text(max_size=3), st.sampled_from(IDS), st.binary(max_size=4), arrays,
    st.sampled_from([16, 32, 36, 64, 100]).map(bytes), st.sampled_from([1, 16, 32, 36, 64, 100]).map(lambda n: b"\xff" * n),
)  # fmt: skip
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6
)


def places(body, path=()):
    """The paths of all nodes of nested lists, the root first."""
    yield path
    if isinstance(body, list):
        for i, part in enumerate(body):
            yield from places(part, (*path, i))


def changed(body, path, how, value):
    """A copy of `body` in which the node at `path` is replaced, taken out, written twice, or followed by `value`."""
    if not path:
        return value
    copy = list(body)
    if len(path) > 1:
        copy[path[0]] = changed(copy[path[0]], path[1:], how, value)
    elif how == "replace":
        copy[path[0]] = value
    else:
        copy[path[0] : path[0] + 1] = {"drop": [], "twice": [copy[path[0]]] * 2, "insert": [copy[path[0]], value]}[how]
    return copy


def plain(ids):
    return [sum(int(INPUTS[i][c]) for i in ids) % 2**32 for c in range(D)]


def sane(transcript, exact):
    """Either a sum of enough survivors, exact if `exact`, or a reason and nothing opened; never both secrets of one client."""
    assert (transcript.sum is None) == (transcript.aborted is not None)
    assert not set(transcript.opened_seeds) & set(transcript.opened_keys)
    for i in IDS:                                        # whoever is gone is gone, and that is said once
        assert sum(event.startswith((f"client {i!r} left", f"client {i!r} vanished")) for event in transcript.events) <= 1
    if transcript.sum is not None:
        assert len(transcript.survivors) >= T
        assert not exact or transcript.sum.tolist() == plain(transcript.survivors)


@settings(max_examples=400)
@given(st.sampled_from(UP + DOWN), st.sampled_from(IDS), st.integers(0, 10**6),
       st.sampled_from(["replace", "replace", "drop", "twice", "insert"]), anything)  # fmt: skip
def test_whatever_one_message_says_the_round_goes_on_or_ends_cleanly(kind, client, place, how, value):
    hit = []

    def lie(message):
        if message.kind != kind or client not in (message.sender, message.receiver) or hit:
            return message.data
        body = unframe(message.data, kind)
        paths = list(places(body))
        hit.append(frame(kind, changed(body, paths[place % len(paths)], how, value)))
        return hit[0]

    transcript = run_round(INPUTS, T, seed=0, drops={3: "upload"}, tamper=lie)
    assert not hit or hit[0] in [m.data for m in transcript.messages]        # as delivered, not as sent
    # A box left out of an inbox leaves one mask without its counterpart, and a client may send any vector: both are said.
    sane(transcript, exact=kind not in ("secagg-inbox", "secagg-masked"))


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=4), st.booleans())
def test_messages_that_are_replayed_or_misrouted_change_no_sum(swaps, foreign):
    """The n-th message on the line is replaced by the m-th of this round, or by the m-th of another round."""
    other = run_round(INPUTS, T, seed=1, drops={3: "upload"}).messages
    seen = []

    def swap(message):
        seen.append(message)
        for n, m in swaps:
            if n == len(seen) - 1:
                source = other if foreign else seen
                return source[m % len(source)].data
        return message.data

    sane(run_round(INPUTS, T, seed=0, drops={3: "upload"}, tamper=swap), exact=True)


def everybody(stage):
    """Clients and server that wait for the messages of a stage, and an honest message of each kind on its way."""
    setup = Setup(insecure_random(0, "id")(16), IDS, T, D)
    made = Round(setup, seed=0)
    clients, server = made.clients, made.server
    if stage == "secagg-advertise":
        return server.receive_advertise, clients[0].advertise(), lambda: server.stage
    for i in IDS:
        server.receive_advertise(clients[i].advertise())
    rosters = server.close_advertise()
    if stage == "secagg-roster":
        return clients[0].share_keys, rosters[0], lambda: clients[0].stage
    sent = {i: clients[i].share_keys(rosters[i]) for i in IDS}
    if stage == "secagg-shares":
        return server.receive_shares, sent[0], lambda: server.stage
    for message in sent.values():
        server.receive_shares(message)
    inboxes = server.close_share()
    if stage == "secagg-inbox":
        return clients[0].receive_shares, inboxes[0], lambda: clients[0].stage
    for i in IDS:
        clients[i].receive_shares(inboxes[i])
    sent = {i: clients[i].upload(INPUTS[i]) for i in IDS}
    if stage == "secagg-masked":
        return server.receive_upload, sent[0], lambda: server.stage
    for message in sent.values():
        server.receive_upload(message)
    told = server.close_upload()
    if stage == "secagg-survivors":
        return clients[0].sign_survivors, told[0], lambda: clients[0].stage
    sent = {i: clients[i].sign_survivors(told[i]) for i in IDS}
    if stage == "secagg-consistent":
        return server.receive_consistent, sent[0], lambda: server.stage
    for message in sent.values():
        server.receive_consistent(message)
    asked = server.close_consistency()
    if stage == "secagg-unmask":
        return clients[0].unmask, asked[0], lambda: clients[0].stage
    return server.receive_unmasked, clients[0].unmask(asked[0]), lambda: server.stage


VALUES = (
    None, True, 0, -1, 4, 99, 2**63, 2**64 - 1, 1.0, float("nan"), "", "e", b"", bytes(16), bytes(32), bytes(64), b"\xff", [],
    [[]], [None], {}, {"a": 1}, np.zeros(16, np.uint8), np.zeros((16, 1), np.uint8), np.zeros(()), np.zeros(0), np.ones(32, bool),
    [[0, b""]], [[0, np.zeros(36, np.uint8)]], [[np.zeros(2), bytes(36)]], [[1.0, bytes(36)]],
)  # fmt: skip


@pytest.mark.parametrize("kind", UP + DOWN)
def test_every_field_of_every_message_with_every_wrong_value(kind):
    """Out of three things only: it cannot be read and nothing has changed, it is refused, or the participant leaves."""
    step, honest, stage = everybody(kind)
    before, body = stage(), unframe(honest, kind)
    for path in places(body):
        for how, value in [("drop", 0), ("twice", 0), ("insert", None), *(("replace", value) for value in VALUES)]:
            message = frame(kind, changed(body, path, how, value))
            if message == honest:
                continue
            try:
                step(message)
            except WireError:
                assert stage() == before
            except Refused:
                assert stage() == before
            except Abort:
                assert stage() == "aborted"
                step, _, stage = everybody(kind)
            else:                                         # a field that a liar is free to choose
                step, _, stage = everybody(kind)
    everybody(kind)[0](honest)


def test_an_array_in_the_place_of_the_round_id_is_a_message_that_cannot_be_read():
    setup = Setup(bytes(16), IDS, T, D)
    for value in (np.zeros(16, np.uint8), np.zeros(2), np.zeros(()), None, [], 0):
        with pytest.raises(WireError, match="should be 16 bytes"):
            wire.decode_survivors(setup, frame("secagg-survivors", [value, b"\x1f"]))


# --- keys that are signed, and bad --------------------------------------------------------------------------------------

WEAK = (bytes(32), b"\x01" + bytes(31), ((1 << 255) - 19 - 1).to_bytes(32, "little"), ((1 << 255) - 19).to_bytes(32, "little"))


def test_keys_of_small_order_are_not_usable_and_others_are():
    assert not any(usable(public) for public in WEAK)
    assert all(usable(public_bytes(private_key(bytes([k]) * 32))) for k in range(20))


def test_one_client_with_bad_keys_does_not_end_the_round_of_the_others():
    setup = Setup(bytes(16), IDS, T, D)
    identity = {i: Ed25519PrivateKey.generate() for i in IDS}
    directory = {i: key.public_key().public_bytes_raw() for i, key in identity.items()}
    server = SecureServer(setup, directory)

    def advertise(client, cipher, mask):
        keys = wire.Keys(client, cipher, mask, b"")
        server.receive_advertise(wire.encode_advertise(
            setup, wire.Keys(client, cipher, mask, identity[client].sign(keys.digest(setup)))))  # fmt: skip

    good = [public_bytes(private_key(bytes([k]) * 32)) for k in range(1, 9)]
    advertise(0, good[0], good[1])
    for cipher, mask in ((good[2], good[2]), (good[0], good[2]), (good[2], good[0]), (good[1], good[2])):
        with pytest.raises(Refused, match="twice, or the key of another"):
            advertise(1, cipher, mask)
    for weak in WEAK:
        for cipher, mask in ((weak, good[2]), (good[2], weak)):
            with pytest.raises(Refused, match="everybody knows"):
                advertise(1, cipher, mask)
    advertise(1, good[2], good[3])
    assert set(server.keys) == {0, 1}


# --- one story for all ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [
    {"cohort": (1, 0, 2, 3, "e")}, {"cohort": (0, 1, 2, 3, 4)}, {"threshold": 4}, {"dimension": 5}, {"ring_bits": 31},
    {"degree": 4}, {"round_id": b"\x01" * 16},
])  # fmt: skip
def test_a_signature_of_survivors_is_good_in_this_round_only(other):
    """The same bitmap in another order of the cohort names other clients; no field of the setup may differ unseen."""
    facts = {"round_id": bytes(16), "cohort": IDS, "threshold": 3, "dimension": D, "ring_bits": 32, "degree": None}
    one, two = Setup(**facts), Setup(**facts | other)
    for ids in (IDS[:3], IDS[1:4]):
        digest = wire.survivors_digest(one, ids)
        assert digest == wire.survivors_digest(Setup(**facts), reversed(ids))
        assert digest != wire.survivors_digest(two, [two.cohort[one.position[i]] for i in ids])


def test_a_box_kept_from_one_inbox_makes_the_sum_wrong_and_opens_nothing_more():
    """What the docstring admits: the semi-honest model allows it. The client that was robbed leaves, its mask stays."""

    def rob(message):
        if message.kind == "secagg-inbox" and message.receiver == 0:
            boxes = wire.decode_inbox(rob.setup, message.data)
            return wire.encode_inbox(rob.setup, {i: box for i, box in boxes.items() if i != 1})
        return message.data

    made = Round(Setup(bytes(16), IDS, T, D), seed=0, tamper=rob)
    rob.setup = made.setup
    made.open()
    for i in IDS:
        made.upload(i, INPUTS[i])
    total = made.close()
    transcript = made.transcript(total)
    assert total.tolist() != plain(IDS)
    assert set(transcript.opened_seeds) == set(IDS)
    assert transcript.opened_keys == ()
    assert any("0 left: 1 are called survivors, but never shared" in event for event in transcript.events)
