"""The exercises of chapter 7: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

import heapq

import numpy as np

from fl_course.workbook.grading.checks import Exercise, Mistake, agrees_with, expect

# --- 07.staleness_weight ---------------------------------------------------------------------------------------------


def staleness_weight(age, kind, a, b):
    """age: whole steps, from 0; kind: "polynomial", "exponential" or "hinge". Returns s, from 0 to 1."""
    if kind == "polynomial":
        return (1 + age) ** -a
    if kind == "exponential":
        return a**age
    return 1.0 if age <= b else 1 / (a * (age - b) + 1)


def age_without_one(age, kind, a, b):
    return float(age) ** -a if kind == "polynomial" else staleness_weight(age, kind, a, b)


def grows_with_age(age, kind, a, b):
    return (1 + age) ** a if kind == "polynomial" else staleness_weight(age, kind, a, b)


def one_over_one_plus_power(age, kind, a, b):
    return 1 / (1 + age**a) if kind == "polynomial" else staleness_weight(age, kind, a, b)


def always_a_root(age, kind, a, b):
    return (1 + age) ** -0.5 if kind == "polynomial" else staleness_weight(age, kind, a, b)


def natural_exponential(age, kind, a, b):
    return np.exp(-a * age) if kind == "exponential" else staleness_weight(age, kind, a, b)


def power_turned_round(age, kind, a, b):
    return float(age) ** a if kind == "exponential" else staleness_weight(age, kind, a, b)


def linear_loss(age, kind, a, b):
    return max(0.0, 1 - (1 - a) * age) if kind == "exponential" else staleness_weight(age, kind, a, b)


def hinge_without_a_stop(age, kind, a, b):
    return 1 / (a * abs(age - b) + 1) if kind == "hinge" else staleness_weight(age, kind, a, b)


def hinge_from_zero(age, kind, a, b):
    return (1.0 if age <= b else 1 / (a * age + 1)) if kind == "hinge" else staleness_weight(age, kind, a, b)


def hinge_without_one(age, kind, a, b):
    return (1.0 if age <= b else 1 / (a * (age - b))) if kind == "hinge" else staleness_weight(age, kind, a, b)


def hinge_that_adds(age, kind, a, b):
    return (1.0 if age <= b else 1 / (a + age - b + 1)) if kind == "hinge" else staleness_weight(age, kind, a, b)


def hinge_to_nothing(age, kind, a, b):
    return float(age <= b) if kind == "hinge" else staleness_weight(age, kind, a, b)


def test_weight(fn, rng):
    for kind in ("polynomial", "exponential", "hinge"):
        for age in (int(rng.integers(2, 5)), 0, 9, 5):
            a = float(rng.uniform(0.6, 0.9)) if kind != "hinge" else float(rng.uniform(2, 10))
            b = 6 if age < 6 else 4
            tried = f"age = {age}, kind = {kind!r}, a = {a:.3f}, b = {b}"
            expect(fn(age, kind, a, b), staleness_weight(age, kind, a, b), tried)


# --- 07.fedbuff_step -------------------------------------------------------------------------------------------------


def fedbuff_step(w, deltas, ages, lr):
    """w: (d,); deltas: (K, d); ages: (K,), steps. Returns the model after the step, (d,)."""
    weights = (1 + ages) ** -0.5
    return w + lr * (weights[:, None] * deltas).sum(axis=0) / len(deltas)


def divided_by_weights(w, deltas, ages, lr):
    weights = (1 + ages) ** -0.5
    return w + lr * (weights[:, None] * deltas).sum(axis=0) / weights.sum()


def not_divided(w, deltas, ages, lr):
    weights = (1 + ages) ** -0.5
    return w + lr * (weights[:, None] * deltas).sum(axis=0)


def no_discount(w, deltas, ages, lr):
    return w + lr * deltas.mean(axis=0)


def rate_forgotten(w, deltas, ages, lr):
    return fedbuff_step(w, deltas, ages, 1.0)


def subtracted(w, deltas, ages, lr):
    return fedbuff_step(w, deltas, ages, -lr)


def change_alone(w, deltas, ages, lr):
    return fedbuff_step(np.zeros_like(w), deltas, ages, lr)


def raised_first(w, deltas, ages, lr):
    return fedbuff_step(w, deltas, ages + 1, lr)


def root_of_age(w, deltas, ages, lr):
    return w + lr * ((1 / (1 + np.sqrt(ages)))[:, None] * deltas).mean(axis=0)


def no_root(w, deltas, ages, lr):
    return w + lr * ((1 / (1 + ages))[:, None] * deltas).mean(axis=0)


def mean_age(w, deltas, ages, lr):
    return w + lr * (1 + ages.mean()) ** -0.5 * deltas.mean(axis=0)


def models_mixed(w, deltas, ages, lr):
    return (1 - lr) * w + lr * fedbuff_step(np.zeros_like(w), deltas, ages, 1.0)


def wrong_axis(w, deltas, ages, lr):
    weights = (1 + ages) ** -0.5
    return w + lr * (weights[:, None] * deltas).sum(axis=1) / len(deltas)


def draw_buffer(rng):
    k = int(rng.integers(3, 6))
    ages = rng.permutation([0, 2, 5, 1, 8][:k])
    return rng.normal(size=4), rng.normal(size=(k, 4)), ages, float(rng.uniform(0.3, 0.8))


# --- 07.bounded_delay ------------------------------------------------------------------------------------------------


def bounded_delay(answers, version, max_delay):
    """answers: a list of (version it started from, bytes). Returns (positions used, a list; bytes refused)."""
    used, wasted = [], 0
    for i, (started, nbytes) in enumerate(answers):
        if 0 <= version - started <= max_delay:
            used.append(i)
        else:
            wasted += nbytes
    return used, wasted


def below_the_limit(answers, version, max_delay):
    return bounded_delay([(s - 1 if s <= version else s, n) for s, n in answers], version, max_delay)


def future_used(answers, version, max_delay):
    return bounded_delay([(min(s, version), n) for s, n in answers], version, max_delay)


def future_by_size(answers, version, max_delay):
    return bounded_delay([(version - abs(version - s), n) for s, n in answers], version, max_delay)


def bytes_are_free(answers, version, max_delay):
    return bounded_delay(answers, version, max_delay)[0], 0


def bytes_of_all(answers, version, max_delay):
    return bounded_delay(answers, version, max_delay)[0], sum(n for _, n in answers)


def bytes_of_the_used(answers, version, max_delay):
    used, wasted = bounded_delay(answers, version, max_delay)
    return used, sum(n for _, n in answers) - wasted


def refused_counted(answers, version, max_delay):
    used, _ = bounded_delay(answers, version, max_delay)
    return used, len(answers) - len(used)


def the_refused(answers, version, max_delay):
    used, wasted = bounded_delay(answers, version, max_delay)
    return [i for i in range(len(answers)) if i not in used], wasted


def versions_for_positions(answers, version, max_delay):
    used, wasted = bounded_delay(answers, version, max_delay)
    return [answers[i][0] for i in used], wasted


def everybody_welcome(answers, version, max_delay):
    return list(range(len(answers))), 0


def started_late_enough(answers, version, max_delay):
    return bounded_delay([(version - s, n) for s, n in answers], version, max_delay)


def wasted_first(answers, version, max_delay):
    return bounded_delay(answers, version, max_delay)[::-1]


def used_alone(answers, version, max_delay):
    return bounded_delay(answers, version, max_delay)[0]


def draw_answers(rng):
    limit, version = int(rng.integers(2, 5)), int(rng.integers(20, 40))
    ages = rng.permutation([0, 1, limit, limit + 1, limit + int(rng.integers(2, 5)), -1, -int(rng.integers(6, 9))])
    return [(version - int(age), int(rng.integers(100, 999))) for age in ages], version, limit


# --- 07.replay: the event heap ---------------------------------------------------------------------------------------


def replay(seconds, at_work, until):
    """seconds: a list, what a job takes on device 0, 1, …; at_work: jobs at a time. Returns a list of
    (instant, device, staleness), one an answer, up to and including the instant `until`."""
    heap: list[tuple[float, int, int]] = []                  # (end, device, version at its start)
    heard: list[tuple[float, int, int]] = []
    idle, version, now, working = list(range(len(seconds))), 0, 0.0, 0
    while True:
        while idle and working < at_work:
            device = idle.pop(0)
            heapq.heappush(heap, (now + seconds[device], device, version))
            working += 1
        now = heap[0][0]
        if now > until:
            return heard
        while heap and heap[0][0] == now:
            _, device, started = heapq.heappop(heap)
            heard.append((now, device, version - started))
            version += 1
            idle.append(device)
            working -= 1


def replayed(seconds, at_work, until, drain=True, front=False, first=0, whole=True, once=False, reverse=False):
    """The same with one thing done wrong."""
    heap: list[tuple[float, int, int]] = []
    heard: list[tuple[float, int, int]] = []
    idle, version, now, working = list(range(len(seconds))), 0, 0.0, 0
    while idle or heap:
        while idle and working < at_work:
            device = idle.pop(0)
            sign = -device if reverse else device
            heapq.heappush(heap, (now + seconds[device], sign, version))
            working += 1
        now = heap[0][0]
        if now > until or (now == until and not whole):
            break
        while heap and heap[0][0] == now:
            _, device, started = heapq.heappop(heap)
            device = abs(device)
            heard.append((now, device, version + first - started))
            version, working = version + 1, working - 1
            if not once:
                idle.insert(0, device) if front else idle.append(device)
            if not drain:
                break
    return heard


def starts_in_between(seconds, at_work, until):
    return replayed(seconds, at_work, until, drain=False)


def the_same_again(seconds, at_work, until):
    return replayed(seconds, at_work, until, front=True)


def version_first(seconds, at_work, until):
    return replayed(seconds, at_work, until, first=1)


def last_instant_lost(seconds, at_work, until):
    return replayed(seconds, at_work, until, whole=False)


def each_once(seconds, at_work, until):
    return replayed(seconds, at_work, until, once=True)


def highest_number_first(seconds, at_work, until):
    return replayed(seconds, at_work, until, reverse=True)


def everybody_works(seconds, at_work, until):
    return replay(seconds, len(seconds), until)


def never_stale(seconds, at_work, until):
    return [(instant, device, 0) for instant, device, _ in replay(seconds, at_work, until)]


def staleness_left_out(seconds, at_work, until):
    return [(instant, device) for instant, device, _ in replay(seconds, at_work, until)]


def device_first(seconds, at_work, until):
    return [(device, instant, age) for instant, device, age in replay(seconds, at_work, until)]


def version_for_staleness(seconds, at_work, until):
    return [(instant, device, i - age) for i, (instant, device, age) in enumerate(replay(seconds, at_work, until))]


def in_rounds(seconds, at_work, until):
    heard, now, first, n = [], 0, 0, len(seconds)
    while True:
        team = [(first + i) % n for i in range(min(at_work, n))]
        heard += sorted((now + seconds[device], device, 0) for device in team)
        now, first = now + max(seconds[device] for device in team), (first + at_work) % n
        if now > until:
            return [answer for answer in heard if answer[0] <= until]


def draw_devices(rng):
    """Two devices finish together, with others idle; 0 waits in between, so that who is started next shows at once."""
    slow = int(rng.integers(5, 8))
    return [2, slow, 2, 3, 1, slow + 1], 3, 2 * int(rng.integers(8, 11))


def test_replay(fn, rng):
    agrees_with(replay, draw_devices, 4)(fn, rng)
    for seconds, at_work, until in (([3, 1], 5, 6), ([4], 1, 12), ([1, 1, 1], 2, 3)):
        expect(fn(list(seconds), at_work, until), replay(seconds, at_work, until), f"{seconds}, {at_work}, {until}")


# --- 07.delayed_walk: why adding full changes diverges ---------------------------------------------------------------


def delayed_walk(w, target, rate, delay, steps):
    """w, target: numbers. Returns the models before the first and after each step, (steps + 1,)."""
    models = [w]
    for t in range(steps):
        seen = models[max(0, t - delay)]
        models.append(models[t] + rate * (target - seen))
    return np.array(models)


def nobody_late(w, target, rate, delay, steps):
    return delayed_walk(w, target, rate, 0, steps)


def one_less_late(w, target, rate, delay, steps):
    return delayed_walk(w, target, rate, delay - 1, steps)


def one_more_late(w, target, rate, delay, steps):
    return delayed_walk(w, target, rate, delay + 1, steps)


def from_the_model_seen(w, target, rate, delay, steps):
    models = [w]
    for t in range(steps):
        seen = models[max(0, t - delay)]
        models.append(seen + rate * (target - seen))
    return np.array(models)


def models_mixed_instead(w, target, rate, delay, steps):
    models = [w]
    for t in range(steps):
        models.append((1 - rate) * models[t] + rate * models[max(0, t - delay)])
    return np.array(models)


def away_from_target(w, target, rate, delay, steps):
    return delayed_walk(w, target, -rate, delay, steps)


def full_change(w, target, rate, delay, steps):
    return delayed_walk(w, target, 1.0, delay, steps)


def start_left_out(w, target, rate, delay, steps):
    return delayed_walk(w, target, rate, delay, steps)[1:]


def end_alone(w, target, rate, delay, steps):
    return delayed_walk(w, target, rate, delay, steps)[-1]


def one_step_less(w, target, rate, delay, steps):
    return delayed_walk(w, target, rate, delay, steps)[:-1]


def waits_first(w, target, rate, delay, steps):
    models = [w]
    for t in range(steps):
        models.append(models[t] + (rate * (target - models[t - delay]) if t >= delay else 0))
    return np.array(models)


def first_seen_for_ever(w, target, rate, delay, steps):
    return delayed_walk(w, target, rate, steps, steps)


def counted_backwards(w, target, rate, delay, steps):
    models = [w]
    for t in range(steps):
        models.append(models[t] + rate * (target - models[min(t, delay)]))
    return np.array(models)


def draw_walk(rng):
    return float(rng.normal()), float(rng.uniform(3, 5)), float(rng.uniform(0.4, 0.9)), int(rng.integers(2, 5)), 12


# --- 07.throughput ---------------------------------------------------------------------------------------------------


def throughput(seconds):
    """seconds: (n,), what a job takes on each device. Returns (answers an hour, share of the answers of each, (n,))."""
    rates = 3600 / seconds
    return rates.sum(), rates / rates.sum()


def by_the_mean(seconds):
    return 3600 * len(seconds) / seconds.mean(), throughput(seconds)[1]


def by_the_slowest(seconds):
    return 3600 * len(seconds) / seconds.max(), np.full(len(seconds), 1 / len(seconds))


def of_one_device(seconds):
    return (3600 / seconds).mean(), throughput(seconds)[1]


def one_after_the_other(seconds):
    return 3600 / seconds.sum(), throughput(seconds)[1]


def answers_a_second(seconds):
    return (1 / seconds).sum(), throughput(seconds)[1]


def answers_a_minute(seconds):
    return (60 / seconds).sum(), throughput(seconds)[1]


def equal_shares(seconds):
    return throughput(seconds)[0], np.full(len(seconds), 1 / len(seconds))


def shares_of_time(seconds):
    return throughput(seconds)[0], seconds / seconds.sum()


def not_shares(seconds):
    return throughput(seconds)[0], 3600 / seconds


def times_the_fastest(seconds):
    return throughput(seconds)[0], seconds.min() / seconds


def seconds_between(seconds):
    return 1 / (1 / seconds).sum(), throughput(seconds)[1]


def harmonic_mean(seconds):
    return len(seconds) / (1 / seconds).sum(), throughput(seconds)[1]


def shares_alone(seconds):
    return throughput(seconds)[1]


def answers_alone(seconds):
    return throughput(seconds)[0]


def draw_seconds(rng):
    return (rng.permutation([50.0, 100.0, 200.0, 400.0, 800.0])[: int(rng.integers(3, 6))] + rng.uniform(0, 20),)


# --- 07.read_timeline ------------------------------------------------------------------------------------------------


def read_timeline(spans, steps):
    """spans: a list of (device, begun, ended), seconds; steps: instants of the server's steps, rising. Returns
    (staleness of each span's answer, a list; busy, a dict: device -> share of the time until the last step)."""
    ages, busy = [], dict.fromkeys((device for device, _, _ in spans), 0.0)
    for device, begun, ended in spans:
        before = sum(step <= begun for step in steps)
        ages.append(sum(step < ended for step in steps) - before)
        busy[device] += (ended - begun) / steps[-1]
    return ages, busy


def own_step_counted(spans, steps):
    ages, busy = read_timeline(spans, steps)
    return [age + 1 for age in ages], busy


def from_the_beginning(spans, steps):
    return [sum(step < ended for step in steps) for _, _, ended in spans], read_timeline(spans, steps)[1]


def version_of_the_start(spans, steps):
    return [sum(step <= begun for step in steps) for _, begun, _ in spans], read_timeline(spans, steps)[1]


def started_before_the_step(spans, steps):
    ages = [sum(step < ended for step in steps) - sum(step < begun for step in steps) for _, begun, ended in spans]
    return ages, read_timeline(spans, steps)[1]


def age_in_seconds(spans, steps):
    return [ended - begun for _, begun, ended in spans], read_timeline(spans, steps)[1]


def last_span_only(spans, steps):
    return read_timeline(spans, steps)[0], {device: (ended - begun) / steps[-1] for device, begun, ended in spans}


def seconds_at_work(spans, steps):
    ages, busy = read_timeline(spans, steps)
    return ages, {device: share * steps[-1] for device, share in busy.items()}


def idle_share(spans, steps):
    ages, busy = read_timeline(spans, steps)
    return ages, {device: 1 - share for device, share in busy.items()}


def share_of_all_work(spans, steps):
    ages, busy = read_timeline(spans, steps)
    return ages, {device: share / sum(busy.values()) for device, share in busy.items()}


def share_of_own_time(spans, steps):
    ages, busy = read_timeline(spans, steps)
    end = {device: ended for device, _, ended in spans}
    return ages, {device: share * steps[-1] / end[device] for device, share in busy.items()}


def answers_counted(spans, steps):
    devices = [device for device, _, _ in spans]
    return read_timeline(spans, steps)[0], {device: devices.count(device) / len(devices) for device in devices}


def busy_first(spans, steps):
    return read_timeline(spans, steps)[::-1]


def busy_as_a_list(spans, steps):
    ages, busy = read_timeline(spans, steps)
    return ages, list(busy.values())


def draw_timeline(rng):
    """Server steps at every answer; a device rests a while, or starts at the very instant of a step."""
    quick, slow = int(rng.integers(2, 4)), int(rng.integers(9, 12))
    spans = [("a", 0, quick), ("b", 1, 5), ("a", quick, 2 * quick + 2), ("c", 0, slow), ("a", slow, slow + 3), ("b", 6, slow + 5)]
    spans.sort(key=lambda span: span[2])
    return spans, sorted({ended for _, _, ended in spans})


# --- 07.serve: what is wrong with this one? --------------------------------------------------------------------------


def serve(w, answers, K, lr):
    """w: (d,); answers: a list of (version it started from, delta (d,)), as they come. Returns the last model, (d,)."""
    version, buffer = 0, []
    for started, delta in answers:
        buffer.append((started, delta))
        if len(buffer) == K:
            for began, change in buffer:
                w = w + lr / K * change * (1 + version - began) ** -0.5
            version, buffer = version + 1, []
    return w


def served(w, answers, K, lr, weight, first=0):
    """The same with another weight; `first`: raised before the step."""
    version, buffer = 0, []
    for started, delta in answers:
        buffer.append((started, delta))
        if len(buffer) == K:
            for began, change in buffer:
                w = w + lr / K * change * weight(version + first - began)
            version, buffer = version + 1, []
    return w


def as_it_was(w, answers, K, lr):
    return served(w, answers, K, lr, lambda age: 1 / (1 + np.sqrt(age)), first=1)


def order_mended_only(w, answers, K, lr):
    return served(w, answers, K, lr, lambda age: 1 / (1 + np.sqrt(age)))


def formula_mended_only(w, answers, K, lr):
    return served(w, answers, K, lr, lambda age: (1 + age) ** -0.5, first=1)


def everybody_fresh(w, answers, K, lr):
    return served(w, answers, K, lr, lambda age: 1.0)


def weight_without_root(w, answers, K, lr):
    return served(w, answers, K, lr, lambda age: 1 / (1 + age))


def one_taken_off(w, answers, K, lr):
    return served(w, answers, K, lr, lambda age: max(age, 1) ** -0.5)


def twice_the_weight(w, answers, K, lr):
    return served(w, answers, K, lr, lambda age: 2 / (1 + np.sqrt(age)), first=1)


def divided_by_the_weights(w, answers, K, lr):
    version, buffer = 0, []
    for started, delta in answers:
        buffer.append((started, delta))
        if len(buffer) == K:
            weights = np.array([(1 + version - began) ** -0.5 for began, _ in buffer])
            w = w + lr * sum(s * change for s, (_, change) in zip(weights, buffer, strict=True)) / weights.sum()
            version, buffer = version + 1, []
    return w


def buffer_not_emptied(w, answers, K, lr):
    version, buffer = 0, []
    for started, delta in answers:
        buffer.append((started, delta))
        if len(buffer) >= K:
            for began, change in buffer:
                w = w + lr / K * change * (1 + version - began) ** -0.5
            version += 1
    return w


def step_at_every_answer(w, answers, K, lr):
    return served(w, answers, 1, lr / K, lambda age: (1 + age) ** -0.5)


def rest_used_up(w, answers, K, lr):
    n = len(answers) // K * K
    rest = [change * (1 + n // K - began) ** -0.5 for began, change in answers[n:]]
    return serve(w, answers, K, lr) + lr / K * sum(rest, np.zeros_like(w))


def not_divided_by_k(w, answers, K, lr):
    return serve(w, answers, K, lr * K)


def rate_left_out(w, answers, K, lr):
    return serve(w, answers, K, 1.0)


def draw_arrivals(rng):
    """Three steps of K answers and one that waits; some of each buffer are fresh, some are not."""
    k = int(rng.integers(2, 4))
    versions = [0] * k + [0, 1] + [1] * (k - 2) + [0, 2] + [1] * (k - 2) + [3]
    return rng.normal(size=3), [(version, rng.normal(size=3)) for version in versions], k, float(rng.uniform(0.4, 0.9))


EXERCISES = (
    Exercise(
        name="07.staleness_weight",
        title="How much does a stale answer count?",
        difficulty=1,
        minutes=5,
        test=test_weight,
        hints=(
            "All three are 1 at age 0. Try that first.",
            "Polynomial: (1 + age) to the power -a. Exponential: a to the power age.",
            "Hinge: 1 as long as age ≤ b, and after that 1 / (a·(age - b) + 1).",
        ),
        solution=staleness_weight,
        mistakes=(
            Mistake(age_without_one, "At age 0 that divides by zero. A fresh answer weighs 1: (1 + age)^-a."),
            Mistake(grows_with_age, "The older, the *less* it counts: the power is -a."),
            Mistake(one_over_one_plus_power, "1/(1 + age^a) is another curve. The power is taken of 1 + age, (1 + age)^-a."),
            Mistake(always_a_root, "½ is only FedBuff's choice: the power is -a."),
            Mistake(natural_exponential, "Here the base is a itself, a^age, not e."),
            Mistake(power_turned_round, "Base and power are the other way round: a^age."),
            Mistake(linear_loss, "A factor a for *each* step of age: a·a·…, which is a^age."),
            Mistake(hinge_without_a_stop, "Up to age b nothing is lost: 1 there."),
            Mistake(hinge_from_zero, "The loss begins at b: it is age - b that counts, so that the curve has no jump."),
            Mistake(hinge_without_one, "Without the + 1 the weight jumps at b, and may be more than 1."),
            Mistake(hinge_that_adds, "a *times* (age - b), plus 1."),
            Mistake(hinge_to_nothing, "After b the weight falls, but not to nothing: 1 / (a·(age - b) + 1)."),
        ),
    ),
    Exercise(
        name="07.fedbuff_step",
        title="FedBuff's step",
        difficulty=1,
        minutes=10,
        test=agrees_with(fedbuff_step, draw_buffer),
        hints=(
            "Each change is multiplied by its own weight, then all are added.",
            "`weights[:, None] * deltas` multiplies row by row.",
            "The sum is divided by K = `len(deltas)`, multiplied by lr, and added to w.",
        ),
        solution=fedbuff_step,
        mistakes=(
            Mistake(divided_by_weights, "Divided by Σs, the discounts cancel where all are equally old: FedBuff divides by K."),
            Mistake(not_divided, "That is the sum. Divide it by K."),
            Mistake(no_discount, "The ages do not count here: multiply each change by (1 + age)^-½."),
            Mistake(rate_forgotten, "The server's learning rate is missing."),
            Mistake(subtracted, "delta = local - broadcast points where the client went: add it."),
            Mistake(change_alone, "That is the change. Add it to w."),
            Mistake(raised_first, "A fresh answer has age 0 and weighs 1: (1 + age)^-½ as it is, nothing more."),
            Mistake(root_of_age, "1/(1 + √age) is another curve: (1 + age)^-½ is the root of the whole bracket."),
            Mistake(no_root, "The root is missing: (1 + age)^-½."),
            Mistake(mean_age, "Each change has its own age and its own weight."),
            Mistake(models_mixed, "You mix, (1 - lr)·w + …: that is for whole *models*. A change is added."),
            Mistake(wrong_axis, "The answers are the rows: add over `axis=0`."),
        ),
    ),
    Exercise(
        name="07.bounded_delay",
        title="Too old to be used",
        difficulty=1,
        minutes=10,
        test=agrees_with(bounded_delay, draw_answers),
        hints=(
            "The age of an answer is version - started.",
            "Two things are wrong with an answer: an age above max_delay, or one below 0.",
            "Go through the list with `enumerate`: keep the position, or add the bytes.",
        ),
        solution=bounded_delay,
        mistakes=(
            Mistake(below_the_limit, "An age of exactly max_delay is still allowed: `<=`."),
            Mistake(future_used, "An answer that started from a version *after* this one cannot be honest: refuse it."),
            Mistake(future_by_size, "An age of -1 is no age of 1: what comes from the future is refused."),
            Mistake(bytes_are_free, "What is refused was sent all the same: add up its bytes."),
            Mistake(bytes_of_all, "Only the bytes of what is refused."),
            Mistake(bytes_of_the_used, "These are the bytes of what is used. Those of what is refused are asked for."),
            Mistake(refused_counted, "That is how many are refused. Their bytes are asked for."),
            Mistake(the_refused, "These are the positions of the refused ones."),
            Mistake(versions_for_positions, "These are versions. The positions in the list are asked for."),
            Mistake(everybody_welcome, "Nothing is refused: compare version - started with max_delay."),
            Mistake(started_late_enough, "You compare the version that it started from. The age is version - started."),
            Mistake(wasted_first, "The positions come first, then the bytes."),
            Mistake(used_alone, "The bytes of what was refused are asked for, too: return (used, wasted)."),
        ),
    ),
    Exercise(
        name="07.replay",
        title="The event heap",
        difficulty=3,
        minutes=30,
        test=test_replay,
        hints=(
            "Keep a heap of (when it ends, device, version at its start), and a list of idle devices.",
            "Again and again: start from the front of the list while fewer than at_work are busy; go to the first end on the "
            "heap; take *all* that end at this instant off it.",
            "For each of these: staleness = version - its start's version; then version + 1; then it joins the end of the list.",
        ),
        solution=replay,
        mistakes=(
            Mistake(starts_in_between, "Of those that end at one instant all are heard before anybody starts, so that nobody is "
                    "handed a model that is old already."),
            Mistake(the_same_again, "Who has answered goes to the *end* of the queue; else the others never get a turn."),
            Mistake(version_first, "You raise the version before you count the staleness: a fresh answer has 0."),
            Mistake(last_instant_lost, "Answers at the very instant `until` count, too."),
            Mistake(each_once, "Who has answered waits in the queue for another job."),
            Mistake(highest_number_first, "At one instant the device with the lowest number is heard first."),
            Mistake(everybody_works, "No more than `at_work` devices work at a time."),
            Mistake(never_stale, "While a device works the others step the server: staleness is the steps in between."),
            Mistake(staleness_left_out, "The staleness is asked for, too: (instant, device, staleness)."),
            Mistake(device_first, "The instant comes first: (instant, device, staleness)."),
            Mistake(version_for_staleness, "That is the version that it started from. Staleness: the steps since then."),
            Mistake(in_rounds, "These are rounds: the quick ones wait for the slowest. Here somebody new starts at each answer."),
        ),
    ),
    Exercise(
        name="07.delayed_walk",
        title="Why adding full changes diverges",
        difficulty=2,
        minutes=15,
        test=agrees_with(delayed_walk, draw_walk),
        hints=(
            "Keep all models in a list: models[0] is w.",
            "The change that arrives in step t was made for models[t - delay]; before there was one, for models[0].",
            "models.append(models[t] + rate·(target - models[max(0, t - delay)])).",
        ),
        solution=delayed_walk,
        mistakes=(
            Mistake(nobody_late, "The client saw the model of `delay` steps ago, not today's."),
            Mistake(one_less_late, "One step too young: with delay 1 the change of step 1 was made for models[0]."),
            Mistake(one_more_late, "One step too old: with delay 0 nobody is late."),
            Mistake(from_the_model_seen, "The change is added to *today's* model, though it was made for an old one."),
            Mistake(models_mixed_instead, "You mix today's model with the old one. Add rate·(target - what the client saw)."),
            Mistake(away_from_target, "The change goes *to* the target: target - seen."),
            Mistake(full_change, "Times `rate`."),
            Mistake(start_left_out, "The start is asked for as well: steps + 1 models."),
            Mistake(end_alone, "All models are asked for, not the last one alone."),
            Mistake(one_step_less, "The last step is missing: steps + 1 models in all."),
            Mistake(waits_first, "The clients of the first steps all saw the start: nobody waits."),
            Mistake(first_seen_for_ever, "They see the start only as long as nothing newer is `delay` steps old."),
            Mistake(counted_backwards, "Step t saw models[t - delay], not models[delay]."),
        ),
    ),
    Exercise(
        name="07.throughput",
        title="Predict the throughput",
        difficulty=1,
        minutes=10,
        test=agrees_with(throughput, draw_seconds),
        hints=(
            "How many answers an hour does one device give, if it never waits?",
            "Rates add up; seconds do not.",
            "`rates = 3600 / seconds`; their sum; each divided by the sum.",
        ),
        solution=throughput,
        mistakes=(
            Mistake(by_the_mean, "The mean of the seconds is the wrong mean: seconds do not add up, rates do."),
            Mistake(by_the_slowest, "So it is in rounds, where all wait for the slowest. Here nobody waits."),
            Mistake(of_one_device, "That is the mean rate of one device. They work side by side: add them up."),
            Mistake(one_after_the_other, "They work at the same time, not one after the other."),
            Mistake(answers_a_second, "An hour has 3,600 seconds."),
            Mistake(answers_a_minute, "That is a minute. An hour is asked for."),
            Mistake(equal_shares, "Who is fast answers more often: its share is its rate over the sum of rates."),
            Mistake(shares_of_time, "These are shares of the seconds, the slowest first. The *fast* are heard more often."),
            Mistake(not_shares, "These are rates. Divided by their sum they are shares."),
            Mistake(times_the_fastest, "Shares add up to 1: divide by the sum of the rates."),
            Mistake(seconds_between, "These are the seconds between two answers. How many come in an hour?"),
            Mistake(harmonic_mean, "That is the harmonic mean of the seconds. n·3600 divided by it is what is asked for."),
            Mistake(shares_alone, "The answers an hour are asked for, too: return (answers, shares)."),
            Mistake(answers_alone, "The shares are asked for, too: return (answers, shares)."),
        ),
    ),
    Exercise(
        name="07.read_timeline",
        title="Read a timeline",
        difficulty=2,
        minutes=20,
        test=agrees_with(read_timeline, draw_timeline),
        hints=(
            "The version at an instant is the number of steps so far.",
            "A job that begins at the instant of a step gets the new model: count steps ≤ begun. Its answer is used in the first "
            "step from `ended` on: the steps before that one are those < ended.",
            "Staleness is the difference of the two counts. Busy: add (ended - begun) / steps[-1] to the device's share.",
        ),
        solution=read_timeline,
        mistakes=(
            Mistake(own_step_counted, "The step that uses the answer does not count: steps *before* it, < ended."),
            Mistake(from_the_beginning, "That is the version at its use. Take off the version that it started from."),
            Mistake(version_of_the_start, "That is the version that it started from. How many steps since?"),
            Mistake(started_before_the_step, "Who begins at the instant of a step gets the new model: count steps ≤ begun."),
            Mistake(age_in_seconds, "Staleness is counted in steps of the server, not in seconds."),
            Mistake(last_span_only, "A device has several spans: add them up."),
            Mistake(seconds_at_work, "These are seconds. Divide by the instant of the last step."),
            Mistake(idle_share, "That is the share of the time in which it is idle."),
            Mistake(share_of_all_work, "Each device's share of its *own* time is asked for: they need not add up to 1."),
            Mistake(share_of_own_time, "The time runs until the last step for every device."),
            Mistake(answers_counted, "These are shares of the answers. Shares of the time are asked for."),
            Mistake(busy_first, "The staleness comes first, then who is busy."),
            Mistake(busy_as_a_list, "Whose shares are these? Return a dict, device -> share."),
        ),
    ),
    Exercise(
        name="07.serve",
        title="What is wrong with this one? A server that is never content",
        difficulty=2,
        minutes=20,
        test=agrees_with(serve, draw_arrivals),
        hints=(
            "What does `weight_of` say for a fresh answer, and which line has raised the version by then?",
            "Count the ages first, step, and raise the version last. Then look at the oracle again: at age 3 it wants ½.",
            "The weight is (1 + age)^-½, the root of the whole bracket, not 1/(1 + √age).",
        ),
        solution=serve,
        mistakes=(
            Mistake(as_it_was, "That is the server as it was. `weight_of(serve, 0)` shall be 1."),
            Mistake(order_mended_only, "Fresh answers weigh 1 now. At age 3 they weigh 0.37: (1 + age)^-½ gives ½."),
            Mistake(formula_mended_only, "The curve is right, but the version is still raised before the ages are counted."),
            Mistake(everybody_fresh, "Now nothing is discounted: weigh each change by (1 + age)^-½."),
            Mistake(weight_without_root, "The root is missing: (1 + age)^-½."),
            Mistake(one_taken_off, "Now ages 0 and 1 weigh the same: raise the version later, and keep the 1 + age."),
            Mistake(twice_the_weight, "Twice the weight mends age 0 only. Ask the oracle for age 3."),
            Mistake(divided_by_the_weights, "FedBuff divides by K, not by the sum of the weights."),
            Mistake(buffer_not_emptied, "A buffer that was used is empty afterwards."),
            Mistake(step_at_every_answer, "The server steps when K answers are there, not at each."),
            Mistake(rest_used_up, "What does not fill a buffer waits, and is not used yet."),
            Mistake(not_divided_by_k, "The sum is divided by K."),
            Mistake(rate_left_out, "The server's learning rate is missing."),
        ),
    ),
)  # fmt: skip
