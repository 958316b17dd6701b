"""Secure aggregation as a whole: exact sums for every drop-out pattern, uniform uploads, and the parts they rest on."""

from __future__ import annotations

import contextlib
import math
import random
from fractions import Fraction
from itertools import combinations_with_replacement, product

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from fl_course.secure_aggregation import (
    STAGES,
    FixedPointGrid,
    Round,
    Setup,
    SharedWork,
    add_mask,
    components,
    insecure_random,
    mask,
    new_round_id,
    pack,
    recommended_degree,
    run_round,
    unpack,
)  # fmt: skip
from fl_course.secure_aggregation import messages as wire
from fl_course.secure_aggregation.graph import why_closed
from fl_course.secure_aggregation.masking import commitment, hkdf, pair_seed, share_label
from fl_course.wire.messages import WireError
from fl_course.wire.ring import ring_dtype


def vectors(ids, d=3, bits=32, seed=0):
    rng = np.random.default_rng(seed)
    return {i: rng.integers(0, (1 << bits) - 1, d, dtype=np.uint64, endpoint=True) for i in ids}


def plain_sum(inputs, ids, bits=32):
    """The slow way, in Python integers."""
    columns = zip(*(inputs[i].tolist() for i in ids), strict=True)
    return [sum(column) % (1 << bits) for column in columns]


def expected(ids, threshold, drops):
    """Who should be in the sum on a complete graph: nobody unless at least t get through every stage."""
    present, uploaded = list(ids), []
    for stage in STAGES:
        present = [i for i in present if drops.get(i) != stage]
        if len(present) < threshold:
            return None
        if stage == "upload":
            uploaded = list(present)
    return uploaded


def check(inputs, threshold, drops, bits=32, **options):
    transcript = run_round(inputs, threshold, ring_bits=bits, drops=drops, shared_work=True, **options)
    survivors = expected(inputs, threshold, drops)
    if survivors is None:
        assert transcript.sum is None
        assert transcript.aborted is not None
        assert transcript.survivors == ()
        assert not transcript.opened_seeds
        assert not transcript.opened_keys
    else:
        assert transcript.aborted is None
        assert list(transcript.survivors) == survivors
        assert transcript.sum.tolist() == plain_sum(inputs, survivors, bits)
        shared = [i for i in inputs if drops.get(i) not in ("advertise", "share")]
        assert set(transcript.opened_seeds) == set(survivors)
        assert set(transcript.opened_keys) == set(shared) - set(survivors)
    return transcript


# --- drop-outs ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("n", "t"), [(2, 2), (3, 2), (4, 3)])
def test_every_client_at_every_stage(n, t):
    inputs = vectors(range(n))
    for number, pattern in enumerate(product((None, *STAGES), repeat=n)):
        check(inputs, t, {i: stage for i, stage in enumerate(pattern) if stage}, seed=number)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "t"), [(5, 3), (6, 4)])
def test_every_pattern_up_to_the_names_of_the_clients(n, t):
    inputs, shuffle = vectors(range(n)), random.Random(0)
    for number, pattern in enumerate(combinations_with_replacement((None, *STAGES), n)):
        who = shuffle.sample(range(n), n)
        check(inputs, t, {i: stage for i, stage in zip(who, pattern, strict=True) if stage}, seed=number)


def test_random_drop_outs_of_a_hundred_clients():
    ids, chance = [f"phone-{i}" for i in range(100)], random.Random(1)
    drops = {i: chance.choice(STAGES) for i in ids if chance.random() < 0.3}
    transcript = check(vectors(ids, d=5, bits=40), 67, drops, bits=40)
    assert 67 <= len(transcript.survivors) < 100


@pytest.mark.parametrize("bits", [8, 11, 16, 17, 26, 32, 33, 63, 64])
def test_every_ring(bits):
    check(vectors("abcd", d=7, bits=bits), 3, {"b": "upload", "c": "unmask"}, bits=bits)


def test_ids_may_be_strings_gaps_and_in_any_order():
    check(vectors([7, "7", "x", 1000, -3]), 3, {"7": "upload", -3: "consistency"})


# --- the graph of SecAgg+ -------------------------------------------------------------------------------------------


def a_setup(n=12, t=4, degree=4, d=3, round_id=bytes(16), bits=32):
    return Setup(round_id, tuple(range(n)), t, d, bits, degree)


@pytest.mark.parametrize(("n", "k"), [(4, 2), (12, 4), (12, 5), (12, 11), (13, 6), (50, 20)])
def test_the_graph_is_regular_symmetric_and_connected(n, k):
    setup = a_setup(n, (k + 1) // 2 + 1, k)
    for i in range(n):
        assert len(set(setup.neighbours(i)) - {i}) == k
        assert all(i in setup.neighbours(j) for j in setup.neighbours(i))
        assert setup.holders(i) == tuple(sorted({i, *setup.neighbours(i)}))
        assert [setup.point(i, j) for j in setup.holders(i)] == list(range(1, k + 2))
    assert components(setup, range(n)) == 1
    assert components(setup, ()) == components(a_setup(n, n, None), ()) == 0


def test_the_graph_changes_with_the_round_and_cuts_are_noticed():
    one, other = a_setup(), a_setup(round_id=b"\x01" * 16)
    assert any(one.neighbours(i) != other.neighbours(i) for i in range(12))
    ring = a_setup(12, 2, 2)
    assert components(ring, range(12)) == components(ring, set(range(12)) - {3}) == 1
    gone = {0, next(j for j in range(1, 12) if j not in ring.neighbours(0))}
    assert components(ring, set(range(12)) - gone) == 2


@pytest.mark.parametrize("drops", [{}, {1: "upload", 5: "share"}, {0: "advertise", 7: "consistency", 9: "unmask"}])
def test_the_sum_on_a_graph_equals_the_sum_on_the_complete_graph(drops):
    inputs = vectors(range(12), d=4)
    sparse = run_round(inputs, 4, degree=6, drops=drops)
    full = run_round(inputs, 7, drops=drops)
    assert sparse.survivors == full.survivors
    assert sparse.sum.tolist() == full.sum.tolist() == plain_sum(inputs, sparse.survivors)
    boxes = {kind: sum(m.kind == kind for m in sparse.messages) for kind in ("secagg-shares", "secagg-masked")}
    assert boxes == {kind: sum(m.kind == kind for m in full.messages) for kind in boxes}
    assert sparse.bytes_by_kind()["secagg-shares"] < 0.7 * full.bytes_by_kind()["secagg-shares"]


def test_survivors_that_fall_apart_are_never_summed():
    """Every remaining client has its threshold of holders, but the masks of the two halves cancel separately."""
    ring = Setup(bytes(16), tuple(range(12)), 2, 1, 32, 2)
    order = [0, ring.neighbours(0)[0]]
    while len(order) < 12:
        order.append(next(j for j in ring.neighbours(order[-1]) if j != order[-2]))
    cut = Round(ring, {order[0]: "upload", order[6]: "upload"}, seed=0)
    cut.open()
    for i in ring.cohort:
        cut.upload(i, np.array([1]))
    assert cut.close() is None
    assert "fall apart" in cut.aborted
    # A lying server that goes on regardless is refused by the clients themselves.
    survivors = [i for i in ring.cohort if i not in (order[0], order[6])]
    with pytest.raises(wire.Abort, match="fall apart"):
        cut.clients[order[1]].sign_survivors(wire.encode_survivors(ring, survivors))


def test_a_secret_with_too_few_holders_left_ends_the_round():
    """Two clients away on either side of one: it is the only holder of its own secrets that can answer."""
    setup = a_setup(12, 4, 4, d=1)
    alone = next(i for i in setup.cohort if components(setup, set(setup.cohort) - set(setup.neighbours(i)[:2])) == 1)
    gone = setup.neighbours(alone)[:2]
    made = Round(setup, dict.fromkeys(gone, "upload"), seed=0)
    made.open()
    for i in setup.cohort:
        made.upload(i, np.array([1]))
    survivors = [i for i in setup.cohort if i not in gone]
    told = made.server.close_upload()
    with pytest.raises(wire.Abort, match="3 survivors are fewer than the threshold 4"):
        made.clients[alone].sign_survivors(told[alone])         # there are ten in all, but three around this one
    for i in survivors:
        if i != alone:
            with contextlib.suppress(wire.Abort):
                made.server.receive_consistent(made.clients[i].sign_survivors(told[i]))
    for i, request in made.server.close_consistency().items():
        assert set(wire.decode_unmask(setup, request)[2]) <= set(setup.holders(i))          # what it can check, no more
        with contextlib.suppress(wire.Abort):
            made.server.receive_unmasked(made.clients[i].unmask(request))
    with pytest.raises(wire.Abort, match=r"are fewer than the threshold 4|at 'unmask'"):
        made.server.finish()
    assert why_closed(setup, survivors)


def test_a_client_counts_the_signatures_of_its_own_neighbours():
    setup = a_setup(12, 4, 4, d=1)
    made = Round(setup, seed=0)
    made.open()
    for i in setup.cohort:
        made.upload(i, np.array([1]))
    signatures = {}
    for i, message in made.server.close_upload().items():
        signatures[i] = wire.decode_consistent(setup, made.clients[i].sign_survivors(message))[1]
    me = setup.cohort[0]
    others = {i: s for i, s in signatures.items() if i not in setup.neighbours(me)[:2]}
    with pytest.raises(wire.Abort, match="3 signatures of neighbours are fewer than the threshold 4"):
        made.clients[me].unmask(wire.encode_unmask(setup, setup.cohort, (), others))


def hypergeometric_tail(population, marked, drawn, least):
    """P(at least `least` marked among `drawn`), exactly."""
    ways = sum(math.comb(marked, x) * math.comb(population - marked, drawn - x) for x in range(least, drawn + 1))
    return Fraction(ways, math.comb(population, drawn))


@pytest.mark.parametrize(("n", "corrupt", "dropped", "security", "reliability"), [
    (500, 0.2, 0.2, 40, 30), (300, 0.101, 0.1, 20, 20), (60, 0.1, 0.1, 10, 8), (100, 0.05, 0.3, 12, 10),
    (51, 0.15, 0.02, 6, 4), (51, 0.25, 0.05, 6, 4),
])  # fmt: skip
def test_the_recommended_degree_is_the_smallest_that_keeps_three_promises(n, corrupt, dropped, security, reliability):
    """In exact fractions: nobody's neighbours betray it, the survivors stay connected, t of everybody's holders answer."""
    def fits(k, t):
        bad, left = math.ceil(corrupt * n), int((1 - dropped) * n)
        apart = n * Fraction(str(corrupt + dropped)) ** (k // 2)
        opened = n * hypergeometric_tail(n - 1, bad, k, t)
        failed = n * (1 - hypergeometric_tail(n - 1, left, k, t))
        return apart <= Fraction(1, 2**security) and opened <= Fraction(1, 2**security) and failed <= Fraction(1, 2**reliability)

    k, t = recommended_degree(n, corrupt, dropped, security, reliability)
    assert k < n - 1
    assert fits(k, t)
    assert 2 * t > k + 1
    assert not any(fits(k, smaller) for smaller in range((k + 1) // 2 + 1, t))
    assert not any(fits(k - 2, other) for other in range((k - 1) // 2 + 1, k - 1))


def test_the_recommended_degree_grows_like_the_logarithm():
    assert recommended_degree(20) == (19, 14)
    degrees = [recommended_degree(n) for n in (500, 1000, 10_000)]
    assert degrees == sorted(degrees)
    assert degrees[-1][0] < 200
    assert all(2 * t > k for k, t in degrees)
    with pytest.raises(ValueError, match="corrupt"):
        recommended_degree(100, corrupt=0.6, dropped=0.5)


# --- what the server sees -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [16, 26])
def test_masked_vectors_are_uniform_in_high_and_low_bits(bits):
    d = 16_000
    for value in (0, (1 << bits) - 1):
        inputs = {i: np.full(d, value) for i in range(3)}
        for seen in run_round(inputs, 2, ring_bits=bits).server_view.values():
            for digits in (seen >> (bits - 4), seen & 15):
                counts = np.bincount(digits.astype(np.int64), minlength=16)
                assert chi2.sf(((counts - d / 16) ** 2 / (d / 16)).sum(), 15) > 1e-7


def test_the_uploads_alone_do_not_add_up_to_the_sum():
    """Pair masks cancel in it, self masks do not: that protects an upload that arrives too late."""
    inputs = vectors(range(4), d=50)
    view = run_round(inputs, 3).server_view
    assert np.count_nonzero(sum(view.values()) == np.array(plain_sum(inputs, inputs))) <= 2


def test_two_rounds_share_nothing_whatever_the_seeds_of_other_generators():
    seen = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)                                                               # noqa: NPY002
        torch.manual_seed(0)
        transcript = run_round({i: np.zeros(2000, np.uint32) for i in range(3)}, 2)
        seen.append(transcript)
    assert seen[0].setup.round_id != seen[1].setup.round_id
    assert {m.data for m in seen[0].messages}.isdisjoint(m.data for m in seen[1].messages)
    for i in range(3):
        assert np.count_nonzero(seen[0].server_view[i] == seen[1].server_view[i]) <= 2


def test_a_seed_makes_a_round_reproducible():
    one, same, other = (run_round(vectors(range(4)), 3, seed=s, drops={1: "upload"}) for s in (5, 5, 6))
    assert one.messages == same.messages
    assert {m.data for m in one.messages}.isdisjoint(m.data for m in other.messages)
    keys = []                                            # and no secret of one round is a secret of the next
    for number in (1, 2):
        made = Round(a_setup(4, 3, None, round_id=bytes([number]) * 16), seed=5)
        made.open()
        keys.append({part for k in made.server.keys.values() for part in (k.cipher, k.mask)})
        keys[-1] |= {client._seed for client in made.clients.values()}
    assert keys[0].isdisjoint(keys[1])


def test_every_secret_is_bound_to_every_word_that_names_it():
    def differ(make, *words):
        others = [b"\x07" * 32 if isinstance(word, bytes) else (8, 9) if isinstance(word, tuple) else 7 for word in words]
        variants = [words, *((*words[:i], other, *words[i + 1 :]) for i, other in enumerate(others))]
        assert len({make(*v) for v in variants}) == len(words) + 1

    differ(pair_seed, b"s" * 32, b"r" * 16, (1, 2), b"m" * 32)
    assert pair_seed(b"s", b"r", (1, 2), b"") != pair_seed(b"s", b"r", (2, 1), b"")
    differ(share_label, b"r" * 16, 1, 2, b"m" * 32)
    differ(commitment, b"r" * 16, 1, b"s" * 32)
    setup, other = a_setup(), a_setup(round_id=b"\x01" * 16)
    differ(lambda client, cipher, mask: wire.Keys(client, cipher, mask, b"").digest(setup), 1, b"c" * 32, b"m" * 32)
    assert wire.Keys(1, b"c", b"m", b"").digest(setup) != wire.Keys(1, b"c", b"m", b"").digest(other)


# --- in a training loop ---------------------------------------------------------------------------------------------


def test_shared_work_changes_no_bit_of_any_message():
    for drops in ({}, {0: "upload", 3: "share"}):
        alone, shared = (
            run_round(vectors(range(6), d=40_000, bits=26), 4, ring_bits=26, seed=3, drops=drops, shared_work=flag)
            for flag in (False, True)
        )
        assert alone.messages == shared.messages
        assert alone.sum.tolist() == shared.sum.tolist()


def test_shared_work_believes_no_signature_unseen_and_keeps_no_mask():
    identity = Ed25519PrivateKey.generate()
    public, shared = identity.public_key().public_bytes_raw(), SharedWork()
    for _ in range(2):
        assert not shared.signature_ok(public, b"said", bytes(64))
        assert shared.signature_ok(public, b"said", identity.sign(b"said"))
        assert not shared.signature_ok(public, b"other", identity.sign(b"said"))
    made = Round(a_setup(4, 3, None), shared_work=True)
    made.open()
    for i in range(4):
        made.upload(i, np.zeros(3, int))
    assert made.clients[0]._shared.aside == {}


def test_the_loop_may_add_the_masked_vectors_itself():
    inputs = vectors(range(5), d=6, bits=20)
    setup = Setup(new_round_id(), tuple(inputs), 3, 6, 20)
    one = Round(setup)
    one.open()
    assert one.ready == (0, 1, 2, 3, 4)
    masked = {}
    for i in (3, 0, 4, 1):                                           # client 2 is lost; the order does not matter
        message = one.upload(i, inputs[i], arrives=False)
        masked[i] = wire.decode_masked(setup, message)[1]
    total = np.sum(list(masked.values()), axis=0, dtype=np.uint32)
    before = total.copy()
    assert one.server.view == {}                                     # the server adds nothing up by itself
    assert one.close(total, tuple(masked)).tolist() == plain_sum(inputs, masked, 20)
    assert total.tolist() == before.tolist()                         # and does not write into the loop's sum
    assert one.transcript(total).survivors == (0, 1, 3, 4)


def test_a_sum_that_does_not_fit_the_round_is_refused():
    one = Round(a_setup(5, 3, None))
    one.open()
    for total, who in ((np.zeros(4, np.uint32), (0, 1, 2)), (np.zeros(3), (0, 1, 2))):
        with pytest.raises(ValueError, match="the sum must be"):
            one.server.receive_sum(total, who)
    for who in ((0, 1, 1), (0, 1, 99)):
        with pytest.raises(ValueError, match="each named once"):
            one.server.receive_sum(np.zeros(3, np.uint32), who)
    two = Round(a_setup(5, 3, None), {4: "share"})
    two.open()
    with pytest.raises(ValueError, match="each named once"):
        two.server.receive_sum(np.zeros(3, np.uint32), (0, 1, 4))    # it advertised, and shared nothing
    three = Round(a_setup(5, 3, None), dict.fromkeys((0, 1, 2), "advertise"))
    three.open()
    assert three.close(np.zeros(3, np.uint32), ()) is None
    assert "2 clients at 'advertise'" in three.aborted


def test_who_vanished_is_not_ready():
    one = Round(a_setup(4, 3, None), {2: "upload"})
    one.open()
    assert one.ready == (0, 1, 2, 3)                                 # it vanishes before its upload, and not yet
    assert one.upload(2, np.zeros(3, int)) is None
    assert one.ready == (0, 1, 3)


def test_unknown_drop_outs_are_refused():
    for drops in ({9: "upload"}, {1: "lunch"}):
        with pytest.raises(ValueError, match="drops"):
            run_round(vectors(range(3)), 2, drops=drops)


# --- messages -------------------------------------------------------------------------------------------------------

DECODERS = {
    "secagg-advertise": wire.decode_advertise, "secagg-roster": wire.decode_roster, "secagg-shares": wire.decode_shares,
    "secagg-inbox": wire.decode_inbox, "secagg-masked": wire.decode_masked, "secagg-survivors": wire.decode_survivors,
    "secagg-consistent": wire.decode_consistent, "secagg-unmask": wire.decode_unmask,
    "secagg-unmasked": wire.decode_unmasked,
}  # fmt: skip


def test_nine_kinds_of_message_and_their_bytes():
    transcript = run_round(vectors(range(4)), 3, drops={2: "upload"})
    assert set(transcript.bytes_by_kind()) == set(DECODERS)
    assert sum(transcript.bytes_by_kind().values()) == sum(m.nbytes for m in transcript.messages)
    assert all((m.sender == "server") != (m.receiver == "server") for m in transcript.messages)


def test_truncated_altered_and_foreign_messages_are_refused():
    transcript = run_round(vectors(range(4)), 3, drops={2: "upload"}, seed=0)
    setup, other = transcript.setup, a_setup(4, 3, None, round_id=b"\x07" * 16)
    for kind, decode in DECODERS.items():
        data = next(m.data for m in transcript.messages if m.kind == kind)
        decode(setup, data)
        with pytest.raises(WireError, match="another round"):
            decode(other, data)
        with pytest.raises(WireError, match="kind"):
            next(d for k, d in DECODERS.items() if k != kind)(setup, data)
        for end in range(0, len(data), 7):
            with pytest.raises(WireError):
                decode(setup, data[:end])
        for at in range(0, len(data), 11):
            with pytest.raises(WireError):
                decode(setup, data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])


def reframe(kind, setup, *fields):
    return wire.frame(kind, [setup.round_id, *fields])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("secagg-advertise", [0, bytes(32), bytes(32)]),
        ("secagg-advertise", [0, bytes(31), bytes(32), bytes(64)]),
        ("secagg-advertise", [1.5, bytes(32), bytes(32), bytes(64)]),
        ("secagg-roster", [{}]),
        ("secagg-roster", [[[0, bytes(32)]]]),
        ("secagg-shares", [0, bytes(32), [[1, b"box"], [1, b"box"]]]),
        ("secagg-shares", [0, bytes(32), [[1]]]),
        ("secagg-shares", [True, bytes(32), []]),
        ("secagg-inbox", ["boxes"]),
        ("secagg-inbox", [[[1, "text"]]]),
        ("secagg-masked", [0, bytes(11)]),
        ("secagg-masked", [0, bytes(13)]),
        ("secagg-masked", [0, [1, 2, 3]]),
        ("secagg-survivors", [bytes(2)]),
        ("secagg-survivors", [b"\x1f"]),
        ("secagg-consistent", [0, bytes(63)]),
        ("secagg-unmask", [b"\x0f", b"\x00", [[0, bytes(64)], [0, bytes(64)]]]),
        ("secagg-unmasked", [0, bytes(32), [[1, bytes(35)]], []]),
        ("secagg-unmasked", [0, bytes(32), [], [[1, bytes(35)]]]),
        ("secagg-shares", [0, bytes(32), [[1, bytes(99)]]]),
        ("secagg-shares", [0, bytes(32), [[1, bytes(101)]]]),
        ("secagg-roster", [[[0, bytes(32), bytes(32), bytes(64), 0]]]),
    ],
)
def test_well_framed_nonsense_is_refused(kind, fields):
    setup = a_setup(4, 3, None)
    with pytest.raises(WireError):
        DECODERS[kind](setup, reframe(kind, setup, *fields))


def test_sets_of_clients():
    setup = a_setup(12, 7, None)
    for named in ((), (0,), (11, 3, 5), range(12)):
        assert wire.decode_set(setup, wire.encode_set(setup, named)) == set(named)
    with pytest.raises(ValueError, match="not in the cohort"):
        wire.encode_set(setup, [12])
    with pytest.raises(ValueError, match="named twice"):
        wire.encode_set(setup, [3, 3])


# --- integers modulo 2^b, masks, keys -------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(8, 65))
def test_packing_equals_one_long_python_integer(bits):
    for size in (1, 7, 8, 9, 30):
        vector = vectors("x", size, bits, seed=size)["x"].astype(ring_dtype(bits))
        number = sum(int(v) << (bits * i) for i, v in enumerate(vector))
        packed = pack(vector, bits)
        assert packed == number.to_bytes(-(-size * bits // 8), "little")
        assert unpack(packed, bits, size).tolist() == vector.tolist()
        assert unpack(packed, bits, size).dtype == vector.dtype
        with pytest.raises(ValueError, match="bytes, not"):
            unpack(packed + b"\0", bits, size)


@given(st.integers(8, 64), st.sampled_from(["i8", "u8", "i4", "u4", "u2", "i2"]), st.integers(0, 2**63 - 1), st.integers(0, 63))
def test_an_integer_that_does_not_fit_is_refused_and_never_written_into_its_neighbour(bits, dtype, number, shift):
    for vector in (np.array([number >> shift, 1]).astype(dtype), -np.array([number >> shift, 1]).astype(dtype)):
        values = vector.tolist()
        if all(0 <= value < 2**bits for value in values):
            assert unpack(pack(vector, bits), bits, 2).tolist() == values
        else:
            with pytest.raises(ValueError, match="the numbers span"):
                pack(vector, bits)


def test_packing_takes_a_row_of_integers_and_unpacking_takes_bytes():
    for wrong in (np.zeros(3), np.zeros((3, 1), np.uint32), np.zeros(3, bool)):
        with pytest.raises(TypeError, match="array of integers"):
            pack(wrong, 32)
    for wrong in (np.zeros(12, np.uint8), bytearray(12), "x" * 12, None):
        with pytest.raises(TypeError, match="packed numbers are bytes"):
            unpack(wrong, 32, 3)
    with pytest.raises(ValueError, match="4096"):                    # as one number of 12 bits it would move into the next
        pack(np.array([4096, 0], np.uint16), 12)


@pytest.mark.parametrize("bits", [8, 16, 20, 32, 50, 64])
def test_a_mask_is_aes_in_counter_mode_block_by_block(bits):
    seed, dtype = bytes(range(32)), ring_dtype(bits)
    size = 70_000 // dtype.itemsize + 5                                # more than one chunk, not a whole block
    blocks = -(-size * dtype.itemsize // 16)
    counters = b"".join(i.to_bytes(16, "big") for i in range(blocks))
    stream = Cipher(algorithms.AES(seed), modes.ECB()).encryptor().update(counters)
    words = np.frombuffer(stream, dtype.newbyteorder("<"))[:size].tolist()
    assert mask(seed, size, bits).tolist() == [word % 2**bits for word in words]


def test_a_mask_added_and_subtracted_is_gone_and_every_seed_bit_counts():
    total = np.arange(50_000, dtype=np.uint32)
    add_mask(total, b"s" * 32)
    assert np.count_nonzero(total == np.arange(50_000)) < 5
    add_mask(total, b"s" * 32, -1)
    assert total.tolist() == list(range(50_000))
    base = mask(bytes(32), 100, 32)
    for bit in range(256):
        assert np.count_nonzero(mask((1 << bit).to_bytes(32, "little"), 100, 32) == base) <= 1
    with pytest.raises(ValueError, match="32 bytes"):
        add_mask(total, bytes(4))


def test_masks_reach_every_value_of_a_small_ring():
    counts = np.bincount(mask(b"r" * 32, 100_000, 8), minlength=256)
    assert chi2.sf(((counts - 100_000 / 256) ** 2 / (100_000 / 256)).sum(), 255) > 1e-7
    assert counts[255] > 0


def test_hkdf_is_that_of_rfc_5869():
    for secret, salt, info in ((b"secret", b"salt", b"info"), (bytes(32), bytes(16), b"")):
        assert hkdf(secret, salt, info) == HKDF(SHA256(), 32, salt, info).derive(secret)


def test_insecure_random_is_named_and_repeatable():
    assert insecure_random(1, "a")(40) == insecure_random(1, "a")(40) != insecure_random(1, "b")(40)


# --- the fixed-point grid -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 8, 16, 32])
def test_the_grid_rounds_to_the_nearest_point_and_keeps_zero(bits):
    grid = FixedPointGrid(clip=2.0, bits=bits, clients=1000)
    x = np.concatenate([np.random.default_rng(0).uniform(-2, 2, 500), [0.0, 2.0, -2.0]])
    codes, saturated = grid.encode(x)
    assert saturated == 0
    assert codes.min() == 0
    assert codes.max() == 2**bits - 2
    back = grid.decode(codes, 1)
    assert np.abs(back - x).max() <= grid.step / 2 * (1 + 1e-9)
    assert back[500:].tolist() == [0.0, 2.0, -2.0]


def test_random_rounding_has_no_bias():
    grid = FixedPointGrid(clip=1.0, bits=3, clients=1)
    x = np.full(40_000, 0.123, dtype=np.float32)
    back = grid.decode(grid.encode(x, np.random.default_rng(0))[0], 1)
    assert set(np.round(back, 6)) == {0.0, round(grid.step, 6)}
    assert abs(back.mean() - 0.123) < 5 * grid.step / 2 / np.sqrt(40_000)


def test_weighted_sums_carry_their_weights_inside():
    grid, rng = FixedPointGrid(clip=1.0, bits=12, clients=5, max_weight=300), np.random.default_rng(0)
    xs, ws = rng.uniform(-1, 1, (5, 20)), [1, 300, 17, 0, 250]
    inputs = {i: grid.encode_weighted(x, w)[0] for i, (x, w) in enumerate(zip(xs, ws, strict=True))}
    total = run_round(inputs, 3, ring_bits=grid.ring_bits, drops={2: "upload"}).sum
    back, weight = grid.decode_weighted(total)
    assert weight == 551
    on_grid = [grid.decode(grid.encode(x)[0], 1) for x in xs]
    assert np.allclose(back, sum(w * on_grid[i] for i, w in enumerate(ws) if i != 2), atol=1e-9)
    for weight in (-1, 301):
        with pytest.raises(ValueError, match="weight"):
            grid.encode_weighted(xs[0], weight)
    with pytest.raises(ValueError, match="add up"):
        grid.decode_weighted(np.array([0, 1501], dtype=np.uint32))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0.0, 8, 3), "clip"), ((-1.0, 8, 3), "clip"), ((float("nan"), 8, 3), "clip"), ((float("inf"), 8, 3), "clip"),
        ((1.0, 1, 3), "bits"), ((1.0, 33, 3), "bits"), ((1.0, 8, 0), "clients"), ((1.0, 8, 3, 0), "max_weight"),
        ((1.0, 32, 2**20, 2**20), "need a ring"), ((1.0, 16, 100, 1, 22), "too small"),
        ((1.0, 8, 3, 1, 65), "ring_bits"), ((1.0, 32, 2**16, 2**17), "need a ring of 65"),
        ((5e-324, 8, 3), "clip"), ((1e39, 8, 3), "clip"), ((True, 8, 3), "clip"), (("1", 8, 3), "clip"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_work_is_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        FixedPointGrid(*arguments)


def test_a_grid_refuses_the_wrong_count_and_type():
    grid = FixedPointGrid(1.0, 8, 3)
    with pytest.raises(ValueError, match="count = 4"):
        grid.decode(np.zeros(2, np.uint16), 4)
    for x in (np.zeros((2, 2)), np.zeros(3, dtype=int)):
        with pytest.raises(TypeError, match="floats"):
            grid.encode(x)
    with pytest.raises(TypeError, match="bits"):
        FixedPointGrid(1.0, 2.5, 3)


def test_the_grid_is_as_fine_for_float32_as_it_says():
    x = np.random.default_rng(1).uniform(-1, 1, 200).astype(np.float32)
    grid = FixedPointGrid(1.0, 32, 3)
    assert grid.encode(x)[0].tolist() == grid.encode(x.astype(np.float64))[0].tolist()
    assert np.abs(grid.decode(grid.encode(x)[0], 1) - x).max() <= grid.step / 2 * (1 + 1e-6)
    assert FixedPointGrid(1.0, 32, 2**16, 2**16).ring_bits == 64
