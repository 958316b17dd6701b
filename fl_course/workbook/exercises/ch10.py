"""The exercises of chapter 10: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import norm

from fl_course import (
    DPSGD,
    CompositionError,
    Coordinator,
    DistributedNoise,
    Downlink,
    Evaluation,
    LocalSGD,
    MultiKrum,
    PowerOfChoice,
    QuantitySkew,
    Record,
    SecureSum,
    Span,
    Synchronous,
    TopK,
    Uniform,
    actg175,
    fedbuff,
    local_only,
    logistic,
)
from fl_course.privacy.accounting import RDP, Ledger, noise_for_budget
from fl_course.workbook.grading.checks import Exercise, Mistake, Wrong, agrees_with, expect
from fl_course.workbook.grading.compare import clone

# --- 10.hospital_stack -----------------------------------------------------------------------------------------------


def hospital_stack(epsilon, delta, rounds, largest):
    """epsilon, delta: a patient's, for all rounds; largest: patients of the largest hospital. Returns (training, stages)."""
    z = noise_for_budget(epsilon, delta, rounds, accountant=RDP())
    training = LocalSGD(lr=1.0, epochs=1, batch_size=None, private=DPSGD(1.0, z, "shuffle", delta))
    return training, [SecureSum(clip=2.0, max_weight=largest)]


def stack_with(z, delta, largest, epochs=1, lr=1.0, seed=None, stages=None):
    training = LocalSGD(lr=lr, epochs=epochs, batch_size=None, private=DPSGD(1.0, z, "shuffle", delta, noise_seed=seed))
    return training, [SecureSum(clip=2.0, max_weight=largest)] if stages is None else stages


def noise_for(epsilon, delta, rounds):
    return noise_for_budget(epsilon, delta, rounds, accountant=RDP())


def no_secure_sum(epsilon, delta, rounds, largest):
    return stack_with(noise_for(epsilon, delta, rounds), delta, largest, stages=[])


def no_noise(epsilon, delta, rounds, largest):
    return LocalSGD(lr=0.3, epochs=1, batch_size=None), [SecureSum(clip=2.0, max_weight=largest)]


def paid_for_one_round(epsilon, delta, rounds, largest):
    return stack_with(noise_for(epsilon, delta, 1), delta, largest)


def seed_known(epsilon, delta, rounds, largest):
    return stack_with(noise_for(epsilon, delta, rounds), delta, largest, seed=0)


def masks_off(epsilon, delta, rounds, largest):
    open_sum = SecureSum(clip=2.0, max_weight=largest, masked=False)
    return stack_with(noise_for(epsilon, delta, rounds), delta, largest, stages=[open_sum])


def masks_of_a_seed(epsilon, delta, rounds, largest):
    drawn = SecureSum(clip=2.0, max_weight=largest, round_seed=0)
    return stack_with(noise_for(epsilon, delta, rounds), delta, largest, stages=[drawn])


def weights_forgotten(epsilon, delta, rounds, largest):
    return stack_with(noise_for(epsilon, delta, rounds), delta, 1)


def second_epoch_unpaid(epsilon, delta, rounds, largest):
    return stack_with(noise_for(epsilon, delta, rounds), delta, largest, epochs=2)


def hides_hospitals(epsilon, delta, rounds, largest):
    noise = DistributedNoise(0.3, noise_for(epsilon, delta, rounds), delta)
    return LocalSGD(lr=0.3, epochs=1, batch_size=None), [SecureSum(clip=2.0, noise=noise)]


def far_too_much_noise(epsilon, delta, rounds, largest):
    return stack_with(1000 * noise_for(epsilon, delta, rounds), delta, largest)


def hardly_a_step(epsilon, delta, rounds, largest):
    return stack_with(noise_for(epsilon, delta, rounds), delta, largest, lr=1e-7)


def usual_delta(epsilon, delta, rounds, largest):
    return stack_with(noise_for(epsilon, 1e-3, rounds), 1e-3, largest)


def rounds_over_epsilon(epsilon, delta, rounds, largest):
    return stack_with(float(np.sqrt(rounds)) / epsilon, delta, largest)


def compressed_too(epsilon, delta, rounds, largest):
    masks = SecureSum(clip=2.0, max_weight=largest)
    return stack_with(noise_for(epsilon, delta, rounds), delta, largest, stages=[TopK(0.1), masks])


def stages_alone(epsilon, delta, rounds, largest):
    return hospital_stack(epsilon, delta, rounds, largest)[1]


def auc_of(scores, labels):
    ones, zeros = scores[labels == 1][:, None], scores[labels == 0]
    return float((ones > zeros).mean() + (ones == zeros).mean() / 2)


def worth(model, w, data):
    outputs = model.predict(w, data.x_test)
    return auc_of(outputs[:, 1] - outputs[:, 0], data.y_test)


@cache
def ten_hospitals(seed):
    """The deal of the patients, the plain federation, and what a hospital reaches alone, the mean of ten."""
    hospitals, order = actg175().partition(QuantitySkew(2.0), clients=10, seed=seed, test_fraction=0.0), logistic(16, 2)
    plain = Coordinator(hospitals, order, LocalSGD(lr=0.3, epochs=1, batch_size=None), Synchronous(1.0), seed=seed)
    return plain, float(np.mean([worth(order, w, hospitals) for w in local_only(plain, 20)]))


def delta_spent(epsilon, z, releases):
    mu = np.sqrt(releases) / z
    return norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


def paid(training: Any, epsilon, delta, rounds, sizes):
    """Whether all rounds together keep what was promised to a patient of each hospital."""
    private = training.private
    if private.sampling == "shuffle":
        return delta_spent(epsilon, private.noise_multiplier, rounds * training.epochs) <= delta
    spent = 0.0
    for n in sizes:
        event = private.event(n, min(n, training.batch_size or n), training.epochs)
        ledger = Ledger(None, delta, RDP())
        for _ in range(rounds):
            ledger = ledger.charge(event)
        spent = max(spent, ledger.spent())
    return spent <= epsilon


def test_stack(fn, rng):
    plain, alone = ten_hospitals(int(rng.integers(3)))
    sizes = [int(n) for n in plain.data.sizes]
    epsilon, delta, rounds = round(float(rng.uniform(2, 4)), 2), float(rng.choice([1e-5, 1e-6])), int(rng.integers(20, 31))
    tried = f"ε = {epsilon}, δ = {delta:g}, {rounds} rounds, largest = {max(sizes)}"
    got = fn(epsilon, delta, rounds, max(sizes))
    if got is None or not isinstance(got, tuple | list) or len(got) != 2 or not isinstance(got[1], tuple | list):
        raise Wrong(f"tried {tried}: expected (training, stages), a LocalSGD and a list of stages, got {str(got)[:80]}")
    training, stages = got
    if type(training) is not LocalSGD or type(training.private) is not DPSGD:
        raise Wrong(f"tried {tried}: no DPSGD in the training, so nothing hides a *patient*")
    if not isinstance(training.epochs, int):
        raise Wrong(f"tried {tried}: epochs must be one whole number for all, so that everybody's releases can be counted")
    sums = [stage for stage in stages if type(stage) is SecureSum]
    if not sums or not sums[0].masked or sums[0].round_seed is not None:
        raise Wrong(f"tried {tried}: the server can see single updates: there is no SecureSum among the stages, or it is open")
    if training.private.noise_seed is not None:
        raise Wrong(f"tried {tried}: the seed of the noise is known, and who knows it takes the noise off again")
    known = [int(seed) for seed in rng.integers(1000, size=3)]    # for the judge's own runs only, as is the open sum
    opened = [replace(one, masked=False, round_seed=0) if type(one) is SecureSum else one for one in stages]
    try:
        fed = Coordinator(plain.data, plain.model, training, Synchronous(1.0), stages=list(stages))
        private = [replace(training, private=replace(training.private, noise_seed=seed)) for seed in known]
        twins = [replace(fed, training=one, stages=opened, evaluation=Evaluation(every=rounds)) for one in private]
    except (CompositionError, ValueError, TypeError) as error:
        raise Wrong(f"tried {tried}: refused: {error}") from error
    if not paid(training, epsilon, delta, rounds, sizes):
        z, releases = training.private.noise_multiplier, rounds * training.epochs
        raise Wrong(f"tried {tried}: z = {z:.3g} for {releases} releases costs more than ε = {epsilon} at δ = {delta:g}")
    reached = np.mean([worth(plain.model, twin.train(rounds).state.server.params, plain.data) for twin in twins])
    if not reached >= alone + 0.01:
        raise Wrong(f"tried {tried}: sound, and private, but the AUC is {reached:.3f}, the mean of three runs; a hospital alone "
                    f"reaches {alone:.3f}, and 0.01 more is asked for")


# --- 10.largest_stack ------------------------------------------------------------------------------------------------


def largest_stack(parts, needed, refused):
    """parts: names in order; needed: a list of them; refused: list of names -> a sentence or None. Returns a list of names."""
    for size in range(len(parts), 0, -1):
        for some in combinations(parts, size):               # in the order of parts
            if set(needed) <= set(some) and refused(list(some)) is None:
                return list(some)


def all_parts(parts, needed, refused):
    return list(parts)


def needed_alone(parts, needed, refused):
    return [part for part in parts if part in needed]


def from_the_front(parts, needed, refused):
    kept: list[str] = []
    for part in parts:
        if refused([*kept, part]) is None:
            kept.append(part)
    return kept


def needed_then_from_the_front(parts, needed, refused):
    kept = list(needed)
    for part in parts:
        if part not in kept and refused([one for one in parts if one in [*kept, part]]) is None:
            kept.append(part)
    return [part for part in parts if part in kept]


def need_forgotten(parts, needed, refused):
    return largest_stack(parts, [], refused)


def smallest_first(parts, needed, refused):
    for size in range(1, len(parts) + 1):
        for some in combinations(parts, size):
            if set(needed) <= set(some) and len(some) > len(needed) and refused(list(some)) is None:
                return list(some)


def left_over(parts, needed, refused):
    kept = largest_stack(parts, needed, refused)
    return [part for part in parts if part not in kept]


def the_sentence(parts, needed, refused):
    return refused(list(parts))


def how_many_stay(parts, needed, refused):
    return len(largest_stack(parts, needed, refused))


def cut_from_the_end(parts, needed, refused):
    kept = list(parts)
    while refused(kept) is not None:
        kept.pop()
    return kept


def refused_alone(parts, needed, refused):
    return [part for part in parts if refused([part]) is None]


def every_stack(parts, needed, refused):
    sizes = range(len(parts), 0, -1)
    return [list(some) for size in sizes for some in combinations(parts, size) if set(needed) <= set(some)
            and refused(list(some)) is None]


STAGES = {"top-k": TopK(0.1), "secure sum": SecureSum(clip=2.0), "8 bits down": Downlink(8)}
OTHERS: dict[str, dict[str, Any]] = {
    "Multi-Krum": {"aggregation": MultiKrum(2)}, "Power-of-Choice": {"selection": PowerOfChoice(6)},
    "Krum against 4": {"aggregation": MultiKrum(4)},              # of ten: refused by itself
}


def refused(names):
    """What the library says to a federation of ten hospitals with these parts; None if it accepts them."""
    plain, _ = ten_hospitals(0)
    how: dict[str, Any] = {"schedule": Synchronous(1.0), "weights": Uniform(),
                           "stages": [stage for name, stage in STAGES.items() if name in names]}
    for name, part in OTHERS.items():
        how |= part if name in names else {}
    how |= fedbuff(6, 3) if "FedBuff" in names else {}
    try:
        Coordinator(plain.data, plain.model, plain.training, **how)
    except (CompositionError, ValueError, TypeError) as error:
        return str(error)
    return None


def test_largest(fn, rng):
    one, other = (str(name) for name in rng.permutation(["8 bits down", "Power-of-Choice"]))
    rest = [str(name) for name in rng.permutation(["top-k", "8 bits down", "Krum against 4", "Power-of-Choice"])]
    cases = [(["secure sum", *rest], ["8 bits down"]),                               # what stands first is in the way
             ([one, "top-k", "secure sum", "Multi-Krum", other], ["secure sum"]),
             (["top-k", "FedBuff", one, other, "secure sum"], ["8 bits down", "secure sum"])]
    said = {}

    def ask(names):
        key = tuple(sorted(map(str, names)))
        if key not in said:
            said[key] = refused(list(key))
        return said[key]

    answers = [fn(list(parts), list(needed), ask) for parts, needed in cases]
    for (parts, needed), got in zip(cases, answers, strict=True):
        best, tried = largest_stack(parts, needed, ask), f"parts = {parts}, needed = {needed}"
        if not isinstance(got, list | tuple) or not all(isinstance(one, str) and one in parts for one in got):
            raise Wrong(f"tried {tried}: expected a list of names, for example {best}, got {str(got)[:80]}")
        if missing := [one for one in needed if one not in got]:
            raise Wrong(f"tried {tried}: {missing[0]!r} is needed and not in your stack {list(got)}")
        if sentence := ask(got):
            raise Wrong(f"tried {tried}: your stack {list(got)} is refused: {sentence}")
        expect(len(set(got)), len(best), f"{tried}: how many parts your stack {list(got)} has")


# --- 10.rounds_that_fit ----------------------------------------------------------------------------------------------


def rounds_that_fit(price, message, phones, budget):
    """price: T -> ε; message: bytes (up, down); phones: (asked, compute s, up, down Mbit/s); budget: (ε, MB, s). Returns T."""
    (up, down), (asked, compute, up_mbit, down_mbit), (epsilon, megabytes, seconds) = message, phones, budget
    moved = asked * (up + down) / 1e6
    took = 8 * down / (1e6 * down_mbit) + compute + 8 * up / (1e6 * up_mbit)       # all phones at the same time
    rounds = 0
    while price(rounds + 1) <= epsilon and (rounds + 1) * moved <= megabytes and (rounds + 1) * took <= seconds:
        rounds += 1
    return rounds


def fitting(price, costs, budget):
    (moved, took), (epsilon, megabytes, seconds) = costs, budget
    rounds = 0
    while rounds < 4000 and price(rounds + 1) <= epsilon and (rounds + 1) * moved <= megabytes and (rounds + 1) * took <= seconds:
        rounds += 1
    return rounds


def a_round(message, phones):
    (up, down), (asked, compute, up_mbit, down_mbit) = message, phones
    return asked * (up + down) / 1e6, 8 * down / (1e6 * down_mbit) + compute + 8 * up / (1e6 * up_mbit)


def privacy_is_free(price, message, phones, budget):
    return fitting(lambda rounds: 0.0, a_round(message, phones), budget)


def every_round_costs_the_same(price, message, phones, budget):
    first = price(1)
    return fitting(lambda rounds: rounds * first, a_round(message, phones), budget)


def way_up_only(price, message, phones, budget):
    return fitting(price, (phones[0] * message[0] / 1e6, a_round(message, phones)[1]), budget)


def one_phone(price, message, phones, budget):
    moved, took = a_round(message, phones)
    return fitting(price, (moved / phones[0], took), budget)


def bytes_are_bits(price, message, phones, budget):
    moved, took = a_round(message, phones)
    return fitting(price, (moved, phones[1] + (took - phones[1]) / 8), budget)


def one_after_the_other(price, message, phones, budget):
    moved, took = a_round(message, phones)
    return fitting(price, (moved, phones[0] * took), budget)


def links_only(price, message, phones, budget):
    moved, took = a_round(message, phones)
    return fitting(price, (moved, took - phones[1]), budget)


def compute_only(price, message, phones, budget):
    return fitting(price, (a_round(message, phones)[0], phones[1]), budget)


def links_swapped(price, message, phones, budget):
    asked, compute, up_mbit, down_mbit = phones
    return fitting(price, a_round(message, (asked, compute, down_mbit, up_mbit)), budget)


def one_too_many(price, message, phones, budget):
    return fitting(price, a_round(message, phones), budget) + 1


def at_least_one(price, message, phones, budget):
    return max(1, fitting(price, a_round(message, phones), budget))


def the_loosest(price, message, phones, budget):
    moved, took = a_round(message, phones)
    by_price = fitting(price, (0, 0), budget)
    return max(by_price, int(budget[1] // moved), int(budget[2] // took))


def strictly_below(price, message, phones, budget):
    return fitting(lambda rounds: price(rounds) * (1 + 1e-12), a_round(message, phones), budget)


def old_megabytes(price, message, phones, budget):
    moved, took = a_round(message, phones)
    return fitting(price, (moved * 1e6 / 2**20, took), budget)


def test_fit(fn, rng):
    asked = []
    for binds in ("privacy", "bytes", "seconds", "nothing"):
        message = int(rng.integers(200, 400)) * 1000, int(rng.integers(500, 900)) * 1000
        phones = int(rng.integers(8, 20)), round(float(rng.uniform(9, 12)), 1), 0.5, 2.0
        slope, rounds = float(rng.uniform(0.2, 0.6)), int(rng.integers(24, 40))

        def price(rounds, slope=slope):
            return slope * float(np.sqrt(rounds)) + 0.01 * rounds

        moved, took = a_round(message, phones)
        budget = (price(rounds if binds == "privacy" else 30 * rounds),
                  round((rounds + 0.5 if binds == "bytes" else 30 * rounds) * moved, 2),
                  round((rounds + 0.5 if binds == "seconds" else 30 * rounds) * took, 1))
        asked.append((price, message, phones, (0.9 * price(1), *budget[1:]) if binds == "nothing" else budget))
    answers = [fn(*args) for args in asked]
    for (price, message, phones, budget), got in zip(asked, answers, strict=True):
        shown = f"message = {message}, phones = {phones}, budget = {tuple(round(one, 4) for one in budget)}"
        expect(got, rounds_that_fit(price, message, phones, budget), f"{shown}, price(1) = {price(1):.3g}")


# --- 10.planted_fault ------------------------------------------------------------------------------------------------


def planted_fault(records, clients, budget):
    """records: a history's, in order; clients: all of them; budget: ε. Returns (what, where)."""
    for record in records:
        if record.metrics.get("epsilon", 0.0) > budget:
            return "over budget", record.version
    losses = [(record.metrics["loss"], record.version) for record in records if "loss" in record.metrics]
    if losses and losses[-1][0] > 1.5 * min(losses)[0]:
        return "diverged", min(losses)[1]
    for client in clients:
        out = sum(span.client == client and span.fate == "left out" for record in records for span in record.spans)
        if out > len(records) / 2:
            return "left out", client
        if not any(client in record.clients for record in records):
            return "never heard", client
    return "fine", None


def all_is_well(records, clients, budget):
    return "fine", None


def only_what(records, clients, budget):
    return planted_fault(records, clients, budget)[0]


def where_first(records, clients, budget):
    return planted_fault(records, clients, budget)[::-1]


def place_in_the_list(records, clients, budget):
    what, where = planted_fault(records, clients, budget)
    return (what, where - records[0].version) if what in ("over budget", "diverged") else (what, where)


def budget_at_the_end(records, clients, budget):
    what, where = planted_fault(records, clients, budget)
    return (what, records[-1].version) if what == "over budget" else (what, where)


def budget_reached(records, clients, budget):
    for record in records:
        if record.metrics.get("epsilon", 0.0) >= budget:
            return "over budget", record.version
    return planted_fault(records, clients, budget)


def loss_every_round(records, clients, budget):
    for record in records:
        if record.metrics["epsilon"] > budget:
            return "over budget", record.version
    losses = [record.metrics["loss"] for record in records]
    if losses[-1] > 1.5 * min(losses):
        return "diverged", records[losses.index(min(losses))].version
    return planted_fault(records, clients, budget)


def any_rise(records, clients, budget):
    what, where = planted_fault(records, clients, budget)
    losses = [(record.metrics["loss"], record.version) for record in records if "loss" in record.metrics]
    return ("diverged", min(losses)[1]) if what != "over budget" and losses[-1][0] > min(losses)[0] else (what, where)


def against_the_first(records, clients, budget):
    what, where = planted_fault(records, clients, budget)
    losses = [record.metrics["loss"] for record in records if "loss" in record.metrics]
    return ("fine", None) if what == "diverged" and losses[-1] <= 1.5 * losses[0] else (what, where)


def diverged_at_the_end(records, clients, budget):
    what, where = planted_fault(records, clients, budget)
    return (what, records[-1].version) if what == "diverged" else (what, where)


def left_out_once(records, clients, budget):
    what, where = planted_fault(records, clients, budget)
    out = [span.client for record in records for span in record.spans if span.fate == "left out"]
    return ("left out", out[0]) if what == "fine" and out else (what, where)


def never_asked(records, clients, budget):
    what, where = planted_fault(records, clients, budget)
    asked = {span.client for record in records for span in record.spans}
    return ("fine", None) if what == "never heard" and where in asked else (what, where)


def lost_answers(records, clients, budget):
    what, where = planted_fault(records, clients, budget)
    lost = [span.client for record in records for span in record.spans if span.fate == "too late"]
    return ("never heard", lost[0]) if what == "fine" and lost else (what, where)


def first_round_only(records, clients, budget):
    what, where = planted_fault(records, clients, budget)
    absent = [client for client in clients if client not in records[0].clients]
    return ("never heard", absent[0]) if what in ("fine", "never heard") and absent else (what, where)


def a_history(rng, fault):
    """Twelve to twenty rounds of eight clients, with one fault or none; records as a run leaves them. Returns the arguments."""
    clients = [str(name) for name in rng.permutation([f"branch {i}" for i in range(8)])]
    rounds, first, budget = int(rng.integers(12, 21)), int(rng.integers(30, 90)), round(float(rng.uniform(3, 5)), 2)
    late, liar, shy = clients[1], clients[3], clients[5]
    turn = int(rng.integers(rounds // 3, rounds // 2))
    records = []
    for i in range(rounds):
        version = first + i
        fates = dict.fromkeys(clients, "used")
        fates[late] = "too late" if i % 4 == 0 else "used"        # now and then; it is heard all the same
        if (fault == "left out" and i != 2) or i in (0, 5):
            fates[liar] = "left out"
        if fault == "never heard":
            fates[shy] = "failed" if i % 2 else "too late"
        spans = tuple(Span(client, version - 1, 10.0 * i, 10.0 * i + 1, 10.0 * i + 7, 10.0 * i + 9, 400, fate)
                      for client, fate in fates.items())
        heard = tuple(client for client, fate in fates.items() if fate in ("used", "left out"))
        paid = budget * (i + 1) / rounds
        metrics = {"epsilon": paid * 1.4 if fault == "over budget" else budget if i == rounds - 1 else paid}
        if i % 2 == 0 or i == rounds - 1:                         # the model is not measured in every round
            loss = 0.5 + 0.6 * 0.6**i + (0.02 if i == rounds - 1 else 0.0)
            metrics["loss"] = loss if fault != "diverged" or i <= turn else 0.6 + 0.4 * (i - turn) / (rounds - 1 - turn)
        n = len(heard)
        records.append(Record(version, 10.0 * (i + 1), heard, (0,) * n, (400,) * n, {"update": 400 * n}, {"model": 3200}, (),
                              metrics, spans))
    return records, clients, budget


FAULTS = ("over budget", "diverged", "left out", "never heard", "fine")


def test_fault(fn, rng):
    histories = [a_history(rng, fault) for fault in ("fine", *(str(one) for one in rng.permutation(FAULTS)))]
    answers = [fn(list(records), list(clients), budget) for records, clients, budget in histories]
    for (records, clients, budget), got in zip(histories, answers, strict=True):
        expect(got, planted_fault(records, clients, budget),
               f"rounds {records[0].version} to {records[-1].version} of {len(clients)} clients, budget = {budget}")


# --- 10.fair_rule ----------------------------------------------------------------------------------------------------


def fair_rule(table, bears, liars, widest):
    """table: rule -> lie -> (AUC, gap); bears: rule -> most liars; widest: the largest gap allowed. Returns a rule or None."""
    worst = {rule: min(auc for auc, _ in row.values()) for rule, row in table.items()
             if bears[rule] >= liars and max(abs(gap) for _, gap in row.values()) <= widest}
    return max(worst, key=lambda rule: worst[rule]) if worst else None


def chosen(table, allowed, value):
    kept = {rule: value(row) for rule, row in table.items() if allowed(rule, row)}
    return max(kept, key=lambda rule: kept[rule]) if kept else None


def worst_auc(row):
    return min(auc for auc, _ in row.values())


def in_gap(row, widest):
    return max(abs(gap) for _, gap in row.values()) <= widest


def best_in_peace(table, bears, liars, widest):
    return chosen(table, lambda rule, row: bears[rule] >= liars and in_gap(row, widest), lambda row: row["nobody lies"][0])


def best_on_average(table, bears, liars, widest):
    return chosen(table, lambda rule, row: bears[rule] >= liars and in_gap(row, widest),
                  lambda row: np.mean([auc for auc, _ in row.values()]))


def gap_forgotten(table, bears, liars, widest):
    return chosen(table, lambda rule, row: bears[rule] >= liars, worst_auc)


def limit_forgotten(table, bears, liars, widest):
    return chosen(table, lambda rule, row: in_gap(row, widest), worst_auc)


def one_way_gap(table, bears, liars, widest):
    return chosen(table, lambda rule, row: bears[rule] >= liars and max(gap for _, gap in row.values()) <= widest, worst_auc)


def gap_in_peace(table, bears, liars, widest):
    return chosen(table, lambda rule, row: bears[rule] >= liars and abs(row["nobody lies"][1]) <= widest, worst_auc)


def mean_gap(table, bears, liars, widest):
    return chosen(table, lambda rule, row: bears[rule] >= liars and np.mean([abs(gap) for _, gap in row.values()]) <= widest,
                  worst_auc)


def bears_more(table, bears, liars, widest):
    return chosen(table, lambda rule, row: bears[rule] > liars and in_gap(row, widest), worst_auc)


def narrowest(table, bears, liars, widest):
    return chosen(table, lambda rule, row: bears[rule] >= liars and in_gap(row, widest),
                  lambda row: -max(abs(gap) for _, gap in row.values()))


def the_auc(table, bears, liars, widest):
    rule = fair_rule(table, bears, liars, widest)
    return None if rule is None else worst_auc(table[rule])


def always_somebody(table, bears, liars, widest):
    return fair_rule(table, bears, liars, widest) or chosen(table, lambda rule, row: bears[rule] >= liars, worst_auc)


def nobody_at_all(table, bears, liars, widest):
    worst = {rule: worst_auc(row) for rule, row in table.items() if bears[rule] >= liars and in_gap(row, widest)}
    return max(worst, key=lambda rule: worst[rule])


def worst_of_all(table, bears, liars, widest):
    return chosen(table, lambda rule, row: bears[rule] >= liars and in_gap(row, widest), lambda row: -worst_auc(row))


def draw_verdicts(rng, against):
    """Four rules: the right one, one that is better but for one thing, and two that are worse."""
    names = [str(name) for name in rng.permutation(["median", "trimmed mean", "Multi-Krum", "geometric median"])]
    liars, widest, low = int(rng.integers(1, 4)), round(float(rng.uniform(0.1, 0.2)), 2), float(rng.uniform(0.66, 0.7))
    near, far = 0.8 * widest, 1.3 * widest

    def row(aucs, gaps):
        pairs = ((round(low + auc, 3), round(gap, 3)) for auc, gap in zip(aucs, gaps, strict=True))
        return dict(zip(("nobody lies", "turned round", "ALIE"), pairs, strict=True))

    better, low_gap = (0.05, 0.06, 0.07), 0.1 * near
    other = {"peace": ((0.06, 0.0, 0.01), (near, near, near)), "mean": ((0.035, 0.09, 0.01), (near, near, near)),
             "a lie": (better, (low_gap, low_gap, far)), "two lies": (better, (near, far, far)),
             "other way": (better, (0.0, 0.0, -far)), "all": (better, (far, far, far)), "few": (better, (near, near, near))}
    aucs, gaps = other.get(against, ((0.01, 0.02, 0.0), (far, far, far)))
    rows = [row((0.04, 0.025, 0.03), (near, -near, near)), row(aucs, gaps), row((0.02, 0.01, 0.0), (near, -0.9 * near, near)),
            row((0.015, 0.0, 0.005), (0.2 * near, 0.0, 0.1 * near))]
    if against == "everybody":
        rows = [{lie: (auc, round(gap + 2 * far, 3)) for lie, (auc, gap) in one.items()} for one in rows]
    bears = [liars, liars - 1 if against == "few" else 4, 4, 4]
    order = rng.permutation(4)
    return {names[i]: rows[i] for i in order}, {names[i]: bears[i] for i in order}, liars, widest


AGAINST = ("peace", "mean", "a lie", "two lies", "other way", "all", "few", "everybody")


def test_rule(fn, rng):
    asked = [draw_verdicts(rng, against) for against in AGAINST]
    answers = [fn(*clone(args)) for args in asked]
    for (table, bears, liars, widest), got in zip(asked, answers, strict=True):
        shown = "; ".join(f"{rule} {[tuple(value) for value in row.values()]}" for rule, row in table.items())
        expect(got, fair_rule(table, bears, liars, widest), f"(AUC, gap) by lie: {shown}; bears = {bears}, liars = {liars}, "
               f"widest = {widest}")


# --- 10.whom_to_ask --------------------------------------------------------------------------------------------------


def whom_to_ask(there, heard, m):
    """there: cars that can be reached now; heard: car -> answers so far; m: how many are wanted. Returns a list of cars."""
    return sorted(there, key=lambda car: heard[car])[:m]


def the_first(there, heard, m):
    return list(there)[:m]


def most_heard(there, heard, m):
    return sorted(there, key=lambda car: -heard[car])[:m]


def away_or_not(there, heard, m):
    return sorted(heard, key=lambda car: heard[car])[:m]


def everybody_there(there, heard, m):
    return list(there)


def by_name(there, heard, m):
    return sorted(there)[:m]


def the_last(there, heard, m):
    return list(there)[-m:]


def the_neediest_alone(there, heard, m):
    return sorted(there, key=lambda car: heard[car])[:1]


def never_heard_only(there, heard, m):
    return [car for car in there if heard[car] == 0][:m]


def same_lot(there, heard, m):
    return [there[i] for i in np.random.default_rng(0).permutation(len(there))[:m]]


def in_turn(there, heard, m):
    turn = sum(heard.values())
    return [there[(turn + i) % len(there)] for i in range(min(m, len(there)))]


def numbers_not_names(there, heard, m):
    return sorted(range(len(there)), key=lambda i: heard[there[i]])[:m]


def one_thrice(there, heard, m):
    return [min(there, key=lambda car: heard[car])] * min(m, len(there)) if there else []


def test_whom(fn, rng):
    cars = [f"{kind} {i}" for kind in ("city", "country", "motorway") for i in range(6)]
    chance = {"city": 0.7, "country": 0.06, "motorway": 0.9}
    heard, met, asked = (dict.fromkeys(cars, 0) for _ in range(3))
    for turn in range(150):
        there = [str(car) for car in rng.permutation(cars) if rng.random() < chance[car.split()[0]]]
        got, tried = fn(list(there), dict(heard), 5), f"minute {turn}, there = {', '.join(there)}, m = 5"
        got = got.tolist() if isinstance(got, np.ndarray) else got
        if not isinstance(got, list | tuple) or not all(isinstance(car, str) for car in got):
            raise Wrong(f"tried {tried}: expected a list of cars, got {str(got)[:80]}")
        if away := [car for car in got if car not in there]:
            raise Wrong(f"tried {tried}: {away[0]!r} cannot be reached and is asked")
        expect(len(got), min(5, len(there)), f"{tried}: how many are asked")
        expect(len(set(got)), len(got), f"{tried}: how many different cars are asked")
        for car in there:
            met[car] += turn >= 20                                # at first nobody has been heard, and all are alike
            asked[car] += turn >= 20 and car in got
            heard[car] += car in got and bool(rng.random() < 0.9)
    for car in cars:
        if car.startswith("country") and asked[car] < 0.8 * met[car]:
            raise Wrong(f"tried 150 minutes: from the 20th on {car!r} could be reached {met[car]} times and was asked "
                        f"{asked[car]} times; a car that is hardly ever there must not be passed over")
    often = [heard[car] for car in cars if not car.startswith("country")]
    if min(often) < 0.7 * max(often):
        raise Wrong(f"tried 150 minutes: of the cars in city and on the motorway one was heard {min(often)} times, another "
                    f"{max(often)} times")


# --- 10.mended_auc ---------------------------------------------------------------------------------------------------


def mended_auc(scores, labels):
    """scores, labels: a list each, one array (n_k,) a hospital, by its own model. Returns the share of right pairs, a number."""
    right = pairs = 0.0
    for s, y in zip(scores, labels, strict=True):
        ones, zeros = s[y == 1][:, None], s[y == 0]              # pairs of patients of one hospital only
        right += (ones > zeros).sum() + (ones == zeros).sum() / 2
        pairs += len(ones) * len(zeros)
    return right / pairs


def merged(scores, labels):
    return auc_of(np.concatenate(scores), np.concatenate(labels))


def within(scores, labels, weigh, tie=0.5):
    values = []
    for s, y in zip(scores, labels, strict=True):
        ones, zeros = s[y == 1][:, None], s[y == 0]
        if ones.size and zeros.size:
            values.append(((ones > zeros).mean() + tie * (ones == zeros).mean(), weigh(ones.size, zeros.size)))
    return sum(value * weight for value, weight in values) / sum(weight for _, weight in values)


def all_hospitals_alike(scores, labels):
    return within(scores, labels, lambda ones, zeros: 1)


def by_patients(scores, labels):
    return within(scores, labels, lambda ones, zeros: ones + zeros)


def by_the_sick(scores, labels):
    return within(scores, labels, lambda ones, zeros: ones)


def centred_then_merged(scores, labels):
    return merged([s - s.mean() for s in scores], labels)


def scaled_then_merged(scores, labels):
    return merged([(s - s.mean()) / max(float(s.std()), 1e-12) for s in scores], labels)


def ranked_then_merged(scores, labels):
    return merged([np.argsort(np.argsort(s)) / len(s) for s in scores], labels)


def ties_are_right(scores, labels):
    return within(scores, labels, lambda ones, zeros: ones * zeros, tie=1.0)


def ties_are_wrong(scores, labels):
    return within(scores, labels, lambda ones, zeros: ones * zeros, tie=0.0)


def one_class_is_a_coin(scores, labels):
    values = [auc_of(s, y) if 0 < y.sum() < len(y) else 0.5 for s, y in zip(scores, labels, strict=True)]
    return float(np.mean(values))


def one_class_is_nan(scores, labels):
    with np.errstate(all="ignore"):
        values = []
        for s, y in zip(scores, labels, strict=True):
            ones, zeros = s[y == 1][:, None], s[y == 0]
            values.append(np.divide((ones > zeros).sum() + (ones == zeros).sum() / 2, np.float64(ones.size * zeros.size)))
    return float(np.mean(values))


def upside_down_order(scores, labels):
    return 1 - mended_auc(scores, labels)


def one_each(scores, labels):
    return [auc_of(s, y) if 0 < y.sum() < len(y) else None for s, y in zip(scores, labels, strict=True)]


def accuracy_instead(scores, labels):
    return float(np.mean(np.concatenate([(s > 0) == (y == 1) for s, y in zip(scores, labels, strict=True)])))


def draw_wards(rng):
    """Hospitals of unequal size, whose models have different scales; the last has only healthy patients."""
    sizes = [int(n) for n in rng.permutation([8, 15, 40])] + [6]
    labels = [(np.arange(n) < max(2, n // 4) + i).astype(int) for i, n in enumerate(sizes[:-1])] + [np.zeros(6, int)]
    labels = [rng.permutation(y) for y in labels]
    scores = []
    for i, y in enumerate(labels):
        raw = np.round(rng.normal(size=len(y)) + (0.4 + 0.6 * i) * y, 1)             # rounded, so that ties occur
        if 0 < y.sum() < len(y):
            raw[np.argmax(y == 0)] = raw[np.argmax(y == 1)]
        scores.append(raw * [1.0, 3.0, 0.3, 1.0][i] + [-4.0, 0.0, 2.0, 6.0][i])
    return scores, labels


EXERCISES = (
    Exercise(
        name="10.hospital_stack",
        title="Build the hospitals' stack",
        difficulty=3,
        minutes=25,
        test=test_stack,
        hints=(
            "Whom shall it hide? A patient: that is `DPSGD` within the local training. And from the server: `SecureSum`.",
            "Every round of one epoch is one release. `noise_for_budget(epsilon, delta, rounds, accountant=RDP())` is z.",
            "`LocalSGD(lr=1.0, epochs=1, batch_size=None, private=DPSGD(1.0, z, \"shuffle\", delta))`, and a `SecureSum` with "
            "`clip=2.0` and `max_weight=largest`.",
        ),
        solution=hospital_stack,
        mistakes=(
            Mistake(no_secure_sum, "Each hospital's update reaches the server by itself. A `SecureSum` belongs into the stages."),
            Mistake(no_noise, "The sum hides hospitals from the server; nothing hides a patient from who reads the model: "
                    "`LocalSGD(…, private=DPSGD(…))`."),
            Mistake(paid_for_one_round, "Your z pays for one round. Every round is a release: hand `rounds` to "
                    "`noise_for_budget`."),
            Mistake(seed_known, "`noise_seed` is for pages that are printed twice. Leave it out."),
            Mistake(masks_off, "`masked=False` is for comparisons: the server reads every update. Leave it out."),
            Mistake(masks_of_a_seed, "`round_seed` is for pages that are printed twice: who knows it takes the masks off. "
                    "Leave it out."),
            Mistake(weights_forgotten, "A hospital's weight is its patients, up to `largest`, and must fit into the sum: "
                    "`max_weight=largest`."),
            Mistake(second_epoch_unpaid, "Two epochs a round are two releases a round: pay for 2·rounds, or take one epoch."),
            Mistake(hides_hospitals, "`DistributedNoise` hides a whole hospital, which costs far more. The budget is a "
                    "*patient's*."),
            Mistake(far_too_much_noise, "Private, but the gain is gone. Add as much noise as the budget asks, not more."),
            Mistake(hardly_a_step, "Private, but the model hardly moves. Take lr = 1, as in the lesson."),
            Mistake(usual_delta, "The δ of your price is not the one that you were given. Hand `delta` to both."),
            Mistake(rounds_over_epsilon, "√rounds / ε leaves δ out: μ = ε is far too much. Ask `noise_for_budget`."),
            Mistake(compressed_too, "Top-k chooses other coordinates in each hospital, so masks do not cancel. Leave it out."),
            Mistake(stages_alone, "Both are asked for: return training, stages."),
        ),
    ),
    Exercise(
        name="10.largest_stack",
        title="Mend a refused stack",
        difficulty=2,
        minutes=15,
        test=test_largest,
        hints=(
            "There are at most 2⁶ stacks: try them, the largest first.",
            "`itertools.combinations(parts, size)` gives all of one size, in the order of `parts`.",
            "Skip those that lack a needed part; return the first for which `refused(list(some))` is None.",
        ),
        solution=largest_stack,
        mistakes=(
            Mistake(all_parts, "That is the stack that was refused. Something has to go."),
            Mistake(needed_alone, "Sound, but more than needed may stay. Find the largest."),
            Mistake(from_the_front, "Whoever stands first wins here, needed or not. Try whole stacks, the largest first."),
            Mistake(needed_then_from_the_front, "What you add early may keep out two that come later. Try whole stacks."),
            Mistake(need_forgotten, "Large, but what the threat asks for was thrown out. Skip stacks that lack a needed part."),
            Mistake(smallest_first, "You stop at the smallest stack that works. Begin with the largest."),
            Mistake(left_over, "Those are the parts that must go. Return the ones that stay."),
            Mistake(the_sentence, "That is the reason. Return the stack, a list of names."),
            Mistake(how_many_stay, "That is how many. Return their names."),
            Mistake(cut_from_the_end, "What stands last is not always what is in the way, and may be needed."),
            Mistake(refused_alone, "Alone each of these is accepted. Together they are not: ask for whole stacks."),
            Mistake(every_stack, "Those are all stacks that work. Return the first and largest."),
        ),
    ),
    Exercise(
        name="10.rounds_that_fit",
        title="A plan for three budgets",
        difficulty=2,
        minutes=10,
        test=test_fit,
        hints=(
            "Three prices of T rounds: price(T); the bytes of all phones both ways; the seconds.",
            "The phones of a round work at the same time: download, compute, upload. A byte has 8 bits; MB and Mbit are 10⁶.",
            "Raise T from 0 as long as T + 1 rounds fit all three. Exactly used up is within.",
        ),
        solution=rounds_that_fit,
        mistakes=(
            Mistake(privacy_is_free, "The privacy budget is left out: ask price(T)."),
            Mistake(every_round_costs_the_same, "Privacy does not add up round by round, it grows more slowly. Ask price(T)."),
            Mistake(way_up_only, "The model goes down, too: count both ways."),
            Mistake(one_phone, "That is the traffic of one phone. All that are asked send and receive."),
            Mistake(bytes_are_bits, "Links are sold in *bits*: a byte takes 8."),
            Mistake(one_after_the_other, "The phones of a round work at the same time: their seconds do not add up."),
            Mistake(links_only, "A round takes its computing time as well."),
            Mistake(compute_only, "A round takes its download and upload as well."),
            Mistake(links_swapped, "The slow link is the way up. You have up and down the wrong way round."),
            Mistake(one_too_many, "The last round no longer fits."),
            Mistake(at_least_one, "If not even one round fits, the answer is 0."),
            Mistake(the_loosest, "Each budget must hold, so the tightest decides, not the loosest."),
            Mistake(strictly_below, "Exactly used up is within the budget: `<=`."),
            Mistake(old_megabytes, "A megabyte is 10⁶ bytes here, not 2²⁰."),
        ),
    ),
    Exercise(
        name="10.planted_fault",
        title="Find the planted fault",
        difficulty=3,
        minutes=25,
        test=test_fault,
        hints=(
            "`record.metrics.get(\"epsilon\")` and `.get(\"loss\")`: a metric that was not measured is not there.",
            "`record.spans` are the jobs that ended, with `.client` and `.fate`; `record.clients` those that were heard.",
            "Go through the four in order; the versions are `record.version`, not places in the list.",
        ),
        solution=planted_fault,
        mistakes=(
            Mistake(all_is_well, "Not always: most of these histories have a fault."),
            Mistake(only_what, "Where is asked for, too: return (what, where)."),
            Mistake(where_first, "First what, then where."),
            Mistake(place_in_the_list, "The history may begin at round 40: say `record.version`, not the place in the list."),
            Mistake(budget_at_the_end, "Say the *first* round over the budget: there it should have been stopped."),
            Mistake(budget_reached, "Exactly used up is within the budget: `>`."),
            Mistake(loss_every_round, "The loss is not measured in every round: `\"loss\" in record.metrics`."),
            Mistake(any_rise, "A small rise is chance. Diverged is 1.5 times the smallest."),
            Mistake(against_the_first, "Measure from the *smallest* loss, not from the first: it had learned, and lost it."),
            Mistake(diverged_at_the_end, "Say where the loss was smallest: that model is the one to go back to."),
            Mistake(left_out_once, "Once or twice is chance. Left out means in more than half of the records."),
            Mistake(never_asked, "It was asked, and never *heard*: look into `record.clients`."),
            Mistake(lost_answers, "Late now and then is no fault. Never heard is: in no record's `clients`."),
            Mistake(first_round_only, "One round tells little. Never heard is: in no record's `clients`."),
        ),
    ),
    Exercise(
        name="10.fair_rule",
        title="A fair rule for the bank",
        difficulty=2,
        minutes=15,
        test=test_rule,
        hints=(
            "Nobody knows which lie will come: judge a rule by its worst AUC.",
            "First strike out the rules that bear fewer liars, and those whose gap is too wide under any lie, to either side.",
            "`abs(gap)`; and None if nobody is left.",
        ),
        solution=fair_rule,
        mistakes=(
            Mistake(best_in_peace, "Best when nobody lies. What counts is the worst of the columns."),
            Mistake(best_on_average, "A good mean hides one lie that gets through. What counts is the worst."),
            Mistake(gap_forgotten, "The best, but unfair: its gap is too wide."),
            Mistake(limit_forgotten, "That rule does not bear so many liars."),
            Mistake(one_way_gap, "A gap the other way round is one as well: `abs(gap)`."),
            Mistake(gap_in_peace, "Fair in peace only. The gap must hold under every lie."),
            Mistake(mean_gap, "The mean gap hides the lie under which it opens. Every one must hold."),
            Mistake(bears_more, "Who bears exactly so many liars will do: `>=`."),
            Mistake(narrowest, "Among the fair ones the AUC decides, not the gap."),
            Mistake(the_auc, "Return the name of the rule, not its AUC."),
            Mistake(always_somebody, "If nobody is fair, say None: then the threshold or the model must change, and "
                    "people decide that."),
            Mistake(nobody_at_all, "If nobody is left, `max` of nothing is an error: return None."),
            Mistake(worst_of_all, "You return the rule with the lowest worst AUC. The highest is asked for."),
        ),
    ),
    Exercise(
        name="10.whom_to_ask",
        title="A schedule in which nobody is starved",
        difficulty=2,
        minutes=10,
        test=test_whom,
        hints=(
            "Nobody can ask a car that is away. But when a rare one is there, do not pass it over.",
            "Who has been heard least goes first.",
            "`sorted(there, key=lambda car: heard[car])[:m]`",
        ),
        solution=whom_to_ask,
        mistakes=(
            Mistake(the_first, "First come is chance: a country car is passed over as often as all others, and comes so rarely."),
            Mistake(most_heard, "Who is heard often is asked more often still. The other way round."),
            Mistake(away_or_not, "Some of these are in a hole: choose from `there` only."),
            Mistake(everybody_there, "That is more than m."),
            Mistake(by_name, "The alphabet decides: the motorway waits for ever."),
            Mistake(the_last, "Last come is chance, as first come would be."),
            Mistake(the_neediest_alone, "Only one is asked. m are wanted, if so many are there."),
            Mistake(never_heard_only, "Once all have been heard you ask nobody. m are wanted, if so many are there."),
            Mistake(same_lot, "A lot does not know who has waited, and here it is the same one each time."),
            Mistake(in_turn, "Turn by turn of who happens to be there: the rare ones are passed over as often as others."),
            Mistake(numbers_not_names, "Those are places in the list. Return the cars."),
            Mistake(one_thrice, "One car several times: m *different* ones."),
        ),
    ),
    Exercise(
        name="10.mended_auc",
        title="What is wrong with this one?",
        difficulty=3,
        minutes=20,
        test=agrees_with(mended_auc, draw_wards, 3),
        hints=(
            "Add 10 to all scores of one hospital. No patient changes places within it. What does the colleague's number do?",
            "Scores of two models cannot be compared. Only pairs of patients of *one* hospital say anything.",
            "Count the right pairs of each hospital (a tie is half), add them up, divide by all pairs. A hospital with one class "
            "has none.",
        ),
        solution=mended_auc,
        mistakes=(
            Mistake(merged, "That is still the broken one: it compares scores of different models."),
            Mistake(all_hospitals_alike, "The mean over hospitals is sensible, too, but asked is the share of all *pairs*: "
                    "a large hospital has more."),
            Mistake(by_patients, "Weigh by pairs, sick times healthy, not by patients."),
            Mistake(by_the_sick, "Weigh by pairs, sick times healthy, not by the sick alone."),
            Mistake(centred_then_merged, "Moved to one mean, the scores still have other scales, and other shares of sick."),
            Mistake(scaled_then_merged, "To one mean and scale is not enough: a hospital with more sick has other scores for "
                    "good reason."),
            Mistake(ranked_then_merged, "Ranks of different hospitals cannot be compared either: one has more sick."),
            Mistake(ties_are_right, "A tie is half right: the model cannot tell the two apart."),
            Mistake(ties_are_wrong, "A tie is half right, not wrong."),
            Mistake(one_class_is_a_coin, "A hospital with one class has no pair: it says nothing, not 0.5."),
            Mistake(one_class_is_nan, "A hospital with one class has no pair: 0/0 spoils the mean. Add up pairs, divide last."),
            Mistake(upside_down_order, "Upside down: count the pairs in which the *sick* patient has the higher score."),
            Mistake(one_each, "That is one number a hospital. One for all is asked for."),
            Mistake(accuracy_instead, "That is the accuracy at threshold 0. The AUC asks for the order of pairs."),
        ),
    ),
)  # fmt: skip
