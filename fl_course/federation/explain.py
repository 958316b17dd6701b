"""Why a run went as it did: alarms, each a plain function of the records, and what they say in sentences.

    def alarm(run: Run) -> Iterator[Finding]          nothing, if there is nothing to say

An alarm reads what every record holds and knows no secret. It says what it saw, with the numbers, what that mostly comes from,
and in which chapter that is. A finding is a hint where to look, not a proof: the thresholds stand in the signatures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import ClientId, Record, Span, stream
from .state import by_name


@dataclass(frozen=True)
class Finding:
    what: str  # the name of the alarm
    text: str  # what was seen, in a sentence with its numbers, and what to try
    chapter: str  # the lesson that explains it: "02"

    def __str__(self) -> str:
        return f"{self.text} (lesson {self.chapter})"


@dataclass(frozen=True)
class Run:
    """What an alarm may look at. clients: everybody who could have been asked; tests: how many examples each client tests on;
    () if that is not known."""

    records: Sequence[Record]
    stopped: str = ""
    clients: Sequence[ClientId] = ()
    tests: Sequence[int] = ()

    @classmethod
    def of(cls, experiment: Any, records: Sequence[Record], stopped: str = "") -> Run:
        """With what the experiment tells; None tells nothing."""
        if experiment is None:
            return cls(records, stopped)
        return cls(records, stopped, experiment.clients, [len(rows) for rows in experiment.data.test])

    @property
    def spans(self) -> list[Span]:
        """Every job that has ended."""
        return [span for record in self.records for span in record.spans]

    def series(self, metric: str) -> list[tuple[int, float]]:
        """(version, value) wherever it was measured."""
        return [(r.version, r.metrics[metric]) for r in self.records if metric in r.metrics]

    def late(self, metric: str) -> float:
        """The mean over the last third of where it was measured; NaN if nowhere."""
        values = [value for _, value in self.series(metric)]
        tail = values[-max(1, len(values) // 3) :]
        return sum(tail) / len(tail) if tail else math.nan


def nobody_heard(run: Run) -> Iterator[Finding]:
    empty = sum(not record.clients for record in run.records)
    if run.records and empty == len(run.records):
        yield Finding(
            "nobody heard",
            f"In {empty} rounds no update was used, so the model is the one that the run began with; "
            "the events say why.", "01")
    elif empty > len(run.records) / 4:
        yield Finding(
            "nobody heard",
            f"In {empty} of {len(run.records)} rounds no update was used: too few are there, or too "
            "many are lost; ask more clients, or raise the deadline.", "06")


HEARD = ("used", "left out")        # what came in time, was read, and was handed to the rule
FATES = {
    "dropped out": ("dropped out before they answered", "ask more than you need: over_selection", "06"),
    "failed": ("failed while they trained", "the first event says how; strict=True raises there", "01"),
    "refused": ("were refused as no honest answers", "the events say what was wrong with them", "09"),
    "too late": (
        "came too late and were not used",
        "raise the deadline, or keep them: SemiSynchronous or Buffered", "07"),
    "too stale": ("were too old when they came", "raise max_staleness, or lower the concurrency", "07"),
}


def answers_lost(run: Run, share: float = 0.2) -> Iterator[Finding]:
    """Jobs that came to nothing, by what became of them, if it is more than this share; and whose they mostly were."""
    spans = run.spans
    for fate, (what, advice, chapter) in FATES.items():
        lost = [span.client for span in spans if span.fate == fate]
        if lost and len(lost) > share * len(spans):
            who = whose(lost, [span.client for span in spans])
            yield Finding("answers lost", f"{len(lost)} of {len(spans)} jobs {what}{who}; {advice}.", chapter)


def always_lost(run: Run, least: int = 3) -> Iterator[Finding]:
    """Clients that were asked this often, and whose answers never came to the rule."""
    spans = run.spans
    asked, heard = Counter(s.client for s in spans), Counter(s.client for s in spans if s.fate in HEARD)
    never = [client for client, times in asked.items() if times >= least and not heard[client]]
    if never:
        fates = Counter(span.fate for span in spans if span.client in set(never))
        yield Finding(
            "never heard",
            f"{names(never)} {'was' if len(never) == 1 else 'were'} asked {least} times or more and never "
            f"heard ({fates.most_common(1)[0][0]}): what they know is not in the model.", "06")


def diverged(run: Run, factor: float = 1.5) -> Iterator[Finding]:
    if "finite" in run.stopped:                                 # or infinite
        yield Finding(
            "diverged",
            f"The run ended because {run.stopped}: the steps are too long; lower the learning rate, of the "
            "clients or of the server.", "01")
        return
    losses = run.series("loss")
    if len(losses) >= 4:
        why = "see to the long updates first." if any(much_longer(run)) else (
            "the steps are too long for these clients; lower the learning rate or the number of local steps.")
        (best_at, best), (_, last) = min(losses, key=lambda pair: pair[1]), losses[-1]
        if not last <= factor * best:
            yield Finding(
                "diverged",
                f"The loss was {best:.3g} in round {best_at} and is {last:.3g} at the end: {why}", "02")


def stands_still(run: Run, share: float = 0.05) -> Iterator[Finding]:
    """The loss fell by less than this share of what it was, from the first measured round to the last."""
    losses = run.series("loss")
    heard = any(record.clients for record in run.records)                       # else another alarm says why it stands still
    if heard and len(losses) >= 4 and 0 <= losses[0][1] - losses[-1][1] < share * losses[0][1]:
        yield Finding(
            "stands still",
            f"The loss went from {losses[0][1]:.3g} to {losses[-1][1]:.3g} in {len(losses)} rounds: the "
            "steps are short, or few; raise the learning rate or the local epochs.", "01")


def pulled_apart(run: Run, gap: float = 3.0, drift: float = 0.7) -> Iterator[Finding]:
    """The clients end their training far better than the model that is made of them."""
    mine, everybodys, apart = run.late("train_loss_last"), run.late("loss"), run.late("drift")
    if mine < everybodys / gap and apart > drift:
        yield Finding(
            "pulled apart",
            f"Clients end their training at a loss of {mine:.2g}, the model made of them has {everybodys:.2g}, "
            f"and {apart:.0%} of what they do cancels out: each walks to its own optimum; fewer local steps, FedProx or "
            "SCAFFOLD.", "02")


def much_longer(run: Run, times: float = 5.0) -> Iterator[Finding]:
    """Norms: the longest update of a round, against half of them, in more than half of the rounds; and whose it was. What a
    rule left out pulls nothing."""
    rounds = [r for r in run.records if "update_norm_max" in r.metrics]
    long, whom = [], Counter[ClientId]()
    for r in rounds:
        half, most, place = (r.metrics.get(name, math.nan) for name in ("update_norm", "update_norm_max", "update_norm_at"))
        who = (r.clients[int(place)],) if 0 <= place < len(r.clients) else ()                 # older records do not tell
        if most > times * half > 0 and not any(span.fate == "left out" and span.client in who for span in r.spans):
            long.append((half, most))
            whom.update(who)
    if len(long) > len(rounds) / 2:
        half, most = long[-1]
        often = [client for client, count in whom.most_common() if count > len(long) / 10]
        of_whom = f" (mostly that of {names(often)})" if often else ""
        yield Finding(
            "much longer",
            f"In {len(long)} of {len(rounds)} rounds the longest update{of_whom} is more than {times:g} times as long as half of "
            f"them, at the end {most / half:.1f} times ({most:.3g} and {half:.3g}), and pulls a mean as far: a client that is "
            "broken, that lies, or that trains on much more; clip, or use a rule that is robust.", "09")


def clip_bound(run: Run, most: float = 0.95, times: float = 2.0) -> Iterator[Finding]:
    """Norms against the bound of a private run: all are cut and the loss hardly falls, or none comes near it."""
    losses = [loss for _, loss in run.series("loss")]
    share, bound, longest = run.late("clipped"), run.late("clip"), run.late("update_norm_max")
    if share > most and losses and losses[-1] > 0.8 * losses[0]:
        yield Finding(
            "clip too small",
            f"{share:.0%} of the updates are cut to the clip bound {bound:.3g} and the loss went from {losses[0]:.3g} to "
            f"{losses[-1]:.3g}: clients move as far as they may, not as far as they would; raise the bound, or let it "
            "follow the norms: Adaptive().", "03")
    elif bound > times * longest and run.late("noise_std") > 0:
        yield Finding(
            "clip too large",
            f"The longest update of a round is {longest:.3g} long, the clip bound is {bound:.3g}, and the noise is as large as "
            "the bound asks: lower it, or let it follow the norms: Adaptive().", "03")


def served_unevenly(run: Run, gap: float = 0.2) -> Iterator[Finding]:
    """The worst tenth against the mean, if that is more than few test examples would make of clients served alike."""
    mean, worst = run.late("client_accuracy"), run.late("client_accuracy_worst10")
    tests = np.array([n for n in run.tests if n])
    if not len(tests) or not mean - worst > gap:
        return
    alike = np.sort(stream(0, "chance").binomial(tests, min(mean, 1.0), (400, len(tests))) / tests, axis=1)
    chance = mean - float(np.quantile(alike[:, : max(1, len(tests) // 10)].mean(axis=1), 0.02))
    if mean - worst > chance:
        yield Finding(
            "served unevenly",
            f"The mean client is served at {mean:.2f}, the worst tenth at {worst:.2f}, of which {chance:.2f} may be chance: one "
            "model does not fit all; personal layers, fine-tuning, or a look at who takes part.", "08")


def starved(run: Run, times: float = 3.0) -> Iterator[Finding]:
    """Participation that is more uneven than chance: the variance over the clients, against that of fair dice."""
    heard = Counter(client for record in run.records for client in record.clients)
    if len(run.clients) < 2 or not heard:
        return
    counts, rounds = [heard[client] for client in run.clients], len(run.records)
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / (len(counts) - 1)
    chance = mean * max(1 - mean / rounds, 1 / rounds)
    never, rare = sum(not count for count in counts), sorted(counts)[(len(counts) - 1) // 2]
    some = f"{never} of {len(counts)} clients were never heard" if never else (
        f"Half of the {len(counts)} clients were heard {rare} time{'s' * (rare != 1)} or less")
    if variance > times * chance:
        yield Finding(
            "starved",
            f"{some} and the busiest {max(counts)} times; with fair dice the counts would vary {variance / chance:.0f} times "
            "less: the choice, or the speed, decides who is in the model.", "06")


def waits_for_the_slowest(run: Run, times: float = 3.0) -> Iterator[Finding]:
    """Rounds that last this many times as long as half of their answers took."""
    ratios = []
    for record in run.records:
        took = sorted(span.ended - span.begun for span in record.spans if span.fate in HEARD)
        if len(took) >= 3 and took[len(took) // 2] > 0 and not any(record.staleness):
            ratios.append(took[-1] / took[len(took) // 2])
    if ratios and sum(ratios) / len(ratios) > times:
        yield Finding(
            "waits for the slowest",
            f"A round lasts {sum(ratios) / len(ratios):.1f} times as long as half of its answers "
            "take: ask more than you need and take the first, set a deadline, or let no round wait.", "07")


def old_answers(run: Run, steps: float = 4.0) -> Iterator[Finding]:
    ages = [age for record in run.records for age in record.staleness]
    if ages and sum(ages) / len(ages) > steps:
        yield Finding(
            "old answers",
            f"An answer is {sum(ages) / len(ages):.1f} steps old on average when it is used, the oldest "
            f"{max(ages)}: lower the concurrency, fill a larger buffer, or discount the old.", "07")


def privacy(run: Run, much: float = 10.0) -> Iterator[Finding]:
    spent = run.series("epsilon")
    if run.series("not_private"):
        yield Finding("not private", "There is no noise, or noise whose seed is known: that protects nobody.", "03")
    elif spent and spent[-1][1] > much:
        yield Finding(
            "weak privacy",
            f"ε is {spent[-1][1]:.3g} after {spent[-1][0]} rounds, which promises little: more noise, fewer "
            "rounds, or more clients to share it.", "03")


def budget(run: Run) -> Iterator[Finding]:
    spent, left = run.series("epsilon"), run.series("rounds_left")
    if left and left[-1][1] <= 2 and not run.stopped:
        yield Finding(
            "budget nearly spent",
            f"ε is {spent[-1][1]:.3g} after {left[-1][0]} rounds, and the budget pays for {left[-1][1]:g} more.", "03")
    if run.stopped and "budget" in run.stopped:
        yield Finding("budget spent", f"The run ended early: {run.stopped}.", "03")


def saturated(run: Run) -> Iterator[Finding]:
    if any(value > 0 for _, value in run.series("saturated")):
        yield Finding(
            "saturated",
            f"Numbers were cut off at the edge of the secure sum's grid ({run.late('saturated'):.3g} a round at "
            "the end): raise its clip, or clip the updates first.", "04")


def under_attack(run: Run) -> Iterator[Finding]:
    out = Counter(span.client for span in run.spans if span.fate == "left out")
    often = sorted((client for client, count in out.items() if count > len(run.records) / 2), key=by_name)
    if often:
        yield Finding(
            "left out",
            f"The rule left out {names(often)} in more than half of the rounds: liars, or clients whose data differ "
            "from the others'.", "09")
    recall = run.late("detection_recall")
    if recall < 0.5:
        yield Finding("not found out", f"The rule finds {recall:.0%} of the clients that attack.", "09")
    if run.late("backdoor_success") > 0.5:
        yield Finding(
            "backdoor",
            f"Stamped examples are taken for the attacker's class in {run.late('backdoor_success'):.0%} of cases.", "09")


# A cause before what it brings about: one long update, a bound or old answers before the loss that rises or stands still.
ALARMS: tuple[Callable[[Run], Iterator[Finding]], ...] = (
    nobody_heard, budget, much_longer, clip_bound, old_answers, diverged, saturated, stands_still, answers_lost,
    always_lost, pulled_apart, served_unevenly, starved, waits_for_the_slowest, privacy, under_attack,
)  # fmt: skip


def explain(run: Run) -> list[Finding]:
    """What all alarms have to say, the gravest first."""
    return [finding for alarm in ALARMS for finding in alarm(run)]


def names(clients: Sequence[object], most: int = 4) -> str:
    shown = [repr(client) for client in list(clients)[:most]]
    more = f" and {len(clients) - most} others" if len(clients) > most else ""
    return f"client{'s' if len(clients) > 1 else ''} {', '.join(shown)}{more}"


def whose(lost: Sequence[ClientId], asked: Sequence[ClientId]) -> str:
    """ ", most of them of clients 3, 7": if few clients make up more than half of what was lost."""
    few = Counter(lost).most_common(max(1, len(set(asked)) // 5))
    if sum(count for _, count in few) > len(lost) / 2 and len(set(asked)) > len(few):
        return f", most of them of {names([client for client, _ in few])}"
    return ""
