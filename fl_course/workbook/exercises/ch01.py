"""The exercises of chapter 1: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

import numpy as np

from fl_course.workbook.grading.checks import Exercise, Mistake, Wrong, agrees_with, expect
from fl_course.workbook.grading.compare import clone, same

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


def not_added_up(deltas, counts):
    return (np.asarray(counts) / np.sum(counts))[:, None] * deltas


def no_weights(deltas, counts):
    return np.sum(deltas, axis=0)


def softmax_of_counts(deltas, counts):
    weights = np.exp(np.asarray(counts) - np.max(counts))
    return weights / weights.sum() @ deltas


def averaged_over_numbers(deltas, counts):
    return np.mean(deltas, axis=1)


def backwards(deltas, counts):
    return -weighted_average(deltas, counts)


def rarest_counts_most(deltas, counts):
    weights = 1 / np.asarray(counts)
    return weights / weights.sum() @ deltas


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


def softmax_over_the_batch(W, x, y, lr):
    logits = x @ W.T
    p = np.exp(logits - logits.max(axis=0, keepdims=True))
    p = p / p.sum(axis=0, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return W - lr * p.T @ x / len(y)


def no_softmax(W, x, y, lr):
    p = x @ W.T
    p[np.arange(len(y)), y] -= 1
    return W - lr * p.T @ x / len(y)


def not_normalised(W, x, y, lr):
    p = np.exp(x @ W.T)
    p[np.arange(len(y)), y] -= 1
    return W - lr * p.T @ x / len(y)


def divided_by_classes(W, x, y, lr):
    return W + len(y) / len(W) * (local_step(W, x, y, lr) - W)


def rate_forgotten(W, x, y, lr):
    return local_step(W, x, y, 1.0)


def one_for_all_labels(W, x, y, lr):
    logits = x @ W.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    p[:, y] -= 1
    return W - lr * p.T @ x / len(y)


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


def rounded_down(clients, fraction, rng):
    return rng.choice(clients, size=max(int(fraction * clients), 1), replace=False)


def rounded_up(clients, fraction, rng):
    return rng.choice(clients, size=int(np.ceil(fraction * clients)), replace=False)


def fraction_of_coins(clients, fraction, rng):
    return np.flatnonzero(rng.random(clients) < fraction)


def counted_from_one(clients, fraction, rng):
    return sample_clients(clients, fraction, rng) + 1


def its_own_generator(clients, fraction, rng):
    return sample_clients(clients, fraction, np.random.default_rng())


def its_own_seed(clients, fraction, rng):
    return sample_clients(clients, fraction, np.random.default_rng(0))


def one_too_few(clients, fraction, rng):
    return rng.choice(clients - 1, size=min(clients - 1, max(round(fraction * clients), 1)), replace=False)


def how_many(clients, fraction, rng):
    return max(round(fraction * clients), 1)


def test_sampling(fn, rng):
    seen = set()
    for clients, fraction in [(10, 0.8)] * 20 + [(7, 1.0), (50, 0.5), (100, 0.003), (30, 0.09), (30, 0.11), (40, 0.44)]:
        again, tried = clone(rng), f"{clients} clients, C = {fraction}"
        got = np.atleast_1d(np.asarray(fn(clients, fraction, rng)))
        expect(len(got), max(round(fraction * clients), 1), f"{tried}: how many are asked")
        expect(len(set(got.tolist())), len(got), f"{tried}: how many different clients are asked")
        expect(bool((got >= 0).all() and (got < clients).all()), True, f"{tried}: all of them exist")
        if len(got) < clients:
            expect(same(again, rng), False, f"{tried}: whether your function left `rng` as it was (draw with that generator)")
            repeat = np.atleast_1d(np.asarray(fn(clients, fraction, again)))
            expect(repeat.tolist(), got.tolist(), f"{tried}: asked again with the same generator")
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


def dealt_in_order(labels, clients, per_client, rng):
    by_label = np.argsort(labels, kind="stable")
    pieces = np.array_split(by_label, clients * per_client)
    return [np.concatenate(pieces[k::clients]) for k in range(clients)]


def labels_not_rows(labels, clients, per_client, rng):
    pieces = np.array_split(np.sort(labels), clients * per_client)
    deal = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [np.concatenate([pieces[i] for i in mine]) for mine in deal]


def one_shard_each(labels, clients, per_client, rng):
    pieces = np.array_split(np.argsort(labels, kind="stable"), clients)
    return [pieces[i] for i in rng.permutation(clients)]


def lists_of_shards(labels, clients, per_client, rng):
    pieces = np.array_split(np.argsort(labels, kind="stable"), clients * per_client)
    deal = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [[pieces[i] for i in mine] for mine in deal]


def test_shards(fn, rng):
    for clients, per_client in ((10, 2), (20, 2), (10, 1)):
        labels = rng.permutation(np.repeat(np.arange(10), 20))
        parts = fn(labels.copy(), clients, per_client, rng)
        tried = f"200 examples of 10 labels, {clients} clients with {per_client} shard(s) each"
        expect(len(parts), clients, f"{tried}: how many parts")
        expect({np.ndim(part) for part in parts}, {1}, f"{tried}: each part is one row of numbers; its dimensions")
        parts = [np.asarray(part) for part in parts]
        expect(sorted(np.concatenate(parts).tolist()), list(range(200)), f"{tried}: every example exactly once")
        most = max(len(set(labels[part].tolist())) for part in parts)
        expect(most <= per_client, True, f"{tried}: {most} labels at one client; nobody has more labels than shards")
        if per_client == 2:
            kinds = [len(set(labels[part].tolist())) for part in parts]
            expect(max(kinds), 2, f"{tried}: shards dealt at random, so that most clients see two labels; the most seen")
            deals = {tuple(np.sort(fn(labels.copy(), clients, per_client, rng)[0]).tolist()) for _ in range(5)}
            expect(len(deals) > 1, True, f"{tried}: dealt five times, whether client 0 ever got other shards")


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


def strictly_above(accuracies, target):
    return next((r for r, accuracy in enumerate(accuracies, start=1) if accuracy > target), None)


def the_best_round(accuracies, target):
    return int(np.argmax(accuracies)) + 1 if max(accuracies) >= target else None


def the_accuracy(accuracies, target):
    return next((accuracy for accuracy in accuracies if accuracy >= target), None)


def the_last_time(accuracies, target):
    reached = [r for r, accuracy in enumerate(accuracies, start=1) if accuracy >= target]
    return reached[-1] if reached else None


def how_often(accuracies, target):
    return sum(accuracy >= target for accuracy in accuracies) or None


def none_after_the_first(accuracies, target):
    return 1 if accuracies[0] >= target else None


def test_rounds(fn, rng):
    rising = [*np.sort(np.round(rng.uniform(0.1, 0.8, size=4), 2)).tolist(), 0.86, 0.9, 0.88]
    cases = [(rising, 0.85)]
    for target in [0.85, 0.9, 0.97] * 2:
        accuracies = np.round(rng.uniform(0.1, 0.8, size=12), 2)
        accuracies[[3, 5, 6, 8, 9, 10]] = 0.86, 0.9, 0.88, 0.87, 0.86, 0.2       # first, best, last; and it falls again
        cases.append((accuracies.tolist(), target))
    for accuracies, target in cases:
        tried, want = f"{accuracies}, target {target}", rounds_to_target(accuracies, target)
        got = fn(list(accuracies), target)
        if want is not None and got is None:
            raise Wrong(f"tried {tried}: expected round {want}, got None, as if the target were never reached")
        expect(got, want, tried)


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


def pooled_step(w, clients, lr):
    x, y = np.concatenate([x for x, _ in clients]), np.concatenate([y for _, y in clients])
    return w - lr * x.T @ (x @ w - y) / len(y)


def summed_not_mean(w, clients, lr):
    return w - lr * sum(x.T @ (x @ w - y) for x, y in clients)


def up_the_hill(w, clients, lr):
    return 2 * w - fedsgd_round(w, clients, lr)


def twice_the_gradient(w, clients, lr):
    return fedsgd_round(w, clients, 2 * lr)


def one_after_the_other(w, clients, lr):
    for x, y in clients:
        w = w - lr * x.T @ (x @ w - y) / len(y)
    return w


def weights_not_shares(w, clients, lr):
    return w - lr * sum(len(y) * (x.T @ (x @ w - y) / len(y)) for x, y in clients) / len(clients)


class Guarded(np.ndarray):
    """One client's data. It lets nobody join it with another client's, which is what a federation forbids."""

    def __array_function__(self, func, types, args, kwargs):
        if func in (np.concatenate, np.vstack, np.hstack, np.append, np.stack):
            raise Wrong("the data of several clients were put into one array; in a federation they stay where they are: let each "
                        "client compute its gradient, and combine the gradients")
        return super().__array_function__(func, types, args, kwargs)


def test_fedsgd(fn, rng):
    for _ in range(5):
        w, lr = rng.normal(size=3), float(rng.uniform(0.05, 0.5))
        sizes = rng.permutation([1, 3, 6, 10])[:3]
        clients = [(rng.normal(size=(n, 3)), rng.normal(size=n)) for n in sizes]
        x, y = np.concatenate([x for x, _ in clients]), np.concatenate([y for _, y in clients])
        pooled = w - lr * x.T @ (x @ w - y) / len(y)            # one step as if all examples lay in one place
        guarded = [(x.view(Guarded), y.view(Guarded)) for x, y in clients]
        got = np.asarray(fn(w.copy(), guarded, lr))
        expect(got, pooled, f"clients with {sizes.tolist()} examples against one pooled gradient step")


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


def counts_forgotten(w, deltas, counts):
    for cohort in deltas:
        w = w + np.mean(cohort, axis=0)
    return w


def after_one_round(w, deltas, counts):
    return w + np.average(deltas[0], axis=0, weights=counts)


def halfway(w, deltas, counts):
    for cohort in deltas:
        w = (w + np.average(cohort, axis=0, weights=counts)) / 2
    return w


def added_not_averaged(w, deltas, counts):
    for cohort in deltas:
        w = w + np.sum(cohort, axis=0)
    return w


def all_models(w, deltas, counts):
    return np.stack([w + np.average(deltas[: r + 1].sum(axis=0), axis=0, weights=counts) for r in range(len(deltas))])


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
            Mistake(not_added_up, "These are the weighted rows. Add them up: one vector (d,) comes out."),
            Mistake(no_weights, "That is the plain sum of the changes. Weigh each by its share of the examples first."),
            Mistake(softmax_of_counts, "A softmax gives nearly all weight to one client. Divide the counts by their sum."),
            Mistake(averaged_over_numbers, "You average over the numbers of each client. Average over the clients: axis 0."),
            Mistake(backwards, "The sign is turned: deltas are added to the model, so keep theirs."),
            Mistake(rarest_counts_most, "Here the client with the fewest examples counts most. Weights grow with the counts."),
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
            Mistake(softmax_over_the_batch, "Your softmax runs over the examples. Each *row* must add up to 1: axis 1."),
            Mistake(no_softmax, "The scores are used as probabilities. Softmax them first."),
            Mistake(not_normalised, "The exponentials of a row do not add up to 1 yet: divide by their sum."),
            Mistake(divided_by_classes, "You divide by the number of classes; the mean is over the examples."),
            Mistake(rate_forgotten, "The learning rate is not used."),
            Mistake(one_for_all_labels, "`p[:, y]` takes columns in *every* row. One entry a row: `p[np.arange(n), y]`."),
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
            Mistake(rounded_down, "`int` cuts off: 2.7 clients are 3. Round."),
            Mistake(rounded_up, "You round up: 3.3 clients are 3. Use `round`."),
            Mistake(fraction_of_coins, "Coins give another number of clients each time. Exactly m are asked."),
            Mistake(counted_from_one, "Clients are counted from 0: 0 … K - 1."),
            Mistake(one_too_few, "The last client can never be asked: choose among all K."),
            Mistake(how_many, "That is how many. Return *who*: their numbers."),
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
            Mistake(dealt_in_order, "The pieces are dealt in the same order every time. Shuffle their numbers first."),
            Mistake(labels_not_rows, "These are labels. Return the *row numbers*: sort those by label, `np.argsort(labels)`."),
            Mistake(one_shard_each, "One piece a client, and larger ones. Cut clients·per_client pieces."),
            Mistake(lists_of_shards, "Each client gets a list of pieces. Join them into one array: `np.concatenate`."),
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
            Mistake(strictly_above, "*At least* the target: a round that hits it exactly counts."),
            Mistake(the_best_round, "That is the best round. The *first* that reaches the target is asked for."),
            Mistake(the_accuracy, "That is the accuracy. Return the number of the round."),
            Mistake(the_last_time, "That is the last round that reaches it. Return the first."),
            Mistake(how_often, "You count how many rounds reach it. Return the number of the first."),
            Mistake(none_after_the_first, "`return None` stands inside the loop, so only the first round is looked at."),
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
            Mistake(summed_not_mean, "A client's loss is the *mean* over its examples: divide its gradient by len(y)."),
            Mistake(up_the_hill, "You go uphill: subtract the gradient."),
            Mistake(twice_the_gradient, "A factor 2 too much: the loss is (x·w - y)² *over 2*, so its gradient is x (x·w - y)."),
            Mistake(one_after_the_other, "Your clients walk one after the other. All start from the same w: average, step once."),
            Mistake(weights_not_shares, "Divide by the number of *examples*, not of clients: the weights n_k/n add up to 1."),
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
            Mistake(overwritten, "The model is overwritten with a delta, which is the change of a model and not a model."),
            Mistake(subtracted, "delta is local minus broadcast: adding it moves towards the clients, subtracting away."),
            Mistake(first_model_again, "Every round starts from the model of the round before, not from the first one."),
            Mistake(counts_forgotten, "The average must be weighted by the clients' examples, as in the code that was found."),
            Mistake(after_one_round, "You return inside the loop: only the first round is run."),
            Mistake(halfway, "The mean of a model and a *change* is neither. Add the change."),
            Mistake(added_not_averaged, "You add the clients' changes up. Average them, weighted by examples."),
            Mistake(all_models, "Those are the models after every round. Return the last."),
        ),
    ),
)
