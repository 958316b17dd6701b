"""The fault matrix of secure aggregation: one test for each row, F01 to F30, named after it."""

from __future__ import annotations

import random

import msgpack
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scipy.stats import chi2

from fl_course.secure_aggregation import (
    P521,
    Abort,
    FixedPointGrid,
    Refused,
    Round,
    Setup,
    SharedWork,
    insecure_random,
    mask,
    new_round_id,
    run_round,
    share,
    share_keys,
)
from fl_course.secure_aggregation import messages as wire
from fl_course.secure_aggregation.client import SecureClient
from fl_course.secure_aggregation.masking import share_label
from fl_course.wire.messages import WireError, frame, unframe

N, T, D = 5, 3, 4
IDS = tuple(range(N))
INPUTS = {i: np.arange(D, dtype=np.uint32) * 1000 + 7 * i + 2**31 for i in IDS}


def plain(ids):
    return [sum(int(INPUTS[i][c]) for i in ids) % 2**32 for c in range(D)]


def a_round(stage="upload", uploaders=IDS, **options):
    """A round in which everybody is about to take part in `stage`: "share", "inbox", "upload" or "survivors"."""
    options.setdefault("seed", 0)
    setup = Setup(insecure_random(options["seed"], "id")(16), IDS, T, D)
    made = Round(setup, **options)
    clients, server = made.clients, made.server
    if stage == "advertise":
        return made
    for i in IDS:
        server.receive_advertise(clients[i].advertise())
    made.rosters = server.close_advertise()
    if stage == "share":
        return made
    for i in IDS:
        server.receive_shares(clients[i].share_keys(made.rosters[i]))
    made.inboxes = server.close_share()
    if stage == "inbox":
        return made
    for i in IDS:
        clients[i].receive_shares(made.inboxes[i])
    if stage == "upload":
        return made
    for i in uploaders:
        server.receive_upload(clients[i].upload(INPUTS[i]))
    return made


def a_request(uploaders=IDS):
    """A round in which the uploaders are waiting for the unmask request that is returned with it."""
    made = a_round("survivors", uploaders)
    for i, message in made.server.close_upload().items():
        made.server.receive_consistent(made.clients[i].sign_survivors(message))
    return made, made.server.close_consistency()


def gone(client):
    """The client has left the round: no secrets, no answers."""
    assert client.stage == "aborted"
    assert not client._seed_shares
    assert not client._key_shares
    assert not client._seed
    with pytest.raises(Refused, match="has left"):
        client.unmask(b"")
    return True


# --- drop-outs -------------------------------------------------------------------------------------------------------


def test_F01_no_drop_out():
    transcript = run_round(INPUTS, T)
    assert transcript.survivors == IDS
    assert transcript.sum.tolist() == plain(IDS)
    assert transcript.opened_keys == ()


def test_F02_gone_after_advertising():
    transcript = run_round(INPUTS, T, drops={1: "share"})
    assert transcript.survivors == (0, 2, 3, 4)
    assert transcript.dropped == ()
    assert transcript.opened_keys == ()
    assert transcript.sum.tolist() == plain((0, 2, 3, 4))


def test_F03_gone_after_sharing():
    transcript = run_round(INPUTS, T, drops={1: "upload"})
    assert transcript.dropped == transcript.opened_keys == (1,)
    assert transcript.opened_seeds == (0, 2, 3, 4)
    assert transcript.sum.tolist() == plain((0, 2, 3, 4))


@pytest.mark.parametrize("stage", ["consistency", "unmask"])
def test_F04_gone_after_the_upload(stage):
    transcript = run_round(INPUTS, T, drops={1: stage})
    assert transcript.survivors == transcript.opened_seeds == IDS
    assert transcript.opened_keys == ()
    assert transcript.sum.tolist() == plain(IDS)


def test_F05_too_few_answers():
    transcript = run_round(INPUTS, T, drops={0: "unmask", 1: "unmask", 2: "unmask"})
    assert transcript.sum is None
    assert "2 clients at 'unmask' are fewer than the threshold 3" in transcript.aborted
    assert f"the server aborted: {transcript.aborted}" in transcript.events
    assert transcript.survivors == transcript.opened_seeds == transcript.opened_keys == ()
    assert all(view.tolist() != INPUTS[i].tolist() for i, view in transcript.server_view.items())


# --- a lying server --------------------------------------------------------------------------------------------------


def test_F06_one_peer_both_survivor_and_dropped():
    made, requests = a_request()
    survivors, _, signatures = wire.decode_unmask(made.setup, requests[0])
    lie = wire.encode_unmask(made.setup, survivors, [4], signatures)
    with pytest.raises(Abort, match="4 are listed both as survivors and as dropped"):
        made.clients[0].unmask(lie)
    assert gone(made.clients[0])


def test_F07_asked_twice():
    made, requests = a_request((0, 1, 2, 3))
    made.clients[0].unmask(requests[0])
    client = made.clients[0]
    assert client._seed == client._mask_secret == b""    # with the answer on its way, the secrets are gone
    assert not client._seed_shares
    assert not client._key_shares
    assert client._cipher_key is client._mask_key is None
    with pytest.raises(Refused, match="once a round"):
        made.clients[0].unmask(requests[0])
    survivors, _, signatures = wire.decode_unmask(made.setup, requests[0])
    with pytest.raises(Refused, match="once a round"):
        made.clients[0].unmask(wire.encode_unmask(made.setup, survivors - {3}, [3, 4], signatures))


@pytest.mark.parametrize(
    ("survivors", "match"),
    [((0, 1), "2 survivors are fewer"), ((1, 2, 3, 4), "lists this client as dropped"), ((), "lists this client")],
)
def test_F08_impossible_survivors(survivors, match):
    made = a_round("survivors")
    with pytest.raises(Abort, match=match):
        made.clients[0].sign_survivors(wire.encode_survivors(made.setup, survivors))
    assert gone(made.clients[0])


def test_F08_survivors_and_dropped_that_never_shared():
    made = Round(Setup(bytes(16), IDS, T, D), drops={4: "share"}, seed=0)
    made.open()
    for i in (0, 1, 2, 3):
        made.upload(i, INPUTS[i])
    with pytest.raises(Abort, match="4 are called survivors, but never shared"):
        made.clients[0].sign_survivors(wire.encode_survivors(made.setup, IDS))
    honest = made.server.close_upload()
    for i in (1, 2, 3):
        made.server.receive_consistent(made.clients[i].sign_survivors(honest[i]))
    survivors, _, signatures = wire.decode_unmask(made.setup, made.server.close_consistency()[1])
    with pytest.raises(Abort, match="4 are called dropped, but never shared"):
        made.clients[1].unmask(wire.encode_unmask(made.setup, survivors, [4], signatures))


def test_F08_duplicates_and_strangers_cannot_even_be_written():
    made, requests = a_request()
    with pytest.raises(ValueError, match="twice"):
        wire.encode_survivors(made.setup, (0, 1, 1))
    with pytest.raises(ValueError, match="not in the cohort"):
        wire.encode_survivors(made.setup, (0, 1, 9))
    with pytest.raises(WireError, match="beyond the 5"):
        wire.decode_survivors(made.setup, frame("secagg-survivors", [made.setup.round_id, b"\xff"]))
    survivors, dropped, signatures = wire.decode_unmask(made.setup, requests[0])
    rows = [[i, s] for i, s in signatures.items()]
    sets = [wire.encode_set(made.setup, s) for s in (survivors, dropped)]
    with pytest.raises(WireError, match="twice"):        # the same signer three times does not make a threshold
        made.clients[0].unmask(frame("secagg-unmask", [made.setup.round_id, *sets, [rows[1]] * 3]))
    with pytest.raises(Abort, match="2 signatures of neighbours are fewer"):
        made.clients[0].unmask(frame("secagg-unmask", [made.setup.round_id, *sets, rows[:2]]))
    with pytest.raises(Abort, match="99, who are not survivors"):
        made.clients[1].unmask(frame("secagg-unmask", [made.setup.round_id, *sets, [*rows, [99, bytes(64)]]]))


def test_F09_different_survivors_for_different_clients():
    """One half is told that 4 dropped. Nobody gives a share, since no t clients have signed the same set."""

    def lie(message):
        if message.kind == "secagg-survivors" and message.receiver in (0, 1):
            return wire.encode_survivors(lie.setup, (0, 1, 2, 3))
        return message.data

    made = Round(Setup(new_round_id(), IDS, T, D), tamper=lie)
    lie.setup = made.setup
    made.open()
    for i in IDS:
        made.upload(i, INPUTS[i])
    assert made.close().tolist() == plain(IDS)           # the honest half is t = 3 strong; the deceived two said nothing
    deceived = [m for m in made.messages if m.kind == "secagg-unmasked"]
    assert {m.sender for m in deceived} == {2, 3, 4}
    # A server that also forwards the deceived signatures is found out by those who signed the other set.
    made, requests = a_request()
    survivors, _, signatures = wire.decode_unmask(made.setup, requests[0])
    other = made.clients[1]._identity.sign(wire.survivors_digest(made.setup, survivors - {4}))
    with pytest.raises(Abort, match="1 signed another set"):
        made.clients[0].unmask(wire.encode_unmask(made.setup, survivors, (), signatures | {1: other}))
    with pytest.raises(Abort, match="changed since this client signed"):
        made.clients[2].unmask(wire.encode_unmask(made.setup, survivors - {4}, [4], signatures))
    # And the honest server's last step takes no answer that was given for another set.
    sender, _, seeds, keys = wire.decode_unmasked(made.setup, made.clients[3].unmask(requests[3]))
    with pytest.raises(Refused, match="another set of survivors"):
        made.server.receive_unmasked(wire.encode_unmasked(made.setup, sender, bytes(32), seeds, keys))


@pytest.mark.parametrize(
    ("cohort", "threshold", "match"),
    [
        (IDS, 2, "more than half"), ((1, 2, 3, 4), 2, "more than half"), (IDS, 6, "exceeds"), (IDS, 1, "fewer than 2"),
        (IDS, 0, "fewer than 2"), ((1,), 2, "at least 2"), ((), 2, "at least 2"), ((1, 2, 2), 2, "duplicate ids"),
    ],
)  # fmt: skip
def test_F10_impossible_rounds(cohort, threshold, match):
    with pytest.raises(ValueError, match=match):
        Setup(bytes(16), cohort, threshold, D)


def test_F10_other_parameters():
    for wrong in ({"dimension": 0}, {"ring_bits": 7}, {"ring_bits": 65}, {"round_id": b""}, {"degree": 5}, {"degree": 3},
                  {"cohort": ("server", 1, 2)}):  # fmt: skip
        with pytest.raises(ValueError):
            Setup(**{"round_id": bytes(16), "cohort": IDS, "threshold": 3, "dimension": 4} | wrong)
    for wrong in ({"threshold": 3.0}, {"dimension": 4.0}, {"cohort": (1, 2.5, 3)}, {"cohort": (True, 2, 3)}):
        with pytest.raises(TypeError):
            Setup(**{"round_id": bytes(16), "cohort": IDS, "threshold": 3, "dimension": 4} | wrong)
    with pytest.raises(ValueError, match="not in the cohort"):
        SecureClient(Setup(bytes(16), IDS, T, D), 9, None, {})


def test_F11_false_rosters():
    made = a_round("share")
    rows = {keys.client: keys for keys in wire.decode_roster(made.setup, made.rosters[0])}
    fresh = Round(made.setup, seed=1).clients[0]
    mallory = wire.decode_advertise(made.setup, fresh.advertise())
    twin = wire.Keys(1, rows[2].cipher, rows[1].mask, rows[1].signature)
    stranger = wire.Keys(99, *[bytes([9 + i]) * 32 for i in range(2)], bytes(64))
    unsigned = wire.Keys(1, b"\x09" * 32, b"\x0a" * 32, rows[1].signature)
    cases = [
        ([mallory, *(rows[i] for i in (1, 2, 3, 4))], "own keys"),
        ([rows[i] for i in (1, 2, 3, 4)], "own keys"),
        ([rows[0], twin, rows[2], rows[3]], "two keys on the roster are equal"),
        ([rows[0], rows[1]], "2 clients on the roster are fewer"),
        ([*rows.values(), stranger], "strangers on the roster: 99"),
        ([*rows.values(), rows[3]], "names a client twice"),
        ([rows[0], unsigned, rows[2]], "keys of 1 are not signed"),
    ]
    for roster, match in cases:
        client = a_round("share").clients[0]
        with pytest.raises(Abort, match=match):
            client.share_keys(wire.encode_roster(made.setup, roster))
        assert gone(client)


def test_F12_altered_shares():
    """The server can rewrite its own frames, so each lie below is well framed; the encryption inside finds it."""
    made, other = a_round("inbox"), a_round("inbox", seed=1)
    boxes = wire.decode_inbox(made.setup, made.inboxes[0])
    sent_to_1 = wire.decode_inbox(made.setup, made.inboxes[1])
    foreign = wire.decode_inbox(other.setup, other.inboxes[0])
    flip = bytes([boxes[1][20] ^ 1])
    lies = {
        "bit-flipped": boxes | {1: boxes[1][:20] + flip + boxes[1][21:]},
        "truncated": boxes | {1: boxes[1][:-1]},
        "empty": boxes | {1: b""},
        "reflected": boxes | {1: sent_to_1[0]},
        "sender swapped": boxes | {1: boxes[2], 2: boxes[1]},
        "replayed": boxes | {1: foreign[1]},
    }
    for name, lie in lies.items():
        client = a_round("inbox").clients[0]
        with pytest.raises(Abort, match="do not decrypt"):
            client.receive_shares(wire.encode_inbox(made.setup, lie))
        assert gone(client), name
    with pytest.raises(WireError, match="another round"):
        a_round("inbox", seed=3).clients[0].receive_shares(made.inboxes[0])
    with pytest.raises(WireError, match="checksum"):
        made.clients[0].receive_shares(made.inboxes[0][:-9] + b"\0" + made.inboxes[0][-8:])
    made.clients[0].receive_shares(made.inboxes[0])      # what could not be read has changed nothing


def test_F12_shares_from_myself_or_a_stranger():
    made = a_round("inbox")
    boxes = wire.decode_inbox(made.setup, made.inboxes[0])
    for stranger in (0, 99):
        client = a_round("inbox").clients[0]
        with pytest.raises(Abort, match="not this client's neighbours"):
            client.receive_shares(wire.encode_inbox(made.setup, boxes | {stranger: boxes[1]}))


@pytest.mark.parametrize("both", [b"\xff" * 72, bytes(68), bytes(76), (2**31 - 1).to_bytes(4, "little") * 18])
def test_F12_shares_that_decrypt_and_are_none(both):
    """Encrypted as it should be, by a client that puts something else inside."""
    made = a_round("inbox")
    boxes = wire.decode_inbox(made.setup, made.inboxes[0])
    label = share_label(made.setup.round_id, 1, 0, b"")
    lie = bytes(12) + AESGCM(made.clients[1]._share_key(0, label)).encrypt(bytes(12), both, label)
    with pytest.raises(Abort, match="not 2 x 9 elements"):
        made.clients[0].receive_shares(wire.encode_inbox(made.setup, boxes | {1: lie}))
    assert gone(made.clients[0])


def test_F13_too_few_shares_in_the_inbox():
    made = a_round("inbox")
    boxes = wire.decode_inbox(made.setup, made.inboxes[0])
    with pytest.raises(Abort, match="shares of 1 neighbours"):
        made.clients[0].receive_shares(wire.encode_inbox(made.setup, {1: boxes[1]}))
    assert gone(made.clients[0])
    with pytest.raises(Refused):
        made.clients[0].upload(INPUTS[0])


def test_F14_two_uploads():
    client = a_round().clients[0]
    client.upload(INPUTS[0])
    with pytest.raises(Refused, match="once a round"):
        client.upload(INPUTS[0])


def test_F15_out_of_order():
    made, (survivors, request) = a_round("inbox"), (b"", b"")
    client = made.clients[0]
    steps = {
        "advertise": client.advertise, "share": lambda: client.share_keys(made.rosters[0]),
        "upload": lambda: client.upload(INPUTS[0]), "sign": lambda: client.sign_survivors(survivors),
        "unmask": lambda: client.unmask(request),
    }  # fmt: skip
    for step in steps.values():
        with pytest.raises(Refused, match="once a round"):
            step()
    assert client.stage == "shared"
    client.receive_shares(made.inboxes[0])               # and the round goes on as if nothing had been said
    for early in (made.server.close_consistency, made.server.finish, made.server.close_advertise):
        with pytest.raises(Refused, match="too late or too early"):
            early()
    made.server.receive_upload(client.upload(INPUTS[0]))


def test_F16_nothing_is_used_twice():
    used: set[bytes] = set()
    setup = Setup(new_round_id(), IDS, T, D)
    SecureClient(setup, 0, None, {}, used_rounds=used)
    with pytest.raises(Abort, match="used before"):
        SecureClient(setup, 0, None, {}, used_rounds=used)
    zeros = {i: np.zeros(3000, np.uint32) for i in range(3)}
    random.seed(0)
    one = run_round(zeros, 2)
    random.seed(0)
    two = run_round(zeros, 2)
    assert {m.data for m in one.messages}.isdisjoint({m.data for m in two.messages})
    for i in range(3):                                   # the difference of two uploads of one vector is uniform
        bits = (one.server_view[i] - two.server_view[i]) >> 28
        counts = np.bincount(bits, minlength=16)
        assert chi2.sf(((counts - 3000 / 16) ** 2 / (3000 / 16)).sum(), 15) > 1e-7


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_F17_inputs_that_are_not_integers_on_the_grid():
    grid = FixedPointGrid(1.0, 16, N)
    for poison in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="1 of 3 coordinates are NaN or infinite"):
            grid.encode(np.array([0.1, poison, 0.2]))
    client = a_round().clients[0]
    for wrong, error, match in (
        (np.array([0.0, np.nan, 1.0, 2.0]), TypeError, "integers on the grid"),
        (np.zeros(D, dtype=bool), TypeError, "integers"),
        (np.zeros(D + 1, dtype=int), ValueError, "shape"),
        (np.zeros((1, D), dtype=int), ValueError, "shape"),
        (np.array([0, 0, 0, -1]), ValueError, r"\[0, 4294967296\)"),
        (np.array([0, 0, 0, 2**32]), ValueError, r"\[0, 4294967296\)"),
    ):
        with pytest.raises(error, match=match):
            client.upload(wrong)
        assert client.stage == "ready"                   # refused before masking: nothing left the client
    client.upload(INPUTS[0])


def test_F18_beyond_the_clip_saturates_and_is_counted():
    grid = FixedPointGrid(clip=1.0, bits=8, clients=3)
    codes, saturated = grid.encode(np.array([5.0, -1e30, 1.0, -1.0, 0.0]))
    assert saturated == 2
    assert grid.decode(codes, 1).tolist() == [1.0, -1.0, 1.0, -1.0, 0.0]


@pytest.mark.parametrize(("bits", "clients"), [(8, 3), (16, 100), (16, 1), (32, 1000), (2, 85), (2, 86)])
def test_F19_the_ring_holds_everybody_at_the_maximum(bits, clients):
    grid = FixedPointGrid(clip=3.0, bits=bits, clients=clients)
    assert 2**grid.ring_bits >= clients * (2**bits - 1) + 1
    top = grid.encode(np.array([3.0]))[0]
    total = np.zeros_like(top)
    for _ in range(clients):
        total += top
    assert int(total[0]) == clients * (2**bits - 2)
    assert grid.decode(total, clients)[0] == pytest.approx(3.0 * clients)
    assert FixedPointGrid(3.0, bits, clients, ring_bits=grid.ring_bits) == grid
    with pytest.raises(ValueError, match="ring_bits"):
        FixedPointGrid(3.0, bits, clients, ring_bits=grid.ring_bits - 1)


# --- wrong shares, wrong uploads -------------------------------------------------------------------------------------


def lie_about_shares(setup, liars, value=None):
    def tamper(message):
        if message.kind != "secagg-unmasked" or message.sender not in liars:
            return message.data
        sender, digest, seeds, keys = wire.decode_unmasked(setup, message.data)
        # A different bit for each liar: equal errors can cancel, because some Lagrange weights are opposite.
        seeds, keys = ({i: value or bytes([s[0] ^ 1 << sender]) + s[1:] for i, s in shares.items()} for shares in (seeds, keys))
        return wire.encode_unmasked(setup, sender, digest, seeds, keys)

    return tamper


@pytest.mark.parametrize("liars", [(0,), (1,), (2,), (3,), (0, 2)])
@pytest.mark.parametrize("value", [None, b"\xff" * 36])
def test_F20_wrong_shares_are_found_and_their_senders_named(liars, value):
    setup = Setup(new_round_id(), tuple(range(6)), 4, D)
    made = Round(setup, drops={5: "upload"} if len(liars) == 1 else {}, tamper=lie_about_shares(setup, liars, value))
    made.open()
    for i in IDS:
        made.upload(i, INPUTS[i])
    made.upload(5, INPUTS[0])
    total = made.close()
    honest = IDS if len(liars) == 1 else (*IDS, 0)
    assert total.tolist() == plain(honest)
    assert made.transcript(total).liars == liars


def test_F20_too_many_wrong_shares_abort():
    setup = Setup(new_round_id(), IDS, T, D)
    made = Round(setup, tamper=lie_about_shares(setup, (0, 1, 2)))
    made.open()
    for i in IDS:
        made.upload(i, INPUTS[i])
    assert made.close() is None
    assert "too many of them are wrong" in made.aborted


def test_F21_false_uploads():
    made = a_round()
    message = made.clients[0].upload(INPUTS[0])
    made.server.receive_upload(message)
    with pytest.raises(Refused, match="already sent"):
        made.server.receive_upload(message)
    with pytest.raises(Refused, match="99 is not expected"):
        made.server.receive_upload(wire.encode_masked(made.setup, 99, INPUTS[0]))
    with pytest.raises(Refused, match="already sent"):
        a_second_advertisement()
    for wrong in (INPUTS[1][:-1], np.zeros(D + 1, np.uint32)):
        with pytest.raises(WireError, match="does not fit the round"):
            made.server.receive_upload(wire.encode_masked(made.setup, 1, wrong))
    for i in (1, 2):
        made.server.receive_upload(made.clients[i].upload(INPUTS[i]))
    assert made.close().tolist() == plain((0, 1, 2))     # the round goes on without the false ones


def a_second_advertisement():
    """Signed and well made, by a client that has advertised other keys before; and by nobody whom the directory knows."""
    made = a_round("advertise")
    again = SecureClient(made.setup, 0, made.clients[0]._identity, made.clients[0]._directory)
    made.server.receive_advertise(made.clients[0].advertise())
    stranger = Round(Setup(made.setup.round_id, (7, 8), 2, D), seed=0).clients[7]
    with pytest.raises(Refused, match="7 is not expected"):
        made.server.receive_advertise(stranger.advertise())
    made.server.receive_advertise(again.advertise())


def test_F21_shares_that_nobody_asked_for():
    made, requests = a_request((0, 1, 2, 3))
    sender, digest, seeds, keys = wire.decode_unmasked(made.setup, made.clients[0].unmask(requests[0]))
    for more_seeds, more_keys in (({4: bytes(36)}, {}), ({}, {1: bytes(36)}), ({99: bytes(36)}, {}), ({}, {99: bytes(36)})):
        with pytest.raises(Refused, match="nobody asked for"):
            made.server.receive_unmasked(wire.encode_unmasked(made.setup, sender, digest, seeds | more_seeds, keys | more_keys))
    made.server.receive_unmasked(wire.encode_unmasked(made.setup, sender, digest, seeds, keys))


def test_F22_a_late_upload_is_ignored_and_stays_hidden():
    made = a_round("survivors", (0, 1, 2, 3))
    announced = made.server.close_upload()
    late = made.clients[4].upload(INPUTS[4])
    with pytest.raises(Refused, match="too late"):
        made.server.receive_upload(late)
    for i, message in announced.items():
        made.server.receive_consistent(made.clients[i].sign_survivors(message))
    for i, request in made.server.close_consistency().items():
        made.server.receive_unmasked(made.clients[i].unmask(request))
    assert made.server.finish().tolist() == plain((0, 1, 2, 3))
    # The server now has 4's mask key and could take out every pair mask; the self mask alone still hides the input.
    hidden = wire.decode_masked(made.setup, late)[1]
    assert 4 in made.server.opened_keys
    assert 4 not in made.server.opened_seeds
    own = mask(made.clients[4]._seed, D, 32)
    pairs = sum(s * mask(k, D, 32).astype(np.int64) for k, s in map(made.clients[4]._pair_seed, (0, 1, 2, 3)))
    without_pairs = (hidden.astype(np.int64) - pairs) % 2**32
    assert without_pairs.tolist() != INPUTS[4].tolist()
    assert ((without_pairs - own) % 2**32).tolist() == INPUTS[4].tolist()


def test_F23_an_announced_upload_is_missing():
    made, requests = a_request()
    for i, request in requests.items():
        made.server.receive_unmasked(made.clients[i].unmask(request))
    del made.server.view[2]
    with pytest.raises(Abort, match=r"announced survivors \[2\] are missing"):
        made.server.finish()
    assert not made.server.opened_seeds


def test_F24_the_server_has_nothing_that_a_robust_rule_could_use():
    """Distances of what it holds are those of random vectors, whatever the inputs are: one outlier is not to be seen."""
    d = 4000
    inputs = {i: np.zeros(d, np.uint32) for i in range(5)} | {4: np.full(d, 2**31, np.uint32)}
    view = run_round(inputs, 3).server_view
    spread = 2**32 / np.sqrt(12)                         # the standard deviation of uniform numbers
    norms = [np.linalg.norm(v.astype(np.float64) - 2**31) / np.sqrt(d) / spread for v in view.values()]
    assert np.allclose(norms, 1, atol=0.05)
    closest = [min(abs(np.corrcoef(view[i], view[j])[0, 1]) for j in view if j != i) for i in view]
    assert max(closest) < 0.1


def test_F25_clients_that_received_different_models():
    """Their shares do not decrypt for the others, so nobody uploads; were they to upload, masks would not cancel."""
    transcript = run_round(INPUTS, T, model_hash=b"model A", model_hashes={4: b"model B"})
    assert transcript.sum is None
    assert sum("received another model" in event for event in transcript.events) == N
    assert not transcript.server_view
    one, other = a_round(model_hash=b"A").clients, a_round(model_hash=b"B").clients
    (seed, _), (same, _), (foreign, _) = one[0]._pair_seed(1), one[1]._pair_seed(0), other[1]._pair_seed(0)
    assert seed == same != foreign
    assert run_round(INPUTS, T, model_hash=b"model A").sum.tolist() == plain(IDS)
    shared = SharedWork()
    shared.add_pair_masks(np.zeros(4, np.uint32), 0, {1: (seed, 1)})
    with pytest.raises(ValueError, match="honest rounds only"):
        shared.add_pair_masks(np.zeros(4, np.uint32), 1, {0: (foreign, -1)})


def test_F26_a_sum_of_too_few_is_never_opened():
    transcript = run_round(INPUTS, T, drops={0: "upload", 1: "upload", 2: "upload"})
    assert transcript.sum is None
    assert "2 clients at 'upload' are fewer than the threshold" in transcript.aborted
    few = a_round("survivors", (0, 1))
    with pytest.raises(Abort, match="2 clients at 'upload'"):
        few.server.close_upload()
    assert few.server.stage == "aborted"                 # for good
    with pytest.raises(Refused, match="at 'aborted'"):
        few.server.receive_upload(few.clients[2].upload(INPUTS[2]))
    made = a_round("survivors")                          # nor by clients that a server asks all the same
    with pytest.raises(Abort, match="fewer than the threshold 3"):
        made.clients[0].sign_survivors(wire.encode_survivors(made.setup, (0, 1)))


def test_F27_sample_counts_ride_inside_the_sum():
    grid = FixedPointGrid(clip=1.0, bits=16, clients=N, max_weight=1000)
    examples = {0: 10, 1: 1000, 2: 333, 3: 1, 4: 77}
    inputs = {i: grid.encode_weighted(np.array([0.1 * i, -0.5]), n)[0] for i, n in examples.items()}
    transcript = run_round(inputs, T, ring_bits=grid.ring_bits, drops={3: "unmask"})
    total, weight = grid.decode_weighted(transcript.sum)
    assert weight == sum(examples.values())
    assert total / weight == pytest.approx([sum(0.1 * i * n for i, n in examples.items()) / weight, -0.5], abs=1e-4)
    for message in transcript.messages:                  # no field of any message is a count: ids, bytes and bitmaps only
        assert not {n for n in examples.values() if n > 9} & set(numbers(unframe(message.data, message.kind)))


def numbers(body):
    if isinstance(body, list):
        return [n for part in body for n in numbers(part)]
    return [body] if isinstance(body, int | float) else []


# --- randomness ------------------------------------------------------------------------------------------------------


def test_F28_masks_use_the_whole_seed_and_the_whole_ring():
    base, d = bytes(32), 4096
    for byte in range(32):                               # a generator seeded with 32 folded bits would miss most of these
        pair = [mask(base[:byte] + bytes([v]) + base[byte + 1 :], d, 8) for v in (1, 2)]
        assert np.count_nonzero(pair[0] == pair[1]) < 3 * d / 256
    swapped = [mask(a * 16 + b * 16, d, 8) for a, b in ((b"\x01", b"\x02"), (b"\x02", b"\x01"))]
    assert np.count_nonzero(swapped[0] == swapped[1]) < 3 * d / 256
    values = set(mask(base, 20_000, 8).tolist())
    assert values == set(range(256))                     # 0 and R − 1 included


def test_F29_coefficients_are_fresh_uniform_and_the_field_is_large_enough():
    assert P521 > 2**256
    secret = 2**256 - 1
    assert {y for _, y in share(secret, 2, 3)}.isdisjoint({y for _, y in share(secret, 2, 3)})
    with pytest.raises(ValueError, match="outside the field"):
        share(P521, 2, 3)
    shares = share_keys([b"\xff" * 32] * 4000, 2, 2)[0].astype(np.int64).reshape(-1)
    counts = np.bincount(shares * 16 // (2**31 - 1), minlength=16)
    assert chi2.sf(((counts - counts.sum() / 16) ** 2 / (counts.sum() / 16)).sum(), 15) > 1e-7


@pytest.mark.parametrize("stage", ["advertise", "share", "upload", "consistency", "unmask"])
def test_F30_everybody_vanishes(stage):
    transcript = run_round(INPUTS, T, drops=dict.fromkeys(IDS, stage))
    assert transcript.sum is None
    assert transcript.aborted.startswith(f"0 clients at '{stage}'")
    assert run_round(INPUTS, T).sum.tolist() == plain(IDS)              # the next round starts fresh


def test_every_row_has_its_test():
    rows = {name[5:8] for name in globals() if name.startswith("test_F")}
    assert rows == {f"F{row:02d}" for row in range(1, 31)}


def test_a_lost_message_is_a_drop_out():
    """Whatever single message the network loses, the sum is exact for the others or the round is aborted."""
    kinds = {m.kind for m in run_round(INPUTS, T).messages}
    for kind in sorted(kinds):
        def lose(message, kind=kind):
            return None if message.kind == kind and 2 in (message.sender, message.receiver) else message.data

        transcript = run_round(INPUTS, T, tamper=lose, seed=1)
        assert transcript.aborted is None
        assert transcript.sum.tolist() == plain(transcript.survivors)
        assert not set(transcript.opened_seeds) & set(transcript.opened_keys)


def test_a_flipped_bit_on_the_way_is_a_drop_out():
    for kind in ("secagg-advertise", "secagg-inbox", "secagg-masked", "secagg-unmask"):
        def flip(message, kind=kind):
            hit = message.kind == kind and 2 in (message.sender, message.receiver)
            return message.data[:30] + bytes([message.data[30] ^ 4]) + message.data[31:] if hit else message.data

        transcript = run_round(INPUTS, T, tamper=flip, seed=1)
        assert transcript.sum.tolist() == plain(transcript.survivors)


def test_messages_are_plain_msgpack():
    message = run_round(INPUTS, T, seed=0).messages[0]
    assert msgpack.unpackb(message.data[4:-4])[0] == "secagg-advertise"
