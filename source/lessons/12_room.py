# %% [markdown]
# # 12 · The room is a federation
#
# In every chapter so far clients were rows of a data set, and they did what the program said. Now the clients are people: each
# opens a page on a phone or laptop, draws digits, and the page trains on them. The server is the one that you know. What does a
# room of people show that a simulation cannot?
#
# **You will be able to**
# - run a federation in which the people in the room are the clients, or fill the room with simulated pages and try it alone;
# - say what a real clock, a late page and a page that has gone do to a round, and choose how long to wait;
# - say what the server has seen of somebody who drew something, and what it could read off that.
#
# About 45 minutes, alone or with a class; there are no exercises. A teacher finds a script, minute by minute, near the end.
# You need chapter 1; a few lines look back to chapters 3, 5, 6 and 7. In the library: `fl_course/workbook/room/room.py` (the
# experiment and its rounds), `fl_course/workbook/room/seats.py` (who sits where), `fl_course/workbook/room/server.py` (the pages
# come and go), `fl_course/federation/elsewhere.py` (the loop on the real clock).

# %% tags=["parameters"]
pages: int = 12  # pages in the room, here all of them simulated; from 4 on
rounds: int = 8  # rounds of each run
seed: int = 0  # of the deal of digits, of the first model and of every client's dice

# %%
import contextlib
import queue
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fl_course import *
from fl_course.engine.training import Trainer
from fl_course.federation.evaluation import score
from fl_course.robustness.inversion import best_psnr, unit_inputs
from fl_course.wire.messages import decode_model, decode_update, encode_model, encode_update
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show
from fl_course.workbook.room.again import again
from fl_course.workbook.room.room import Room

# %% [markdown]
# ## What does a simulation not know?
#
# | | in a simulation | in the room |
# |---|---|---|
# | the clock | numbers that a fleet draws (chapter 6) | the one on the wall |
# | a late answer | is known to be late before it is sent | is waited for, and nobody knows how long |
# | a client that has gone | a coin that fell on tails | a phone that sleeps, a train that left |
# | the examples | a deal of one data set | what each has drawn |
# | who looks at what | a promise in the text | you see what your page sends, and the wall shows what arrived |
#
# | sign | what it is | in the library |
# |---|---|---|
# | $K$ | seats: how many can come | `Room(seats=…)` |
# | $m$ | answers that a step uses | `len(record.clients)` |
# | $n_k$ | digits of page $k$: its own drawings first, then some that it was dealt | `Room(share=…)` |
# | $D$ | deadline: seconds after which a round closes | `room.train(deadline=…)` |
# | $C$, $z$ | clip bound; noise in clip bounds | `room.train(clip=…, noise=…)` |
#
# ## Open a room
#
# `Room()` starts a small web server. With a class you would now put `room.projector_url` on the wall. We are alone, so
# `simulate` fills the seats: these pages come in by the same door, say a name, get a seat and a share of digits, and send the
# same messages; they only train in Python instead of JavaScript. The `with` closes the room at the end of the cell, and
# nothing is left behind.

# %%
with Room(seats=pages, simulate=pages, seed=seed) as room:
    first = room.train(rounds)
    experiment = room.experiment
    came = [seat.name for seat in room.seats.seats]
print("came:", ", ".join(came[:3]), "…", came[-1])
print(f"after {len(first)} rounds {first.last('accuracy'):.0%} of the held-out digits are read")

# %% [markdown]
# Is that the federation of chapter 1, or something that looks like it? `room.experiment` is a `Coordinator` like any other. We
# can run it here, in one process, without a server, pages or a network. Beside it what each page reaches by itself, and what one
# place with all digits would:

# %%
in_process = experiment.train(rounds)
gap = np.abs(first.state.server.params - in_process.state.server.params).max()

data, model, training = experiment.data, experiment.model, experiment.training
start = experiment.initial().server
longer = Trainer(replace(training, epochs=rounds * training.epochs), model, data)
test = data.x_test, data.y_test
alone = [score(model, start.params + u.delta, *test)[0]
         for u in longer.train([Task(client, start, seed) for client in data.ids])]
print(f"a page alone {np.mean(alone):.0%} (worst {min(alone):.0%}), the room "
      f"{first.last('accuracy'):.0%}; the same room in one process: models differ by {gap:.0e}")

everything = np.concatenate(data.train)
one_place = replace(data, ids=(0,), train=(everything,), test=(np.concatenate(data.test),))
pooled = replace(experiment, data=one_place, schedule=Synchronous(1.0)).train(rounds)
print(f"all {len(everything)} digits in one place: {pooled.last('accuracy'):.0%}")

# %% tags=["proof"]
# Proof, open me: the room and one process, the same model and the same bytes
assert gap < 1e-6
assert [r.bytes_up for r in first.records] == [r.bytes_up for r in in_process.records]
assert [r.clients for r in first.records] == [tuple(range(pages))] * rounds

# %%
figure, (ax,) = canvas(1, width=5.4)
first.plot(ax=ax, label="the room")
ax.axhline(np.mean(alone), linestyle=":", color="#767676", label="a page alone, mean")
ax.axhline(pooled.last("accuracy"), linestyle="--", color="#767676", label="in one place")
show(figure, "12.room")

# %% [markdown]
# Twenty digits are few: a page alone has hardly seen each digit twice. That is the reason to come into the room at all. And the room
# *is* the simulation, to the last digits, as long as everybody answers in time. So whatever is different from here on comes from
# people and clocks.
#
# **Try it.** Open a room yourself, in a new cell: `room = Room(simulate=5)`, and below it `room`. Open the address with a second
# tab of your browser, come in, draw, and run `room.train(5)`. At the end `room.close()`. Which client are you?
#
# Answer: number 5. Seats are given in the order in which pages come, from 0, and the five simulated pages came before you. Come
# back after a reload and you are still number 5: your page kept a token.
#
# ## A round with a real clock, by hand
#
# A server that simulates can ask a client when it will be done. A real one can only wait. How long? Here is a round with a
# deadline in a few lines. Answers come in from other threads when they come; the last page is too slow:

# %%
trainer = Trainer(training, model, data)


def machine(client, message):
    """A page: an encoded model in, an encoded update out."""
    (update,) = trainer.train([Task(client, decode_model(message), seed)])
    n = update.metrics["examples"]                               # FedAvg weighs by examples
    return encode_update(replace(update, delta=update.delta * np.float32(n), weight=n))


def round_by_hand(server, deadline, late):
    """A step with whoever has answered by the deadline. late: client -> seconds."""
    box, message = queue.SimpleQueue(), encode_model(server)
    posts = [threading.Timer(late.get(client, 0), box.put, [machine(client, message)])
             for client in data.ids]
    for post in posts:
        post.start()
    closes, updates = time.monotonic() + deadline, []
    while len(updates) < len(data.ids) and (left := closes - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            updates.append(decode_update(box.get(timeout=left)))
    for post in posts:
        post.cancel()                                            # nobody waits for these
    updates.sort(key=lambda update: update.client)
    total = sum(u.delta.astype(np.float64) for u in updates) / sum(u.weight for u in updates)
    return server.params + total.astype(np.float32), [u.client for u in updates]


slowest = pages - 1
by_hand, heard = round_by_hand(start, deadline=1.0, late={slowest: 60.0})
print("heard:", heard)

# %% [markdown]
# The library's `Synchronous(deadline=1.0)` does that in the room. A simulated page can be made slow, and can close:

# %%
with Room(seats=pages, simulate=pages, seed=seed) as room:
    room.pupils.waits[slowest] = 60.0                            # takes a minute from now on
    late = room.train(1, deadline=1.0)
    room.pupils.go(slowest)                                      # and now its page is closed
    while slowest in room.here():
        time.sleep(0.01)
    gone = room.train(1, state=late.state, deadline=1.0)
for word, history in (("late", late), ("gone", gone)):
    print(f"{word}: {len(history.records[0].clients)} answers after "
          f"{history.records[0].clock - (late.records[0].clock if word == 'gone' else 0):.1f} s;",
          *(e for e in history.records[0].events if "come" not in e))

# %% tags=["proof"]
# Proof, open me: the round by hand and the room's, the same answers and the same model
assert heard == list(late.records[0].clients) == [c for c in data.ids if c != slowest]
assert np.abs(by_hand - late.state.server.params).max() < 1e-6

# %% [markdown]
# The two look alike in the model and are not alike in the room: a page that is *gone* is known to be gone, and nobody waits for it. A
# page that is *late* costs everybody the rest of the deadline. To the server, silence is the only difference between a slow phone
# and none, and it does not know which silence it hears.
#
# ## How long should the room wait?
#
# Let a quarter of the pages be slow: they answer after a second and a half, the others after a seventh of a second. The same room
# with four rules. *All*: wait for everybody. *Deadline*: close after 0.6 seconds. *Over-selection*: ask more than are needed, step at
# the first $m$ answers. *Buffered*: no rounds; step at every $m$ answers, whoever gave them (chapter 7). Which is quickest, and who
# pays?

# %%
slow = list(range(pages - pages // 4, pages))
rules = {
    "all": {},
    "deadline": {"deadline": 0.6},
    "over-selection": {"fraction": 0.6, "over": 0.7},
    "buffered": {"buffer": pages // 2, "rounds": 3 * rounds},
}
runs, experiments = {}, {}
for name, rule in rules.items():
    with Room(seats=pages, simulate=pages, seed=seed) as room:
        room.pupils.waits |= {client: 1.5 if client in slow else 0.15 for client in range(pages)}
        runs[name] = room.train(**{"rounds": rounds} | rule)
        experiments[name] = room.experiment

# %%
figure, (ax,) = canvas(1, width=6.4)
for name, history in runs.items():
    history.plot(ax=ax, x="seconds", label=name)
ax.set_xlabel("seconds of the wall clock")
show(figure, "12.waiting")

rows = {}
for name, history in runs.items():
    counts = participation(history, range(pages))
    rows[name] = {
        "steps": len(history),
        "seconds": f"{history.records[-1].clock:.1f}",
        "accuracy": f"{history.last('accuracy'):.0%}",
        "answers used": sum(counts.values()),
        "of slow pages": f"{sum(counts[c] for c in slow) / sum(counts.values()):.0%}",
        "Gini": f"{gini(counts):.2f}",
        "stalest": max(max(r.staleness, default=0) for r in history.records),
    }
print(pd.DataFrame(rows).T.to_string())

# %% tags=["proof"]
# Proof, open me: all heard everybody, deadline and over-selection no slow page, the buffer's
# answers are stale, the slow among them seldom; and all three were done before the first
assert all(len(record.clients) == pages for record in runs["all"].records)
for name in ("deadline", "over-selection"):
    assert not any(set(record.clients) & set(slow) for record in runs[name].records)
assert max(max(record.staleness) for record in runs["buffered"].records) >= 1
counts = participation(runs["buffered"], range(pages))
assert max(counts[c] for c in slow) < min(counts[c] for c in range(pages) if c not in slow)
ends = {name: history.records[-1].clock for name, history in runs.items()}
assert max(ends["deadline"], ends["over-selection"], ends["buffered"]) < ends["all"]

# %% [markdown]
# All three are done before the room that waits for all, and the table says who pays: with a deadline and with over-selection the slow
# are not heard at all. Here this costs little, since everybody was dealt digits of the same kind. In a real room the slow phone may be
# that of the only person who writes sevens with a bar. Buffered hears the slow, seldom and from an old model. The Gini
# coefficient (chapter 6) is 0 if all are heard equally often.
#
# **Try it.** Three of twelve are slow. How large may the share of clients asked be so that over-selection never waits for one of
# them?
#
# Answer: at most 9 of 12 answers, so 0.75, if all twelve are asked. With a larger $m$ every round waits for a slow page again. In a
# room you do not know how many are slow before you have seen it: this is why the deadline is there as well.
#
# ## How many bytes?
#
# The wall shows the bytes of each step. On the phones' side of a crowded Wi-Fi, answers are what collides. Send a tenth of the
# numbers, or fewer bits of each (chapter 5):

# %%
ways = {"as it is": {}, "a tenth": {"keep": 0.1}, "a tenth, 4 bits": {"keep": 0.1, "bits": 4},
        "1 bit": {"bits": 1}}
table, sent = {}, {}
with Room(seats=pages, simulate=pages, seed=seed) as room:
    for name, way in ways.items():
        history = room.train(rounds, **{"keep": 1.0, "bits": 0} | way)
        sent[name] = history.records[0].upload[0]
        table[name] = {"bytes of an answer": sent[name],
                       "accuracy": f"{history.last('accuracy'):.0%}"}
print(pd.DataFrame(table).T.to_string())

# %% [markdown]
# Settings stay as they are until somebody changes them, on the wall as in a cell; this is why each line above sets both.
#
# **Try it.** The model goes to every page, too. How many bytes of a round does *a tenth* save in all?
#
# Answer: not half. The way down is as it was, about as long as an uncompressed answer, so a round shrinks by somewhat less than
# one half, whatever happens to the way up.
#
# ## What has the server seen of you?
#
# No drawing leaves its page. But an update does, and chapter 9 showed what can be read off one: a unit's weights move by a mixture of
# the digits that moved it, and its bias tells by how much. The wall divides the one by the other, for whomever you choose. How
# well can it be read if a page has one digit, five, twenty?

# %%
shares = {"1 digit, 1 step": (1, {"epochs": 1, "batch": 1}),
          "5 digits, 1 step": (5, {"epochs": 1, "batch": 5}),
          "20 digits, 8 steps": (20, {"epochs": 2, "batch": 5})}
readings, quality = {}, {}
for name, (share, rule) in shares.items():
    with Room(seats=pages, simulate=pages, share=share, seed=seed) as room:
        room.train(1, **rule)
        seen = np.array(room.seen(0)["read"])
        drawn = room.experiment.data.examples(0)[0].reshape(-1, 64)
        if share == 1:
            only, message = drawn[0], room.last[0]
    readings[name] = seen[0]
    quality[name] = best_psnr(drawn, seen)

# %%
figure, axes = canvas(4, width=1.9, height=2.2)
for ax, (name, picture) in zip(axes, {"in the page": only, **readings}.items(), strict=True):
    ax.imshow(np.clip(picture, 0, 1).reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(name, fontsize=9)
    ax.set(xticks=[], yticks=[])
show(figure, "12.seen")
for name, decibels in quality.items():
    print(f"{name:19} best reading of a digit: {min(decibels.max(), 99):.0f} dB, "
          f"of the worst read: {min(decibels.min(), 99):.0f} dB")

# %% tags=["proof"]
# Proof, open me: one digit in one step is read exactly; with more it is not
assert np.abs(readings["1 digit, 1 step"] - only).max() < 1e-3
assert quality["1 digit, 1 step"].min() > 60 > quality["20 digits, 8 steps"].max()

# %% [markdown]
# A page with a single drawing and a single step has as good as sent the drawing. More digits and more steps blur it. That is a habit, no
# promise: nobody has shown how little can be read by somebody cleverer.
#
# **Try it.** Ask the class before you show it: I switch on clip and noise on the wall. What of this picture changes?
#
# Answer: nothing that helps. Clipping makes the update shorter, and a quotient does not care. The noise is drawn by the *server*
# and added to the *sum*: it protects from those who get the model (chapter 3, central), not from the server, which has seen the
# update before. The cell below switches both on, and its proof compares.

# %%
lengths = {"off": float(np.linalg.norm(decode_update(message).delta))}
with Room(seats=pages, simulate=pages, share=1, seed=seed) as room:
    room.train(1, epochs=1, batch=1, clip=0.1, noise=1.0)
    lengths["on"] = float(np.linalg.norm(decode_update(room.last[0]).delta))
    with_both = np.array(room.seen(0)["read"])[0]
for word, length in lengths.items():
    print(f"clip and noise {word}: the server has an update of length {length:.2f}")
print(f"the two readings differ by {np.abs(with_both - readings['1 digit, 1 step']).max():.0e}")

# %% tags=["proof"]
# Proof, open me: clipped it was, and what is read off it is the same digit
assert lengths["on"] < 0.11 < lengths["off"]
assert np.abs(with_both - only).max() < 1e-3

# %% [markdown]
# ## Noise: who draws it?
#
# So let the page draw it, before it sends (chapter 3, local). What the server then sees of the single digit, in four lines:

# %%
update = decode_update(message).delta                            # of the page with one digit
clip = float(np.linalg.norm(update))                             # say it is just at its bound
dice = np.random.default_rng(seed)
blurred = {z: unit_inputs(model, update + z * clip * dice.normal(size=update.size))[0]
           for z in (0.0, 0.001, 0.01, 0.1)}
figure, axes = canvas(4, width=1.9, height=2.2)
for ax, (z, picture) in zip(axes, blurred.items(), strict=True):
    ax.imshow(np.clip(picture, 0, 1).reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(f"own noise, $z$ = {z:g}", fontsize=9)
    ax.set(xticks=[], yticks=[])
show(figure, "12.own_noise")

# %% [markdown]
# A tenth of a clip bound is plenty against *this* reading. It is no protection by chapter 3's measure, which asks about every reading
# that there could be. What does the noise of the wall's buttons, drawn by the server for the sum, cost a room of this size?

# %%
prices = {}
with Room(seats=pages, simulate=pages, seed=seed) as room:
    for z in (0.0, 0.3, 1.0, 4.0):
        history = room.train(rounds, clip=1.0, noise=z)
        epsilon = history.last("epsilon") if z else np.inf
        prices[z] = {"accuracy": f"{history.last('accuracy'):.0%}", "epsilon": f"{epsilon:,.0f}"}
print(pd.DataFrame(prices).T.rename_axis("noise z").to_string())

# %% [markdown]
# With noise that leaves the model useful, epsilon is so large that it promises next to nothing ($e^{15}$ is three million); with an
# epsilon that promises something, the model is gone. The noise on the sum is the same for twelve people as for twelve thousand, but twelve do not outweigh it. *A room is too small for
# differential privacy*, and this is worth seeing once: privacy of this kind is made for crowds.
#
# **Try it.** A class of thirty instead of twelve: by which factor is the noise in the *mean* smaller?
#
# Answer: 2.5 = 30/12. The noise on the sum is the same, and the mean divides by the number of answers.
#
# ## Two accuracies on the wall
#
# The wall says how many of the held-out digits are read, and how many of those *drawn here*. Pages count the second themselves, since
# their drawings do not leave them. Why are the two not equal? Here are held-out digits that somebody has drawn one pixel, an
# eighth of the square, further to the right:

# %%
shifted = np.roll(data.x_test.reshape(-1, 8, 8), 1, axis=2)
shifted[:, :, 0] = 0
final = first.state.server.params
elsewhere = score(model, final, shifted.reshape(data.x_test.shape), data.y_test)[0]
print(f"held out: {first.last('accuracy'):.0%}; "
      f"the same digits a pixel to the right: {elsewhere:.0%}")

# %% [markdown]
# A small dense network knows pixels, not shapes. What people draw with a finger differs from the data set in more than a pixel, so
# the second number is the honest one, and it rises as people train on their own drawings. Pages centre a drawing and make it as large
# as fits before they turn it into 8 × 8 numbers, as the makers of the data set did.
#
# ## The run afterwards
#
# A run of the room leaves a history like any other: plot it, save it, look at it tomorrow. Instants cannot come back. But who was
# heard in which step, and from which model each answer started, stands in the records; from there on everything is arithmetic. So the
# same run can be made again in one process, even the buffered one:

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "room.json"
    runs["buffered"].to_json(path)
    loaded = History.from_json(path)
for name, history in runs.items():
    repeated = again(experiments[name], history)
    differs = np.abs(repeated.state.server.params - history.state.server.params).max()
    print(f"{name:14} {len(repeated)} steps again, models differ by {differs:.0e}")

# %% tags=["proof"]
# Proof, open me: the saved records are the records, and a run made again is the run
assert loaded.records == runs["buffered"].records
assert [r.clients for r in again(experiments["buffered"], loaded).records] == [
    r.clients for r in loaded.records]
assert differs < 1e-6

# %% tags=["proof"]
# Report, open me: what a sweep gathers
report(models_differ_by=float(gap), room=first.last("accuracy"), alone=float(np.mean(alone)),
       pooled=pooled.last("accuracy"), shifted=float(elsewhere), answer=sent["as it is"],
       tenth=sent["a tenth"])

# %% [markdown]
# ## With a class: a script for 45 minutes
#
# *Before.* In a terminal: `fl-course classroom --lan ADDRESS --out room.json`, with the address of your machine in the network of the
# phones (`ip addr`, on Windows `ipconfig`). Each run is written as it ends: `room-1.json`, `room-2.json`, …; nothing is overwritten. Open the address *On the wall* on the projector. Try one phone.
#
# | minute | what to click | what to ask |
# |---|---|---|
# | 0 | nothing; the wall shows the QR picture | *What will your phone send? Write it down.* |
# | 3 | all come in; watch *Who is here* fill | *What does the server know of you already?* (a name, a seat, an address) |
# | 6 | everybody draws three digits and keeps them | *Where are they now?* (the table on the phone says it) |
# | 10 | **Start**, with the settings as they are | *Predict the curve's end.* Then: *why two accuracies?* |
# | 15 | *passes over the digits* 5, **Start** | *More work a round: what gets better, what does not?* (chapter 2) |
# | 18 | deadline 3; half of the class locks the screen; **Start** | *Late or gone? Can the server tell?* |
# | 24 | share asked 0.6, in excess 0.7, **Start** | *Who was not heard? Is that fair?* (column *answered*) |
# | 28 | these two back to 1 and 0; *answers a step* 5, **Start** | *Where have the rounds gone?* (chapter 7) |
# | 32 | *answers a step* 0; share of numbers 0.1; bits 4; **Start** | *How many bytes fewer? What did it cost?* |
# | 36 | both back (1, 0); choose a client under *What the server has seen* | *Whose digit is this? Would you mind?* |
# | 40 | clip 1, then noise 1 | *Does the picture change? Who draws the noise?* |
# | 43 | Ctrl-C; `room-1.json` … are the histories | *What that you wrote down in minute 0 was wrong?* |
#
# *Phones cannot reach your machine?* Many schools' Wi-Fi keeps its clients apart ("client isolation"). Then: a phone's hotspot, with
# your machine and the phones in it; or several tabs on one or two machines, each tab a client; or `--simulate 20`, which fills the
# seats, and only you draw. A firewall may ask whether Python may be reached: for private networks, yes, for this hour.
#
# *A phone sleeps?* Its page comes back under the same name when it wakes, and is sent what it owes. *A name that should not be on
# the wall?* Close the room and open it again: it has a new code.
#
# ## Is that safe?
#
# - Only your own machine can open the room unless you say `--lan`. It then listens at that one address, as long as the command runs.
# - The code in the address is drawn afresh for each room. Whoever has it can come in; after thirty wrong guesses in a minute,
#   all who come from that address wait a second at the door, with the right code, too. The wall's address is another one: do not
#   hand it out, its buttons start and stop runs.
# - **http is not encrypted.** Who listens in the same network can read the code, the model and every update, and so can try to
#   read drawings off updates as you did above. Draw digits; draw nothing that is anybody's secret. Certificates are in chapter 11.
# - The server checks size, pace and form of what a page sends before it looks at it. A page that sends rubbish costs its own answer.
#   A page that sends a *wrong update in the right form* is believed, up to the library's bounds: that is chapter 9.
# - The server holds names and updates in memory only; a page keeps its drawings as long as its tab is open. `--out` keeps the records: client numbers, counts, bytes, accuracies and events,
#   and events hold the names that people chose.
#
# ## What goes wrong
#
# The room says no before anybody trains:

# %% tags=["nbval-check-output"]
with Room(seats=4, simulate=4, seed=seed) as room:
    with refusal():                                              # noise has no size yet
        room.train(3, noise=1.0)
    with refusal():                                              # more answers than clients
        room.train(3, buffer=5)
    with refusal():
        room.train(3, deadline=0)
    with refusal():
        room.train(3, speed=2)
with refusal():
    Room(seats=3, simulate=4)

# %% [markdown]
# And what nobody refuses:
#
# - *A deadline for the fastest phone.* Old phones are never heard, and nothing on the accuracy's curve says so. Look at *answered*.
# - *A room with one person who draws.* One person's twenty sixes move the model for all; ask who should weigh how much.
# - *Believing the second accuracy.* Pages count it themselves. A page can say what it likes.
#
# ## Summary
#
# - The room runs the library's loop. With everybody in time, its model is the simulation's.
# - On a real clock the server cannot tell late from gone. A deadline, more asked than needed, or a buffer decide how long it waits,
#   and each decides who is not heard.
# - Nothing but updates and counts leaves a page; an update of one digit in one step is the digit.
# - Noise that the server draws does not protect from the server. And a room is too small for noise that protects from all.
# - Records say who was heard and from which model, so a run can be made again though its clock cannot.
#
# ## Recall
#
# **1.** A page is late, another is gone. In what do the two rounds differ, and in what not?
#
# Answer: in how long the server waits; not in the model, which is the mean of those who answered either way.
#
# **2.** Why does the page count how many of its own drawings are read, and not the server?
#
# Answer: the server would need the drawings. It has to believe the page.
#
# **3.** Clip and noise are switched on at the wall. Is what the server can read off your update blurred?
#
# Answer: no. The noise is added to the sum, after the server has seen your update. Noise of your own page would blur it.
#
# **4.** What of a run in the room can be repeated exactly, and what not?
#
# Answer: the steps, given who was heard in each and from which model; not the instants, nor who is heard next time.
#
# **References**: K. Bonawitz et al., *Towards federated learning at scale: system design*, MLSys 2019, arXiv:1902.01046
# (deadlines, over-selection). · J. Nguyen et al., *Federated learning with buffered asynchronous aggregation*, AISTATS 2022,
# arXiv:2106.06639. · L. Zhu, Z. Liu, S. Han, *Deep leakage from gradients*, NeurIPS 2019, arXiv:1906.08935. · E. Alpaydin, C.
# Kaynak, *Optical recognition of handwritten digits*, UCI, 1998, doi:10.24432/C50P49
