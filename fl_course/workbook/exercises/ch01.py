"""The exercises of chapter 1: solutions, common mistakes and their hints. How a chapter is written: workbook/grading/checks.py."""

import numpy as np

from fl_course.workbook.grading.checks import Exercise, Mistake, agrees_with, expect

# --- 01.weighted_average ---------------------------------------------------------------------------------------------


def weighted_average(deltas, counts):
    """deltas: (n, d), one row a client; counts: (n,) examples. Returns the weighted mean (d,)."""
    weights = np.asarray(counts) / np.sum(counts)
    return weights @ deltas


def plain_mean(deltas, counts):
    return np.mean(deltas, axis=0)


def weighted_sum(deltas, counts):
    return np.asarray(counts) @ deltas


def divided_by_clients(deltas, counts):
    return np.asarray(counts) @ deltas / len(counts)


def draw_deltas(rng):
    clients = int(rng.integers(2, 6))
    return rng.normal(size=(clients, 3)), rng.permutation(np.arange(2, 20))[:clients]


# --- 01.local_step ---------------------------------------------------------------------------------------------------


def local_step(W, x, y, lr):
    """W: (classes, features); x: (n, features); y: (n,) labels. Returns the new W, of the same shape."""
    logits = x @ W.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return W - lr * p.T @ x / len(y)


def summed_gradient(W, x, y, lr):
    return W + len(y) * (local_step(W, x, y, lr) - W)


def uphill(W, x, y, lr):
    return 2 * W - local_step(W, x, y, lr)


def gradient_only(W, x, y, lr):
    return (W - local_step(W, x, y, lr)) / lr


def labels_forgotten(W, x, y, lr):
    logits = x @ W.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return W - lr * (p / p.sum(axis=1, keepdims=True)).T @ x / len(y)


def draw_batch(rng):
    n = int(rng.integers(2, 9))
    return rng.normal(size=(4, 3)), rng.normal(size=(n, 3)), rng.integers(0, 4, size=n), float(rng.uniform(0.1, 0.9))


# --- 01.sample_clients -----------------------------------------------------------------------------------------------


def sample_clients(clients, fraction, rng):
    """clients: K; fraction: C in (0, 1]; rng: numpy Generator. Returns m client numbers."""
    m = max(round(fraction * clients), 1)
    return rng.choice(clients, size=m, replace=False)


def with_replacement(clients, fraction, rng):
    return rng.choice(clients, size=max(round(fraction * clients), 1), replace=True)


def maybe_nobody(clients, fraction, rng):
    return rng.choice(clients, size=int(fraction * clients), replace=False)


def always_the_first(clients, fraction, rng):
    return np.arange(max(round(fraction * clients), 1))


def test_sampling(fn, rng):
    seen = set()
    for clients, fraction in [(10, 0.8)] * 20 + [(7, 1.0), (50, 0.5), (100, 0.003)]:
        got = np.asarray(fn(clients, fraction, rng))
        tried = f"{clients} clients, C = {fraction}"
        expect(len(got), max(round(fraction * clients), 1), f"{tried}: how many are asked")
        expect(len(set(got.tolist())), len(got), f"{tried}: how many different clients are asked")
        expect(bool((got >= 0).all() and (got < clients).all()), True, f"{tried}: all of them exist")
        if clients == 10:
            seen |= set(got.tolist())
    expect(sorted(seen), list(range(10)), "10 clients, C = 0.8, 20 rounds: who ever took part")


# --- 01.shards -------------------------------------------------------------------------------------------------------


def shards(labels, clients, per_client, rng):
    """labels: (N,). Returns a list with one array of row numbers for each client."""
    by_label = np.argsort(labels, kind="stable")
    pieces = np.array_split(by_label, clients * per_client)
    deal = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [np.concatenate([pieces[i] for i in mine]) for mine in deal]


def not_sorted(labels, clients, per_client, rng):
    pieces = np.array_split(np.arange(len(labels)), clients * per_client)
    deal = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [np.concatenate([pieces[i] for i in mine]) for mine in deal]


def neighbours(labels, clients, per_client, rng):
    by_label = np.argsort(labels, kind="stable")
    pieces = np.array_split(by_label, clients * per_client)
    return [np.concatenate(pieces[k * per_client : (k + 1) * per_client]) for k in range(clients)]


def shards_shared(labels, clients, per_client, rng):
    by_label = np.argsort(labels, kind="stable")
    pieces = np.array_split(by_label, clients * per_client)
    deal = rng.integers(0, len(pieces), size=(clients, per_client))
    return [np.concatenate([pieces[i] for i in mine]) for mine in deal]


def test_shards(fn, rng):
    for clients, per_client in ((10, 2), (20, 2), (10, 1)):
        labels = rng.permutation(np.repeat(np.arange(10), 20))
        parts = fn(labels.copy(), clients, per_client, rng)
        tried = f"200 examples of 10 labels, {clients} clients with {per_client} shard(s) each"
        expect(len(parts), clients, f"{tried}: how many parts")
        expect(sorted(np.concatenate(parts).tolist()), list(range(200)), f"{tried}: every example exactly once")
        most = max(len(set(labels[part].tolist())) for part in parts)
        expect(most <= per_client, True, f"{tried}: {most} labels at one client; nobody has more labels than shards")
        if per_client == 2:
            kinds = [len(set(labels[part].tolist())) for part in parts]
            expect(max(kinds), 2, f"{tried}: shards dealt at random, so that most clients see two labels; the most seen")


# --- 01.rounds_to_target ---------------------------------------------------------------------------------------------


def rounds_to_target(accuracies, target):
    """accuracies: one a round. Returns a round number or None."""
    for r, accuracy in enumerate(accuracies, start=1):
        if accuracy >= target:
            return r
    return None


def from_zero(accuracies, target):
    return next((r for r, accuracy in enumerate(accuracies) if accuracy >= target), None)


def last_below(accuracies, target):
    below = [r for r, accuracy in enumerate(accuracies, start=1) if accuracy < target]
    return below[-1] + 1 if below and below[-1] < len(accuracies) else (None if below else 1)


def never_is_the_end(accuracies, target):
    found = rounds_to_target(accuracies, target)
    return len(accuracies) if found is None else found


def test_rounds(fn, rng):
    for case in range(8):
        accuracies = np.round(rng.uniform(0.1, 0.8, size=12), 2)
        accuracies[5], accuracies[8] = 0.9, 0.2
        target = [0.85, 0.9, 0.95][case % 3]
        expect(fn(accuracies.tolist(), target), rounds_to_target(accuracies, target), f"{accuracies.tolist()}, target {target}")


# --- 01.fedsgd_round -------------------------------------------------------------------------------------------------


def fedsgd_round(w, clients, lr):
    """w: (d,); clients: a list of (x, y), x: (n_k, d), y: (n_k,). Returns the new w (d,). The data stay in their pairs."""
    n = sum(len(y) for _, y in clients)
    step = np.zeros_like(w)
    for x, y in clients:
        gradient = x.T @ (x @ w - y) / len(y)
        step += len(y) / n * gradient
    return w - lr * step


def equal_weights(w, clients, lr):
    gradients = [x.T @ (x @ w - y) / len(y) for x, y in clients]
    return w - lr * np.mean(gradients, axis=0)


def added_up(w, clients, lr):
    gradients = [x.T @ (x @ w - y) / len(y) for x, y in clients]
    return w - lr * np.sum(gradients, axis=0)


def only_the_change(w, clients, lr):
    return fedsgd_round(w, clients, lr) - w


def test_fedsgd(fn, rng):
    for _ in range(5):
        w, lr = rng.normal(size=3), float(rng.uniform(0.05, 0.5))
        sizes = rng.permutation([1, 3, 6, 10])[:3]
        clients = [(rng.normal(size=(n, 3)), rng.normal(size=n)) for n in sizes]
        x, y = np.concatenate([x for x, _ in clients]), np.concatenate([y for _, y in clients])
        pooled = w - lr * x.T @ (x @ w - y) / len(y)            # one step as if all examples lay in one place
        expect(fn(w.copy(), clients, lr), pooled, f"clients with {sizes.tolist()} examples against one pooled gradient step")


# --- 01.run_rounds: find the bug -------------------------------------------------------------------------------------


def run_rounds(w, deltas, counts):
    """w: (d,) the first model; deltas: (rounds, n, d); counts: (n,) examples. Returns the model after the last round."""
    for cohort in deltas:
        mean = np.average(cohort, axis=0, weights=counts)
        w = w + mean
    return w


def overwritten(w, deltas, counts):
    for cohort in deltas:
        w = np.average(cohort, axis=0, weights=counts)
    return w


def subtracted(w, deltas, counts):
    for cohort in deltas:
        w = w - np.average(cohort, axis=0, weights=counts)
    return w


def first_model_again(w, deltas, counts):
    return w + np.average(deltas[-1], axis=0, weights=counts)


def draw_rounds(rng):
    rounds, clients = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    return rng.normal(size=3), rng.normal(size=(rounds, clients, 3)), rng.integers(1, 20, size=clients)


EXERCISES = (
    Exercise(
        name="01.weighted_average",
        title="The average of FedAvg",
        difficulty=1,
        minutes=5,
        test=agrees_with(weighted_average, draw_deltas),
        hints=(
            "A client with twice the examples counts twice.",
            "Turn the counts into weights that add up to 1.",
            "`weights @ deltas` adds the rows, each times its weight.",
        ),
        solution=weighted_average,
        mistakes=(
            Mistake(plain_mean, "Every client counts the same here, whether it has 2 examples or 2,000. Use the counts."),
            Mistake(weighted_sum, "The weights must add up to 1: divide the counts by their sum."),
            Mistake(divided_by_clients, "You divide by the number of clients; divide by the number of *examples*."),
        ),
    ),
    Exercise(
        name="01.local_step",
        title="One step of local training",
        difficulty=2,
        minutes=15,
        test=agrees_with(local_step, draw_batch),
        hints=(
            "Softmax first: subtract the row's maximum before `np.exp`, so that nothing overflows.",
            "The gradient of the loss by the logits is softmax minus 1 at the true label.",
            "By W it is `p.T @ x / n`; step against it.",
        ),
        solution=local_step,
        mistakes=(
            Mistake(summed_gradient, "That is the gradient of the *sum* of the losses. Take the mean: divide by the examples."),
            Mistake(uphill, "You go uphill: subtract the gradient."),
            Mistake(gradient_only, "That is the gradient. Return the new W."),
            Mistake(labels_forgotten, "The labels are not used: subtract 1 at the true label of each row."),
        ),
    ),
    Exercise(
        name="01.sample_clients",
        title="Who takes part",
        difficulty=1,
        minutes=5,
        test=test_sampling,
        hints=(
            "m = max(C·K rounded, 1) clients, all different.",
            "The generator `rng` can choose.",
            "`rng.choice(clients, size=m, replace=False)`",
        ),
        solution=sample_clients,
        mistakes=(
            Mistake(with_replacement, "A client can be asked twice in one round: sample without replacement."),
            Mistake(maybe_nobody, "For a small C nobody is asked: round, and ask at least one client."),
            Mistake(always_the_first, "The same clients take part every round: draw with the generator."),
        ),
    ),
    Exercise(
        name="01.shards",
        title="The pathological deal",
        difficulty=3,
        minutes=20,
        test=test_shards,
        hints=(
            "Sort the *row numbers* by label: `np.argsort(labels)`.",
            "Cut them into clients·per_client pieces: `np.array_split`.",
            "Deal the pieces like cards: a permutation of the piece numbers, per_client for each client.",
        ),
        solution=shards,
        mistakes=(
            Mistake(not_sorted, "The pieces are not sorted by label, so every client has a bit of everything."),
            Mistake(neighbours, "Neighbouring pieces go to the same client, so it sees one label. Deal them at random."),
            Mistake(shards_shared, "A piece can go to two clients and another to nobody. Deal without replacement."),
        ),
    ),
    Exercise(
        name="01.rounds_to_target",
        title="Rounds to a target accuracy",
        difficulty=1,
        minutes=5,
        test=test_rounds,
        hints=(
            "The *first* round that reaches the target, even if the accuracy falls again.",
            "Rounds are counted from 1: `enumerate(accuracies, start=1)`.",
            "`return None` after the loop.",
        ),
        solution=rounds_to_target,
        mistakes=(
            Mistake(from_zero, "Rounds are counted from 1: after the first round, one round has been made."),
            Mistake(last_below, "You wait until it stays above. Count the rounds until it is reached for the first time."),
            Mistake(never_is_the_end, "A target that is never reached gives None, not the number of rounds."),
        ),
    ),
    Exercise(
        name="01.fedsgd_round",
        title="One full-batch step each is gradient descent",
        difficulty=2,
        minutes=15,
        test=test_fedsgd,
        hints=(
            "The gradient of a client's mean squared error over 2 is `x.T @ (x @ w - y) / len(y)`.",
            "The pooled gradient is the average of the clients' gradients, weighted by their examples.",
            "Weigh client k by len(y_k) / n, add up, step once.",
        ),
        solution=fedsgd_round,
        mistakes=(
            Mistake(equal_weights, "Equal weights give the pooled step only if all clients have equally many examples."),
            Mistake(added_up, "The steps are added up, so the learning rate grows with the number of clients. Average."),
            Mistake(only_the_change, "That is the change of the model. Return the model."),
        ),
    ),
    Exercise(
        name="01.run_rounds",
        title="Find the bug: the coordinator that forgets",
        difficulty=2,
        minutes=10,
        test=agrees_with(run_rounds, draw_rounds),
        hints=(
            "What do clients send, models or changes of models?",
            "delta = local - broadcast. What must be done with it to get a model back?",
            "Add the mean delta to the model of this round.",
        ),
        solution=run_rounds,
        mistakes=(
            Mistake(overwritten, "The model is overwritten with a delta: after round one it is the change of a model, not a model."),
            Mistake(subtracted, "delta is local minus broadcast: adding it moves towards the clients, subtracting away from them."),
            Mistake(first_model_again, "Every round starts from the model of the round before, not from the first one."),
        ),
    ),
)
