"""The engine of the pages (workbook/page) against the library: the same bits where both draw, the same numbers where both add.

Each test runs in a real Chromium and, where there is one, in Node; a test skips itself where neither is.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from browsing import chromium
from scipy.stats import kstest

from fl_course import (
    QSGD,
    ByExamples,
    CentralDP,
    Coordinator,
    Dirichlet,
    FederatedData,
    LocalSGD,
    PoissonSelection,
    Shards,
    SignSGD,
    Synchronous,
    TopK,
    Uniform,
    UniformSelection,
    digits,
    logistic,
    mlp,
)
from fl_course.compression.feedback import wire_report
from fl_course.compression.sparse import top_k
from fl_course.core import Context, Server, Task, fingerprint, stream
from fl_course.engine.batches import client_keys, round_key, shuffles, splitmix
from fl_course.engine.sgd import train_alone
from fl_course.federation.stages import client_half
from fl_course.privacy.accounting import RDP, Gaussian, PoissonSampled, rdp
from fl_course.privacy.mechanisms import clip
from fl_course.wire.bits import encode_positions, pack, pack_ternary
from fl_course.wire.messages import decode_update, encode_model, encode_update
from fl_course.wire.payloads import numbers
from fl_course.workbook.page import HERE, engine, kernels

NODE = shutil.which("node")


class Node:
    """Runs the body of a function of `data` behind the engine, in a process of its own."""

    def __call__(self, body: str, data=None):
        script = f"{engine()}\nconst data = JSON.parse({json.dumps(json.dumps(data))}), SIMD = {json.dumps(kernels())};\n"
        script += f"process.stdout.write(JSON.stringify((() => {{ {body} }})()));"
        done = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[:2000]
        return json.loads(done.stdout)


class Page:
    """The same in a page of Chromium."""

    def __init__(self, browser) -> None:
        self.page = browser.new_page()
        self.page.set_content("<!DOCTYPE html><title>engine</title>")
        self.page.add_script_tag(content=f"{engine()}\nconst SIMD = {json.dumps(kernels())};")

    def __call__(self, body: str, data=None):
        function = f"(text) => {{ const data = JSON.parse(text); return JSON.stringify((() => {{ {body} }})()); }}"
        return json.loads(self.page.evaluate(function, json.dumps(data)))


@pytest.fixture(scope="module", params=["chromium", "node"])
def js(request):
    if request.param == "chromium":
        with chromium() as browser:
            yield Page(browser)
    elif NODE is None:
        pytest.skip("no Node on this machine; the same tests run in Chromium")
    else:
        yield Node()


def plain(fed: FederatedData) -> dict:
    """A federation as a page has it."""
    return {"x": np.concatenate([fed.x, fed.x_test]).ravel().tolist(), "y": np.concatenate([fed.y, fed.y_test]).tolist(),
            "ids": list(fed.ids), "train": [rows.tolist() for rows in fed.train], "test": [rows.tolist() for rows in fed.test],
            "held": list(range(len(fed.y), len(fed.y) + len(fed.y_test)))}  # fmt: skip


READ = "const x = Float32Array.from(data.fed.x), y = Uint8Array.from(data.fed.y);"
IDS = [0, 7, 99, 2**40, "a", "Zoë", "it's", '"', "both ' and \"", "back\\slash"]


# --- what must be the same to the bit -----------------------------------------------------------------------------------


def test_names_doubles_and_permutations_are_the_librarys(js):
    names = [["select", 3, 0], ["init"], *([7, "x", each] for each in IDS)]
    got = js("""return data.map((name) => { const rng = FL.stream(5, ...name), print = FL.fingerprint(...name);
        return { print: Array.from({ length: 32 }, (_, i) => print.getUint8(i)), doubles: Array.from({ length: 9 }, rng.random),
                 orders: [1, 2, 3, 64, 100, 700].map((n) => Array.from(rng.permutation(n))) }; })""", names)
    for name, mine in zip(names, got, strict=True):
        rng = stream(5, *name)
        assert bytes(mine["print"]) == fingerprint(*name)
        assert mine["doubles"] == rng.random(9).tolist()
        assert mine["orders"] == [rng.permutation(n).tolist() for n in (1, 2, 3, 64, 100, 700)]


def test_batches_are_the_librarys_for_whole_numbers_and_names(js):
    got = js("""return data.map((id) => { const key = FL.batchKey(id, 3, 11), order = new Int32Array(40);
        return [0, 1, 6].map((epoch) => { FL.shuffle(key, epoch, 40, order); return Array.from(order); }); })""", IDS)
    keys = splitmix(client_keys(IDS) ^ round_key(3, 11))
    expected = shuffles(keys, np.full(len(IDS), 40), 7)[:, [0, 1, 6]]
    assert got == expected.tolist()


@pytest.mark.parametrize("sizes", [(64, 10), (64, 32, 10), (12, 5, 7, 3)])
def test_first_models_are_the_librarys(js, sizes):
    got = js("return Array.from(FL.firstModel(data, 4))", sizes)
    assert np.array_equal(np.float32(got), mlp(*sizes).init(stream(4, "init")))


# --- training ------------------------------------------------------------------------------------------------------------


def small(sizes, clients=6, seed=0, ids=None):
    """A federation of few random examples, a third of whose numbers are zero; clients of 1 to 9 examples."""
    rng = stream(seed, "js", *sizes)
    x = np.float32(rng.normal(size=(60, sizes[0]))) * (rng.random((60, sizes[0])) < 0.66)
    cuts = np.cumsum(rng.integers(1, 10, clients))
    rows = np.split(np.arange(cuts[-1]), cuts[:-1])
    return FederatedData("small", x[: cuts[-1]], rng.integers(sizes[-1], size=cuts[-1]), sizes[-1], ids or tuple(range(clients)),
                         tuple(rows), (np.arange(0),) * clients, x[cuts[-1]:], np.zeros(60 - cuts[-1], int))  # fmt: skip


ALONE = READ + """return data.settings.map(({ client, version, epochs, lr, batch, theta }) => {
    const t = FL.trainer(data.sizes, x, y, batch ?? 16, null, data.double ? Float64Array : Float32Array);
    t.set(theta);
    const rows = data.fed.train[data.fed.ids.indexOf(client)];
    const report = t.train(rows, FL.batchKey(client, 2, version), epochs, lr, batch ?? 16);
    return { delta: Array.from(t.change()), report }; })"""


@pytest.mark.parametrize("sizes", [(9, 4), (9, 5, 4), (9, 17, 6, 3)])
@pytest.mark.parametrize("double", [True, False])
def test_a_client_alone_changes_the_model_as_torch_says(js, sizes, double):
    fed, rng, settings, expected = small(sizes, ids=(0, 3, "b", "it's", 12, 2**33)), stream(1, "settings"), [], []
    for client in fed.ids:
        epochs, batch, version = int(rng.integers(1, 5)), [None, 1, 2, 4][rng.integers(4)], int(rng.integers(9))
        theta, lr = mlp(*sizes).init(stream(3, "init", version)), float(rng.uniform(0.02, 0.3))
        settings.append({"client": client, "version": version, "epochs": epochs, "lr": lr, "batch": batch,
                         "theta": theta.tolist()})  # fmt: skip
        how, task = LocalSGD(lr=lr, epochs=epochs, batch_size=batch), Task(client, Server(theta, version), 2)
        expected.append(train_alone(mlp(*sizes), task, fed, how, torch.float64))
    got = js(ALONE, {"fed": plain(fed), "sizes": sizes, "settings": settings, "double": double})
    for mine, theirs in zip(got, expected, strict=True):
        assert np.abs(np.array(mine["delta"]) - theirs).max() < (1e-12 if double else 1e-6)


RUN = READ + """return data.settings.map((setting) => {
    const t = FL.trainer(setting.sizes, x, y, setting.batch ?? 16, data.simd ? FL.simdKernels(SIMD) : null);
    const records = [...FL.federation(t, setting.fed ?? data.fed, setting)];
    return { kernels: t.kernels, theta: Array.from(records.at(-1).theta),
             records: records.map(({ theta, ...rest }) => rest) }; })"""


@pytest.fixture(scope="module")
def thirty():
    """30 random settings and what Python makes of them."""
    rng, found = stream(0, "thirty settings"), []
    for number in range(30):
        alpha, clients = float(rng.choice([0.05, 0.3, 1.0, 100.0])), int(rng.integers(20, 120))
        fed = digits().partition(Dirichlet(alpha) if number % 3 else Shards(2), clients, seed=number)
        hidden = [(), (16,), (32,), (24, 12)][number % 4]
        setting = {"sizes": (64, *hidden, 10), "fraction": float(rng.uniform(0.02, 0.4)), "epochs": int(rng.integers(1, 6)),
                   "lr": 0.1, "batch": int(rng.integers(1, 13)), "rounds": 6, "seed": int(rng.integers(1000)),
                   "poisson": number % 5 == 4,
                   "uniform": number % 7 == 6}  # fmt: skip
        training = LocalSGD(0.1, setting["epochs"], setting["batch"])
        who = PoissonSelection() if setting["poisson"] else UniformSelection()
        run = Coordinator(fed, mlp(*setting["sizes"]), training, Synchronous(setting["fraction"]), who,
                          Uniform() if setting["uniform"] else ByExamples(), seed=setting["seed"])  # fmt: skip
        steps = list(run.run(setting["rounds"]))
        found.append((fed, setting, [record for _, record in steps], steps[-1][0].server.params))
    return found


def played(js, thirty, simd, **usual):
    """What the engine makes of all of them: their examples are the same digits, in one order."""
    settings = [{**setting, **usual, "fed": {**plain(fed), "x": None, "y": None}} for fed, setting, _, _ in thirty]
    return js(RUN, {"fed": plain(thirty[0][0]), "settings": settings, "simd": simd})


@pytest.mark.parametrize("simd", [False, True])
def test_thirty_random_federations_are_the_same(js, thirty, simd):
    same, apart = 0, []
    for (fed, _, records, params), got in zip(thirty, played(js, thirty, simd), strict=True):
        assert got["kernels"] == ("SIMD" if simd else "plain")
        up = down = 0
        for mine, theirs in zip(got["records"], records, strict=True):
            up, down = up + sum(theirs.bytes_up.values()), down + sum(theirs.bytes_down.values())
            assert (mine["clients"], mine["up"], mine["down"]) == (list(theirs.clients), up, down)
            assert abs(mine["accuracy"] - theirs.metrics["accuracy"]) <= 1.5 / len(fed.y_test)         # a ReLU may flip
            assert abs(mine["client_accuracy"] - theirs.metrics["client_accuracy"]) < 0.02
        same += [mine["accuracy"] for mine in got["records"]] == [theirs.metrics["accuracy"] for theirs in records]
        apart.append(np.abs(np.float32(got["theta"]) - params).max())
    assert same >= 29
    assert np.median(apart) < 2e-6


def test_one_round_in_float32_is_within_a_millionth(js, thirty):
    apart = []
    for simd in (False, True):
        usual = {"rounds": 1, "fraction": 0.2, "seed": 0, "poisson": False, "uniform": False}
        for (fed, setting, _, _), got in zip(thirty, played(js, thirty, simd, **usual), strict=True):
            run = Coordinator(fed, mlp(*setting["sizes"]), LocalSGD(0.1, setting["epochs"], setting["batch"]), Synchronous(0.2))
            [(state, _)] = run.run(1)
            apart.append(np.abs(np.float32(got["theta"]) - state.server.params).max())
            assert apart[-1] < (1e-6 if len(setting["sizes"]) == 2 else 1e-2)                  # a ReLU may flip
    assert sorted(apart)[-4] < 1e-6


# --- bytes -----------------------------------------------------------------------------------------------------------------

TWO = 'const hex = (b) => Array.from(b, (v) => v.toString(16).padStart(2, "0")).join("");'


@pytest.mark.parametrize("d", [1, 60, 300, 16_400])
@pytest.mark.parametrize("client", [0, 200, 70_000, 2**40, "phone", "Zoë" * 30])
def test_messages_are_the_librarys_byte_for_byte(js, d, client):
    delta = np.float32(stream(0, "delta", d).normal(size=d))
    got = js(TWO + """const { client, version } = data, report = { examples: 14, steps: 10, loss_first: 2.25, loss_last: 0.5 };
        const delta = Float32Array.from(data.delta), body = FL.updateBody(client, version, delta, 14, report);
        const model = FL.encode("model", FL.modelBody(version, delta)), [kind, [v, theta]] = FL.decode(model);
        return { update: hex(FL.encode("update", body)), size: FL.messageSize("update", body), model: hex(model),
                 kind, v, theta: Array.from(theta) };""",
        {"client": client, "delta": delta.tolist(), "version": 300})  # fmt: skip
    update = decode_update(bytes.fromhex(got["update"]))
    assert encode_update(update).hex() == got["update"]
    assert got["size"] == len(got["update"]) // 2
    assert (update.client, update.version, update.weight, update.metrics["loss_last"]) == (client, 300, 14.0, 0.5)
    assert np.array_equal(update.delta, delta)
    assert got["model"] == encode_model(Server(delta, 300)).hex()
    assert (got["kind"], got["v"], got["theta"]) == ("model", 300, delta.tolist())


def test_rubbish_is_refused_in_words(js):
    words = js("""const good = FL.encode("model", FL.modelBody(1, new Float32Array(5)));
        const bad = [new Uint8Array(0), new Uint8Array(50), good.slice(0, -1)];
        for (let i = 0; i < good.length; i++) { const b = good.slice(); b[i] ^= 1; bad.push(b); }
        return bad.map((b) => { try { FL.decode(b); return "read"; } catch (error) { return error.message; } });""")
    assert all(("no message" in each) or ("checksum" in each) for each in words)


def test_bits_digits_and_places_are_packed_as_the_library_packs_them(js):
    rng = stream(0, "packing")
    sizes = {1: 9, 2: 30, 3: 17, 4: 8, 7: 101, 8: 12, 11: 33, 16: 5}
    codes = {bits: rng.integers(2**bits, size=n).tolist() for bits, n in sizes.items()}
    ternary = rng.integers(3, size=23).tolist()
    places = [(1, [0]), (500, []), (4810, [0, 3, 4809]), (4810, list(range(4810))), (900, list(range(0, 900, 2)))]
    random = [(4810, 48), (4810, 5), (4810, 700), (100_000, 90)]
    places += [(d, sorted(rng.choice(d, k, replace=False).tolist())) for d, k in random]
    got = js(TWO + """return { codes: data.codes.map(([bits, c]) => hex(FL.packBits(c, bits))),
        ternary: hex(FL.packTernary(data.ternary)),
        places: data.places.map(([d, p]) => { const [code, bytes] = FL.packPositions(p, d); return [code, hex(bytes)]; }) };""",
        {"codes": list(codes.items()), "ternary": ternary, "places": places})  # fmt: skip
    assert got["codes"] == [pack(np.array(c, np.uint32), bits).hex() for bits, c in codes.items()]
    assert got["ternary"] == pack_ternary(np.array(ternary)).hex()
    for (d, positions), (code, coded) in zip(places, got["places"], strict=True):
        assert (code, bytes.fromhex(coded)) == encode_positions(np.array(positions, np.int64), d)


@pytest.mark.parametrize(("stages", "setting"), [
    ([TopK(0.01)], {"keep": 0.01, "feedback": True}), ([TopK(0.5, False)], {"keep": 0.5}), ([QSGD(8)], {"bits": 8}),
    ([QSGD(2)], {"bits": 2}), ([QSGD(16)], {"bits": 16}), ([SignSGD()], {"bits": 1, "feedback": True}),
    ([TopK(0.02), QSGD(4)], {"keep": 0.02, "bits": 4, "feedback": True}),
    ([TopK(0.1), SignSGD(False)], {"keep": 0.1, "bits": 1, "feedback": True}),
])  # fmt: skip
def test_a_compressed_answer_is_read_by_the_server_and_weighs_what_the_library_says(js, stages, setting):
    fed = digits().partition(Shards(2), 100, seed=0)
    run = Coordinator(fed, mlp(64, 16, 10), LocalSGD(0.2, 2, 10), stages=stages)
    setting |= {"sizes": (64, 16, 10), "epochs": 2, "lr": 0.2, "batch": 10}
    got = js(READ + TWO + """const t = FL.trainer(data.setting.sizes, x, y, 10), drawer = {}, list = (a) => a && Array.from(a);
        t.set(FL.firstModel(data.setting.sizes, 0));
        const said = FL.answer(t, 0, data.fed.train[0], 0, data.setting, FL.pipeline(data.setting), drawer);
        return { message: hex(FL.encode("update", said.body)), read: list(FL.numbers(said.payload)),
                 weight: FL.weigh(said.payload), residual: list(drawer.residual),
                 meant: list(t.change().map((v) => v * said.weight)) };""",
        {"fed": plain(fed), "setting": setting})  # fmt: skip
    message = bytes.fromhex(got["message"])
    update = decode_update(message)
    assert encode_update(update) == message
    assert np.array_equal(numbers(update.delta), np.float32(got["read"]))
    weight = wire_report(update)
    assert got["weight"] == pytest.approx({"formula": weight["formula"], "bound": weight["bound"], "encoded": weight["payload"]})
    drawer = {}
    ours = client_half(run.pipeline, run_alone(run), Context(0, run.initial().server, client=0, memory=drawer))
    assert weight["formula"] == wire_report(ours)["formula"]
    assert abs(weight["message"] - wire_report(ours)["message"]) <= 3                 # of places that a tie decides
    if "residual" in drawer:                                     # what was sent and what waits is what was meant
        assert np.allclose(np.float32(got["residual"]) + np.float32(got["read"]), got["meant"], atol=1e-6)
    else:
        assert "residual" not in got


def run_alone(run: Coordinator):
    from fl_course.engine.training import Trainer

    return Trainer(run.training, run.model, run.data).train([Task(0, run.initial().server, 0)])[0]


@pytest.mark.parametrize(("stage", "setting"), [(TopK(0.05), {"keep": 0.05, "feedback": True}), (TopK(0.3, False), {"keep": 0.3}),
                                                (SignSGD(), {"bits": 1, "feedback": True})])  # fmt: skip
def test_federations_that_compress_without_dice_are_the_same(js, stage, setting):
    fed = digits().partition(Shards(2), 40, seed=0)
    *_, (state, record) = Coordinator(fed, mlp(64, 16, 10), LocalSGD(0.2, 2, 10), Synchronous(0.2), stages=[stage]).run(8)
    setting |= {"sizes": (64, 16, 10), "fraction": 0.2, "epochs": 2, "lr": 0.2, "batch": 10, "rounds": 8}
    [got] = js(RUN, {"fed": plain(fed), "settings": [setting], "simd": False})
    assert np.abs(np.float32(got["theta"]) - state.server.params).max() < 0.02             # a tie may fall the other way
    assert np.median(np.abs(np.float32(got["theta"]) - state.server.params)) < 1e-5
    assert abs(got["records"][-1]["accuracy"] - record.metrics["accuracy"]) <= 4 / len(fed.y_test)


@pytest.mark.parametrize(("n", "k"), [(10, 3), (10, 10), (10, 1), (4000, 40), (4000, 3999)])
def test_the_largest_are_the_librarys_also_among_equals(js, n, k):
    x = np.float32(stream(0, "ties", n).normal(size=n).round(1))
    x[n // 2] = 0.0
    assert js("return Array.from(FL.largest(Float32Array.from(data[0]), data[1]))", [x.tolist(), k]) == top_k(x, k).tolist()


# --- dice ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_rounding_is_unbiased_and_moves_no_number_by_more_than_a_step(js, bits):
    x = np.float32([-1, -0.83, -0.2, 0, 1e-3, 0.31, 0.5, 0.99, 1]) * 3
    trials = 20_000
    got = js("""const roll = FL.dice(1, "test"), x = Float32Array.from(data.x), sum = new Float64Array(x.length);
        let worst = 0, highest = 0;
        for (let i = 0; i < data.trials; i++) {
          const payload = FL.rounding(data.bits).client(x, roll);
          FL.numbers(payload).forEach((v, j) => { sum[j] += v; worst = Math.max(worst, Math.abs(v - x[j])); });
          highest = Math.max(highest, ...payload.codes);
        }
        return { mean: Array.from(sum, (s) => s / data.trials), worst, highest };""",
        {"x": x.tolist(), "bits": bits, "trials": trials})  # fmt: skip
    levels = max(2, 2**bits - 1)
    step = 2 * 3 / (levels - 1)
    assert np.abs(np.array(got["mean"]) - x).max() < 5 * step / 2 / np.sqrt(trials) + 1e-7
    assert got["worst"] <= step * (1 + 1e-6)
    assert got["highest"] == levels - 1


def test_zeros_and_nothing_can_be_rounded(js):
    got = js("""return [FL.rounding(4), FL.signs(false)].map((stage) => [5, 0].map((n) =>
        Array.from(FL.numbers(stage.client(new Float32Array(n), FL.dice(1))))));""")
    assert [list(row) for row in got] == [[[0] * 5, []], [[0] * 5, []]]


def test_noise_is_gaussian_and_repeats_only_under_its_name(js):
    draws = js("""const many = (draw) => Array.from({ length: 20000 }, draw);
        return [many(FL.dice(0, "n", 1).normal), many(FL.dice(0, "n", 1).normal), many(FL.dice(0, "n", 2).normal),
                many(FL.dice(3).random)];""")
    first, again, other, uniform = map(np.array, draws)
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.04
    for sample in (first, other):
        assert kstest(sample, "norm").pvalue > 1e-3
        assert abs(sample.mean()) < 0.035
        assert abs(sample.std() - 1) < 0.025
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.04
    assert kstest(uniform, "uniform").pvalue > 1e-3


def test_a_clipped_update_is_the_librarys_and_never_longer_than_the_bound(js):
    rng = stream(0, "clip")
    vectors = [np.float32(rng.normal(size=50) * scale) for scale in (1e-3, 0.1, 1, 100)] + [np.zeros(50, np.float32)]
    body = "return data.map((x) => Array.from(FL.clipAndNoise(0.5, 0).client(Float32Array.from(x))))"
    got = js(body, [vector.tolist() for vector in vectors])
    for mine, vector in zip(got, vectors, strict=True):
        mine = np.float32(mine)
        assert np.linalg.norm(mine.astype(float)) <= 0.5
        assert np.abs(mine - clip(vector, 0.5)).max() <= 2e-7


def test_noise_lands_on_the_sum_with_the_promised_deviation_and_a_public_denominator(js):
    got = js("""const sum = { total: new Float64Array(40000), weight: 17 };
        const { total, weight } = FL.serverHalf([FL.clipAndNoise(0.5, 3)], sum, 10, FL.dice(1));
        return { total: Array.from(total), weight };""")
    assert got["weight"] == 10
    assert np.std(got["total"]) == pytest.approx(1.5, rel=0.03)


def test_a_round_to_which_nobody_came_is_released_with_noise_and_not_without(js):
    fed = small((9, 4), clients=8)
    setting = {"sizes": (9, 4), "fraction": 0.1, "epochs": 1, "lr": 0.1, "batch": 4, "rounds": 12,
               "poisson": True, "uniform": True}  # fmt: skip
    body = READ + """return [0, 1].map((noise) => {
        const t = FL.trainer(data.setting.sizes, x, y, 4), run = FL.federation(t, data.fed, { ...data.setting, clip: 1, noise });
        return [...run].map(({ clients, theta }) => [clients, Array.from(theta)]); });"""
    quiet, noisy = js(body, {"fed": {**plain(fed), "held": [0]}, "setting": setting})
    empty = [i for i in range(1, 12) if not quiet[i][0]]
    assert empty
    assert all(quiet[i][1] == quiet[i - 1][1] and noisy[i][1] != noisy[i - 1][1] for i in empty)


def test_clipped_poisson_rounds_are_the_librarys_without_noise(js):
    fed = digits().partition(Dirichlet(100), 100, seed=0)
    dp, training = CentralDP(0.3, 0.0, noise_seed=0, accountant=RDP()), LocalSGD(lr=1.0, batch_size=None)
    run = Coordinator(fed, logistic(64, 10), training, Synchronous(0.2), PoissonSelection(), Uniform(), [dp])
    steps = list(run.run(5))
    setting = {"sizes": (64, 10), "fraction": 0.2, "epochs": 1, "lr": 1.0, "batch": None, "rounds": 5, "poisson": True,
               "uniform": True, "clip": 0.3, "noise": 0}  # fmt: skip
    [got] = js(RUN, {"fed": plain(fed), "settings": [setting], "simd": False})
    assert [mine["clients"] for mine in got["records"]] == [list(record.clients) for _, record in steps]
    assert np.abs(np.float32(got["theta"]) - steps[-1][0].server.params).max() < 1e-6


# --- what noise costs ------------------------------------------------------------------------------------------------------


def test_the_renyi_curve_is_the_librarys_at_every_order(js):
    sigmas = (0.03, 0.12, 0.5, 1.0, 1.7, 8.0, 60.0)
    settings = [(rate, sigma) for rate in (0.001, 0.05, 0.2, 0.5, 0.9, 1.0) for sigma in sigmas]
    got = js("""const curves = data.map(([rate, sigma]) => FL.renyi(rate, sigma));
        const price = (curve) => [1, 15, 400].map((n) => FL.epsilon(curve, n, 1e-5));
        return { orders: FL.ORDERS, curves, epsilons: curves.map(price) };""",
        settings)  # fmt: skip
    assert got["orders"] == list(rdp.ORDERS)
    for (rate, sigma), curve, prices in zip(settings, got["curves"], got["epsilons"], strict=True):
        event = Gaussian(sigma) if rate == 1 else PoissonSampled(rate, Gaussian(sigma))
        expected = rdp.curve(event, rdp.ORDERS)
        assert np.allclose(curve, expected, rtol=1e-9, atol=1e-12), (rate, sigma)
        for rounds, mine in zip((1, 15, 400), prices, strict=True):
            assert mine == pytest.approx(RDP().epsilon([event] * rounds, 1e-5), rel=1e-9, abs=1e-12)


def test_no_noise_has_no_price_and_no_round_costs_nothing(js):
    assert js("return [FL.epsilon(FL.renyi(0.1, 0), 1, 1e-5) === Infinity, FL.epsilon(FL.renyi(0.1, 1), 0, 1e-5)]") == [True, 0]


# --- the files --------------------------------------------------------------------------------------------------------------


def test_the_kernels_are_what_their_text_makes():
    pytest.importorskip("wasmtime", reason="no assembler here (pip install wasmtime)")
    tool = Path(__file__).parents[2] / "tools" / "build_kernels.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert base64.b64decode(kernels())[:4] == b"\0asm"


def test_the_engine_imports_nothing_and_asks_nobody():
    source = engine()
    foreign = ("import ", "import(", "require(", "fetch(", "XMLHttp", "WebSocket", "https://")
    assert not [word for word in foreign if word in source]
    assert len(source) < 60_000


FILES = sorted([*HERE.glob("*.[jc]s*"), *(HERE.parent / "widgets").glob("*.[jc]s*")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_of_a_page_is_one_sitting(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 320
    assert max(map(len, lines)) <= (140 if path.parent == HERE else 200)


def test_kernels_that_are_refused_are_none(js):
    assert js("return [FL.simdKernels('AAAA'), FL.simdKernels('')]") == [None, None]
