"""The loop once more, slow and plain, from what the docstrings say: lists and fractions, no heap, nothing of coordinator.py.

From the library come the names of random streams and the encoding of messages; training is gradient descent of logistic
regression in NumPy. A configuration is a dictionary of plain values, see test_reference_loop.py.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from fl_course.core import Server, Update, stream
from fl_course.wire.messages import encode_model, encode_update


def seconds(value) -> Fraction:
    """The decimal that is printed."""
    return Fraction(str(value))


def descend(params, x, y, lr, epochs):
    """(d,) float64 after so many steps on all examples: mean cross-entropy of softmax(W x + b)."""
    W, b = params[:-3].reshape(3, -1).astype(float), params[-3:].astype(float)
    for _ in range(epochs):
        p = np.exp((z := x @ W.T + b) - z.max(axis=1, keepdims=True))
        p = (p / p.sum(axis=1, keepdims=True) - np.eye(3)[y]) / len(y)
        W, b = W - lr * p.T @ x, b - lr * p.sum(axis=0)
    return np.concatenate([W.ravel(), b])


def times(c, client, version, examples):
    """(download + training, whether the client vanishes) of one job; `upload` is below."""
    f, luck = c["fleet"], stream(c["seed"], "compute", version, client)
    if f["kind"] == "decimals":
        lasts = seconds(f["down"][client]) + seconds(f["compute"][client]) + seconds(int(luck.integers(0, 3)) / 10)
    else:
        speed = 100 * np.exp(f["spread"] * stream(0, "device", "speed", client).standard_normal())
        lasts = seconds(float(examples / speed * np.exp(f["jitter"] * luck.standard_normal())))
        lasts += seconds(transfer(f, client, model_bytes(c, version), 20.0))
    return lasts, bool(stream(c["seed"], "drop", version, client).random() < f["drop"])


def transfer(f, client, nbytes, mbit):
    return float(nbytes * 8e-6 / (mbit * np.exp(f["spread"] * stream(0, "device", "link", client).standard_normal())))


def upload(c, client, nbytes):
    f = c["fleet"]
    return seconds(f["up"][client]) if f["kind"] == "decimals" else seconds(transfer(f, client, nbytes, 5.0))


def model_bytes(c, version):
    return len(encode_model(Server(np.zeros(18, np.float32), version)))


def simulate(c, data, params, rounds):
    """One dictionary a step. data: {client: (x, y)} in the order of the federation."""
    able = [client for client, (_, y) in data.items() if len(y)]         # who can be asked
    synchronous, clock, started, residual, reports = "fraction" in c, Fraction(0), 0, {}, {}
    working, rows = [], []
    if synchronous:
        goal = min(len(able), max(round(c["fraction"] * len(able)), c["min_clients"]))
        asks = min(len(able), math.ceil(goal * (1 + seconds(c["over_selection"]))))
    for version in range(rounds):
        opened, cohort, arrived, asked_yet = clock, [], [], False
        row = {"down": 0, "update": 0, "late": 0, "gone": [], "too_late": [], "too_old": []}
        while True:
            # The server steps when it has what it waits for; asked after every answer, before anybody else is started.
            if asked_yet or arrived:
                enough = c["over_selection"] > 0 and len(arrived) >= goal if synchronous else len(arrived) >= c["buffer"]
                if enough or (synchronous and not working):
                    break
            # Clients that finish at this instant are heard before anybody new is started.
            if not any(job["next"] <= clock for job in working):
                wanted = (0 if asked_yet else asks) if synchronous else max(0, min(c["concurrency"], len(able)) - len(working))
                idle = [k for k in able if k not in cohort and all(job["client"] != k for job in working)]
                if wanted and idle:
                    chosen = choose(c, idle, wanted, version, len(cohort), reports)
                    cohort, asked_yet = cohort + chosen, True
                    for client in chosen:
                        row["down"] += model_bytes(c, version)
                        examples = len(data[client][1]) * c["epochs"]
                        lasts, vanishes = times(c, client, version, examples)
                        working.append({
                            "client": client, "version": version, "model": params, "begun": clock, "next": clock + lasts,
                            "vanishes": vanishes, "order": started, "leaves": None, "cohort": list(cohort),
                            "residual": residual.get(client, 0.0),
                        })  # fmt: skip
                        started += 1
                    for job in working[len(working) - len(chosen) :]:
                        job["cohort"] = list(cohort)
            if not working:
                break
            job = min(working, key=lambda job: (job["next"], job["order"]))
            if job["next"] - opened > c["deadline"]:
                clock = opened + c["deadline"]
                break
            clock = job["next"]
            if job["leaves"] is None and not job["vanishes"]:            # trained: the answer leaves
                answer(c, data, job)
                job["leaves"], job["next"] = clock, clock + upload(c, job["client"], job["nbytes"])
                continue
            working.remove(job)
            if job["vanishes"]:
                row["gone"].append(job["client"])
                continue
            row["update"] += job["nbytes"]
            if c["max_staleness"] is not None and version - job["version"] > c["max_staleness"]:
                row["too_old"].append(job["client"])
                continue
            arrived.append(job)
            residual[job["client"]] = job["kept"]
            reports[job["client"]] = {"seconds": float(clock - job["begun"]), "version": job["version"]}
        if synchronous:                                                  # who is late is told to stop
            for job in working:
                row["too_late"].append(job["client"])
                if job["leaves"] is not None:
                    share = (clock - job["leaves"]) / (job["next"] - job["leaves"]) if job["next"] > clock else 1
                    row["late"] += math.floor(job["nbytes"] * share)
            working = []
        arrived.sort(key=lambda job: (isinstance(job["client"], str), job["client"]))
        if arrived:
            discount = [(version - job["version"] + 1) ** -c["discount"] for job in arrived]
            total = sum(s * job["payload"] for s, job in zip(discount, arrived, strict=True))
            params = (params + c["server_lr"] * total / sum(job["weight"] for job in arrived)).astype(np.float32)
        rows.append(row | {
            "version": version + 1, "clock": float(clock), "clients": tuple(job["client"] for job in arrived), "params": params,
            "staleness": tuple(version - job["version"] for job in arrived), "upload": tuple(job["nbytes"] for job in arrived),
            "absorbed": (len(arrived), len(able)) if arrived else None, "cohort": cohort,
            "seen": {(job["version"], job["client"]): (tuple(job["cohort"]), job["version"]) for job in arrived},
        })  # fmt: skip
    return rows


def choose(c, idle, k, version, already, reports):
    rng = stream(c["seed"], "select", version, already)
    if c["selection"] == "uniform":
        return [idle[i] for i in rng.permutation(len(idle))[:k]]
    if c["selection"] == "poisson":
        return [client for client, coin in zip(idle, rng.random(len(idle)), strict=True) if coin < k / len(idle)]
    return quickest(idle, k, reports)


def quickest(idle, k, reports):
    """Those first who answered fastest, those who never answered before them."""
    return sorted(idle, key=lambda client: (reports.get(client, {}).get("seconds", -1.0), str(client)))[:k]


def answer(c, data, job):
    """Local training and the client halves: weight, then (if there is a residual) half of it, the rest for next time."""
    x, y = data[job["client"]]
    job["weight"] = float(len(y)) if c["by_examples"] else 1.0
    local = descend(job["model"], x, y, c["lr"] * c["lr_decay"] ** job["version"], c["epochs"])
    whole = (local - job["model"]) * job["weight"] + job["residual"]
    job["payload"], job["kept"] = (whole / 2, whole / 2) if c["residual"] else (whole, 0.0)
    said = {"examples": float(len(y)), "steps": 1.0, "loss_first": 1.0, "loss_last": 1.0}
    job["nbytes"] = len(encode_update(
        Update(job["client"], job["version"], np.zeros(18, np.float32), job["weight"], {}, said)
    ))  # fmt: skip
