"""What goes with what: every pair of parts of the library, put into one small experiment.

    python tools/compositions.py            prints the page docs/compositions.md
    python tools/compositions.py --write    writes it

A part is a change of an experiment that is plain otherwise: four of six clients a round, FedAvg. A pair is refused as it is
built, with a sentence, or it runs; whether those that run keep their promises, tests/test_pairs.py sees.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import fl_course as fl
from fl_course.privacy.accounting import RDP

PAGE = Path(__file__).resolve().parent.parent / "docs" / "compositions.md"
NET = fl.mlp(5, 6, 3)
DATA = fl.synthetic(0.5, 0.5, clients=6, dim=5, classes=3, least=9, log_mean=0, log_std=0)        # eight examples each
HOW = fl.LocalSGD(lr=0.1, epochs=1, batch_size=4)
OF_TRAINING = ("correction", "private", "personal", "epochs", "momentum")                         # fields of LocalSGD
PRICED = {"accountant": RDP(), "noise_seed": 3}                                                   # the quickest
LIARS, THERE = (1, 4), {client: [(0.0, 9e9)] for client in DATA.ids[1:]} | {0: [(0.5, 9e9)]}

# By kind, and by name: the fields that it changes. A stage may be a function of the model whose changes travel.
KINDS: dict[str, dict[str, Mapping[str, Any]]] = {
    "stages": {name: {"stages": (stage,)} for name, stage in {
        "Clip": fl.Clip(0.1),
        "CentralDP": fl.CentralDP(0.05, 0.5, **PRICED),
        "CentralDP(adaptive)": fl.CentralDP(0.05, 0.5, adaptive=fl.Adaptive(count_noise=1.0), **PRICED),
        "TreeDP": fl.TreeDP(0.05, 0.5, participations=9, **PRICED),
        "LocalDP": fl.LocalDP(0.05, 0.5, **PRICED),
        "SecureSum": fl.SecureSum(0.5, max_weight=8),
        "SecureSum(toward zero)": fl.SecureSum(0.5, rounding="toward zero", masked=False, max_weight=8),
        "SecureSum(noise)": fl.SecureSum(0.5, masked=False, noise=fl.DistributedNoise(0.1, 0.5, noise_seed=1)),
        "TopK": fl.TopK(0.2), "TopK(no feedback)": fl.TopK(0.2, feedback=False),
        "RandomK": fl.RandomK(0.3), "RandomK(feedback)": fl.RandomK(0.3, feedback=True),
        "Threshold": fl.Threshold(0.01), "QSGD": fl.QSGD(4), "Ternary": fl.Ternary(),
        "SignSGD": fl.SignSGD(), "SignSGD(no feedback)": fl.SignSGD(feedback=False), "Rotate": fl.Rotate(),
        "PowerSGD": lambda model: fl.PowerSGD(model, 1), "PowerSGD(no feedback)": lambda model: fl.PowerSGD(model, 1, False),
        "FederatedDropout": fl.FederatedDropout(NET), "Downlink": fl.Downlink(), "FedNova": fl.FedNova(),
    }.items()},
    "training": {
        "FedProx": {"correction": fl.FedProx(0.1)}, "Scaffold": {"correction": fl.Scaffold()},
        "FedDyn": {"correction": fl.FedDyn(0.5)}, "DPSGD": {"private": fl.DPSGD(0.5, 0.5, **PRICED)},
        "Stragglers": {"epochs": fl.Stragglers(0.5, 3)}, "momentum": {"momentum": 0.5},
    },
    "personal": {
        "FedPer": {"personal": fl.FedPer(), "model": fl.Split(NET, "dense1")},
        "FedPer(LoRA)": {"personal": fl.FedPer(), "model": fl.Split(fl.LoRA(NET, "dense0", 1), "dense0.lora_a")},
        "FedRep": {"personal": fl.FedRep(2), "model": fl.Split(NET, "dense1")},
        "LGFedAvg": {"personal": fl.LGFedAvg(), "model": fl.Split(NET, "dense0")},
        "FineTune": {"personal": fl.FineTune()}, "Ditto": {"personal": fl.Ditto(0.5)},
        "PFedMe": {"personal": fl.PFedMe(2.0, steps=2)}, "APFL": {"personal": fl.APFL()},
        "PerFedAvg": {"personal": fl.PerFedAvg(0.1)},
        "IFCA": {"personal": fl.IFCA(), "model": fl.Clusters(NET, 2)},
    },
    "weights": {"ByExamples": {"weights": fl.ByExamples()}, "ByExamples(cap)": {"weights": fl.ByExamples(cap=5)}},
    "selection": {name: {"selection": selection} for name, selection in {
        "PoissonSelection": fl.PoissonSelection(), "RoundRobin": fl.RoundRobin(), "SizeWeighted": fl.SizeWeighted(),
        "PowerOfChoice": fl.PowerOfChoice(5), "PowerOfChoice(rpow-d)": fl.PowerOfChoice(5, "rpow-d"), "Oort": fl.Oort(),
        "TiFL": fl.TiFL(2, every=2), "DivFL": fl.DivFL(), "LabelDiversity": fl.LabelDiversity(),
        "QualityScore": fl.QualityScore(),
    }.items()},
    "schedule": {
        "over-selection": {"schedule": fl.Synchronous(0.5, over_selection=0.5)},
        "deadline": {"schedule": fl.Synchronous(0.7, deadline=2.0)},
        "SemiSynchronous": {"schedule": fl.SemiSynchronous(0.7, deadline=0.9)}, "Buffered": {"schedule": fl.Buffered(5, 3)},
        "fedbuff": fl.fedbuff(5, 3), "fedasync": fl.fedasync(4),
    },
    "aggregation": {name: {"aggregation": rule} for name, rule in {
        "WeightedMean(discount)": fl.WeightedMean(fl.Discount()), "Mixing": fl.Mixing(0.6),
        "CoordinateMedian": fl.CoordinateMedian(), "TrimmedMean": fl.TrimmedMean(0), "Krum": fl.Krum(0),
        "MultiKrum": fl.MultiKrum(0), "Bulyan": fl.Bulyan(0), "GeometricMedian": fl.GeometricMedian(),
        "CentredClipping": fl.CentredClipping(0.5), "NormBound": fl.NormBound(0.5), "OutlierRemoval": fl.OutlierRemoval(),
        "FLTrust": fl.FLTrust(fl.Dataset("root", DATA.x_test, DATA.y_test, 3)), "Bucketing": fl.Bucketing(fl.CoordinateMedian()),
        "NearestNeighbourMixing": fl.NearestNeighbourMixing(fl.GeometricMedian()),
    }.items()},
    "optimizer": {name: {"optimizer": optimizer} for name, optimizer in {
        "FedAvgM": fl.FedAvgM(0.5), "FedAdagrad": fl.FedAdagrad(0.01), "FedAdam": fl.FedAdam(0.01), "FedYogi": fl.FedYogi(0.01),
    }.items()},
    "fleet": {name: {"fleet": fleet} for name, fleet in {
        "Equal(drop)": fl.Equal(drop=0.3), "LogNormal": fl.LogNormal(jitter=0.5, drop=0.1),
        "Known": fl.Known({client: 0.5 + client / 2 for client in DATA.ids}, spread=0.1),
        "Devices(DayNight)": fl.Devices(fl.LogNormal(), fl.DayNight(0.5, 0.9), failure=0.1),
        "Devices(Trace)": fl.Devices(fl.LogNormal(), fl.Trace(THERE)),
    }.items()},
    "attack": {name: {"attack": attack} for name, attack in {
        "LabelFlip": fl.LabelFlip(LIARS), "SignFlip": fl.SignFlip(LIARS), "Scaling": fl.Scaling(LIARS),
        "GaussianNoise": fl.GaussianNoise(LIARS, 0.1), "ALIE": fl.ALIE(LIARS), "IPM": fl.IPM(LIARS), "Mimic": fl.Mimic(LIARS),
        "Backdoor": fl.Backdoor(LIARS, trigger=fl.Trigger((0, 1))),
    }.items()},
    "evaluation": {"Evaluation(federated)": {"evaluation": fl.Evaluation(federated=True)}},
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    kind: str
    name: str

    @property
    def changes(self) -> Mapping[str, Any]:
        return KINDS[self.kind][self.name]

    def __str__(self) -> str:
        return self.name


PARTS = [Part(kind, name) for kind, names in KINDS.items() for name in names]


def pairs() -> Iterator[tuple[Part, Part]]:
    """Every two parts that are not two of one thing; stages in both orders, also a stage and itself."""
    for a, b in combinations(PARTS, 2):
        if a.kind == b.kind == "stages":
            yield from ((a, b), (b, a))
        elif not a.changes.keys() & b.changes.keys():
            yield a, b
    yield from ((part, part) for part in PARTS if part.kind == "stages")


def build(*parts: Mapping[str, Any]) -> fl.Coordinator:
    """The experiment with these changes, of which those to stages add up, in their order. Raises what a constructor raises."""
    changes: dict[str, Any] = {"model": NET, "schedule": fl.Synchronous(0.7), "weights": fl.Uniform(), "training": HOW,
                               "evaluation": fl.Evaluation(every=5)}
    stages: list[Any] = []
    for part in parts:
        stages += part.get("stages", ())
        changes |= {name: value for name, value in part.items() if name != "stages"}
    inside = {name: changes.pop(name) for name in OF_TRAINING if name in changes}
    stages = [stage if isinstance(stage, fl.Stage) else stage(changes["model"]) for stage in stages]
    return fl.Coordinator(DATA, training=replace(changes.pop("training"), **inside), stages=stages, **changes)


@cache
def refusal(*parts: Part) -> str:
    """The sentence with which the experiment of these parts is refused, or ""."""
    try:
        build(*(part.changes for part in parts))
    except (ValueError, TypeError) as why:
        return str(why)
    return ""


# --- the page -----------------------------------------------------------------------------------------------------------


def page() -> str:
    every = list(pairs())
    refused = [pair for pair in every if refusal(*pair)]
    kinds = list(KINDS)
    lines = [
        "# What goes with what", "",
        f"Made by `tools/compositions.py` of {len(PARTS)} parts and all {len(every)} pairs of them, in an experiment that is",
        "plain otherwise: four of six clients a round, `Uniform()` weights, FedAvg.",
        f"{len(refused)} pairs are refused as the experiment is built, with a sentence that says why and what to do. The test",
        "`tests/test_pairs.py` runs all others for five rounds, and looks whether they keep what they promise.",
        "**What is not listed goes together.** Three and more parts keep the same rules: build the",
        "experiment, and it says what it refuses.", "",
        "## How many pairs run, of how many", "",
        "| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|",
    ]  # fmt: skip
    for i, row in enumerate(kinds):
        cells = []
        for column in kinds[: i + 1]:
            here = [pair for pair in every if {pair[0].kind, pair[1].kind} == {row, column}]
            cells.append(f"{sum(not refusal(*pair) for pair in here)} / {len(here)}" if here else "one of them")
        lines.append(f"| **{row}** | " + " | ".join(cells + [""] * (len(kinds) - i - 1)) + " |")
    lines += ["", "## What is refused", "", "What stands before in `stages=[…]`, works before on the client.", "",
              "| part | does not go with | nor, in this order |", "|---|---|---|"]  # fmt: skip
    for group in _alike(set(refused)):
        without, orders = _without(group[0], set(refused), group), _orders(group[0], set(refused), group)
        lines.append(f"| **{', '.join(map(str, group))}** | {without or '(goes with everything)'} | {orders} |")
    return "\n".join(lines) + "\n"


def _alike(refused: set[tuple[Part, Part]]) -> list[list[Part]]:
    """Parts of one kind that the same others, and one another alike, do not go with: they share a row."""
    groups: list[list[Part]] = []
    for part in PARTS:
        for group in groups:
            first = group[0]
            same = all(_orders_of(part, o, refused) == _orders_of(first, o, refused) for o in PARTS if o not in (first, part))
            alike = _orders_of(part, part, refused) == _orders_of(first, first, refused)
            if part.kind == first.kind and same and alike and len(set(_orders_of(part, first, refused))) == 1:
                group.append(part)
                break
        else:
            groups.append([part])
    return groups


def _orders_of(part: Part, other: Part, refused: set[tuple[Part, Part]]) -> tuple[bool, bool]:
    return (part, other) in refused, (other, part) in refused


def _without(part: Part, refused: set[tuple[Part, Part]], group: list[Part]) -> str:
    """Those with which it is refused in every order that there is."""
    words = []
    for kind, names in KINDS.items():
        others, whichever = [Part(kind, name) for name in names], all if part.kind == kind == "stages" else any
        found = [o for o in others if o != part and whichever(_orders_of(part, o, refused))]
        if set(group[1:]) & set(found):
            words.append("one another" + ("" if part.kind != "stages" or (part, part) not in refused else ", nor itself"))
        elif (part, part) in refused and kind == part.kind:
            words.append("itself")
        if found := [o for o in found if o not in group]:
            words.append(f"*{kind}:* " + ("all of them" if len(found) == len(others) > 2 else ", ".join(map(str, found))))
    return "; ".join(words)


def _orders(part: Part, refused: set[tuple[Part, Part]], group: list[Part]) -> str:
    """Stages that it must not stand before, or after."""
    others = [Part("stages", name) for name in KINDS["stages"] if part.kind == "stages" and Part("stages", name) not in group]
    before = [str(o) for o in others if (part, o) in refused and (o, part) not in refused]
    after = [str(o) for o in others if (o, part) in refused and (part, o) not in refused]
    return "; ".join(["before " + ", ".join(before)] * bool(before) + ["after " + ", ".join(after)] * bool(after))


def main(arguments: list[str]) -> int:
    if arguments == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    elif not arguments:
        print(page(), end="")
    else:
        print(__doc__, file=sys.stderr)
    return 0 if arguments in ([], ["--write"]) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
