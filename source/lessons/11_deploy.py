# %% [markdown]
# # 11 · Leaving the laptop
#
# So far every client lived in the process of your notebook. Now clients become machines: what they get and what they send are
# bytes on a network, they die without a word, and some who knock are no clients at all. What of the ten chapters changes?
#
# **You will be able to**
# - turn an experiment into a Flower app and run it as real processes, encrypted, with nodes that must prove who they are;
# - say what a killed node, a wrong certificate and a slow answer do to a run, and read it in the record;
# - work out from measured bytes and seconds what a federation of another size needs.
#
# About 60 minutes for a newcomer; there are no exercises. You need chapter 1; lines about secure sums, sparse answers and
# buffers need chapters 4, 5 and 7. In the library: `fl_course/federation/elsewhere.py` (the loop's side),
# `fl_course/federation/node.py` (the clients' side), `fl_course/deploy/flower.py` (Flower carries the messages),
# `fl_course/deploy/local.py` (processes on one machine), `fl_course/deploy/certificates.py`, `fl_course/deploy/secure.py`.

# %% tags=["parameters"]
live: bool = False  # True: start real processes here, some minutes; False: show a recording
rounds: int = 12  # rounds of the comparison with alone and pooled
seed: int = 0  # every random choice of the simulations follows from it

# %%
import contextlib
import ssl
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fl_course import *
from fl_course.deploy import scenes
from fl_course.deploy.certificates import certificates
from fl_course.deploy.environment import flower
from fl_course.deploy.export import export
from fl_course.deploy.scenes import history_of, model_of
from fl_course.engine.training import Trainer
from fl_course.federation.evaluation import score
from fl_course.federation.identity import facts
from fl_course.wire.messages import decode_model, decode_update, encode_model, encode_update
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show

# %% [markdown]
# | sign | what it is | in the library |
# |---|---|---|
# | $K$, $m$ | clients there are; clients that answer in a round | `len(data.ids)`, `len(record.clients)` |
# | $N$ | nodes: machines, each the home of some clients | `--clients N` of the command |
# | $d$ | numbers of the model | `model.dim` |
# | $D$, $U$ | bytes of the model on its way down; of one answer | `span.nbytes`, `record.upload` |
# | $T$ | rounds | `rounds=` |
# | $r_k$, $r_s$ | bits a second of a client's link, and of the server's | |
#
# ## The case: alone, pooled, together
#
# Four hospitals, say, with a few hundred digits each, and of different kinds. What has each by itself, what would all data in
# one place give, and what does the federation reach?

# %%
data = digits().partition(Dirichlet(0.5), clients=4, seed=seed)
model, training = logistic(64, 10), LocalSGD(lr=0.1, epochs=1, batch_size=10)
together = Coordinator(data, model, training, Synchronous(1.0), seed=seed)
start = together.initial().server

longer = Trainer(replace(training, epochs=rounds), model, data)          # as many epochs, alone
alone = [score(model, start.params + u.delta, data.x_test, data.y_test)[0]
         for u in longer.train([Task(client, start, seed) for client in data.ids])]
one_place = digits().partition(IID(), clients=1, seed=seed)
pooled = Coordinator(one_place, model, training, Synchronous(1.0), seed=seed).train(rounds)
federated = together.train(rounds)
print("examples:", [len(rows) for rows in data.train])
print(f"alone {np.mean(alone):.0%} (worst {min(alone):.0%}), "
      f"federated {federated.last('accuracy'):.0%}, pooled {pooled.last('accuracy'):.0%}")

# %% [markdown]
# A hospital by itself does not know the digits that it hardly has. That gap is why they would run cables to each other. Nobody
# wants to run cables for data, so what must cross them?
#
# ## What a machine is
#
# To the server, a client is something that takes bytes and gives bytes. By hand that is five lines. The examples are used
# inside, and are in no message:

# %%
trainer = Trainer(training, model, data)


def machine(client, message):
    """A client's machine: bytes in, bytes out."""
    server = decode_model(message)
    (update,) = trainer.train([Task(client, server, seed)])
    n = update.metrics["examples"]                               # FedAvg weighs by examples
    return encode_update(replace(update, delta=update.delta * np.float32(n), weight=n))


def serve(params, rounds):
    """A server that knows nothing of its clients but their bytes. Returns its models."""
    for version in range(rounds):
        message = encode_model(Server(params, version))
        answers = [machine(client, message) for client in data.ids]
        updates = [decode_update(answer) for answer in answers]
        total = sum(u.delta.astype(np.float64) for u in updates)
        params = params + (total / sum(u.weight for u in updates)).astype(np.float32)
    return params, len(message), [len(answer) for answer in answers]


by_hand, down, up = serve(start.params, 3)
print(f"{model.dim} numbers: {down} bytes down; up {up}")

# %% tags=["proof"]
# Proof, open me: the loop by hand and the library's, the same model and the same bytes
library = together.train(3)
assert np.abs(by_hand - library.state.server.params).max() < 1e-7
assert sorted(up) == sorted(library.records[-1].upload)

# %% [markdown]
# The library's loop is the one of chapter 1, and it does not care who answers. A [[post]] carries orders out and answers back:
# `Elsewhere(post)` stands in the loop where local training stood. Here is a post to two other processes of this machine.
# Their answers come from another memory, through a pipe, in an order that nobody plans:

# %%
with Processes(together, 2) as post:
    other_memory = together.train(3, work=Elsewhere(post))
same = other_memory.state.server.params.tobytes() == library.state.server.params.tobytes()
print("the same model to the last bit:", same)

# %% tags=["proof"]
# Proof, open me: two processes or one, the same records
assert same
assert other_memory.records == library.records

# %% [markdown]
# Why is not even the last bit different? Because every client's dice have names (chapter 1: seed, purpose, version, client), and
# the server adds answers up in the order of the clients' names, not in the order in which they come.
#
# Two processes on two cores also train at the same time, each its own clients: this is how a simulation uses more cores. Flower
# has a simulation of its own for that, on Ray, which is a package of its own; a pool of processes is enough for us. It pays
# once a round trains for much longer than a message takes.
#
# **Try it.** Replace `Processes(together, 2)` by `Processes(together, 4)`. What changes?
#
# Answer: nothing that is printed. Each process now has one client. It takes longer to start, since each imports torch.
#
# ## The same federation as a Flower app
#
# To leave the machine we need what a pipe does not have: addresses, encryption, a list of who may come in, messages that wait for
# someone who is away. [Flower](https://flower.ai) has them. Its parts:
#
# | part | what it does | where |
# |---|---|---|
# | SuperLink | keeps the mailboxes, checks who comes in | the server's machine |
# | ServerApp | runs our loop; its post is Flower's `Grid`: `push_messages`, `pull_messages` | started by the SuperLink |
# | SuperNode | asks the SuperLink for messages; nobody connects *to* it | each client's machine |
# | ClientApp | trains; a new process for every message | started by the SuperNode |
#
# An experiment becomes an app by a folder with four small files (and an empty one, which makes it a package). You change one of
# them: the function in `experiment.py` returns a `Coordinator`, as our `together` is one. The client's side is printed whole:

# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder:
    app = export(Path(folder) / "hospitals")
    files = sorted(path for path in app.rglob("*") if path.is_file())
    print(*(f"{path.relative_to(app).as_posix():26} {len(path.read_text().splitlines()):3} lines"
            for path in files), sep="\n")
    print(f"\n{(app / 'hospitals' / 'client_app.py').read_text()}")

# %% [markdown]
# In a terminal, `fl-course deploy export hospitals` writes this folder, and `fl-course deploy local hospitals --clients 2 --tls`
# starts a SuperLink and two SuperNodes on this machine, runs the app, and stops every process again. Flower wants older versions of
# some packages that Jupyter needs, so the command makes an environment of its own for it, once.
#
# The cells below look at five such deployments. They take minutes, so the course comes with a recording (of a machine that had
# other work to do, too); set `live = True` in the parameters, and they happen here instead.

# %%
story = scenes.play(flower()) if live else scenes.recorded()
print(("Played here" if live else "Recorded") + f" on {story['made']}, flwr {story['flwr']}, "
      f"torch {story['torch']}, Python {story['python']}, {story['machine']}, "
      f"cores: {story['cores']}")

# %% [markdown]
# The first: three rounds, two nodes with two clients each, and answers of which only the largest tenth of the numbers travels
# (chapter 5). What was left out waits at home, in the client's drawer. But the process that trained is gone when its message is
# sent! The drawers lie in the node's own `Context.state`, which Flower keeps between two messages; the server keeps only the
# number of the job after which a drawer was written. (The first line below counts seconds from the start of the server, the others
# from the moment when the app was sent.)

# %%
experiment = scenes.sparse()
simulated, deployed = experiment.train(3), history_of(story["sparse"])
for seconds, text in story["up"] + story["sparse"]["lines"]:
    print(f"{seconds:6.1f} s  {text}")

# %%
apart = np.abs(model_of(story["sparse"]) - simulated.state.server.params).max()
print(pd.DataFrame({
    "bytes down, simulated": [sum(r.bytes_down.values()) for r in simulated.records],
    "deployed": [sum(r.bytes_down.values()) for r in deployed.records],
    "bytes up, simulated": [sum(r.bytes_up.values()) for r in simulated.records],
    "deployed ": [sum(r.bytes_up.values()) for r in deployed.records],
}, index=[f"round {r.version}" for r in deployed.records]).to_string())
print(f"the models differ by {apart:.0e} at most")

# %% tags=["proof"]
# Proof, open me: simulated and deployed end in the same model, with the same bytes
assert [r.bytes_up for r in deployed.records] == [r.bytes_up for r in simulated.records]
assert [r.bytes_down for r in deployed.records] == [r.bytes_down for r in simulated.records]
assert [r.upload for r in deployed.records] == [r.upload for r in simulated.records]
assert apart <= (1e-6 if live else 1e-5)       # another processor may round otherwise
plain = Coordinator(digits().partition(Dirichlet(0.5), clients=4, seed=0), logistic(64, 10),
                    LocalSGD(lr=0.1, epochs=1, batch_size=10), Synchronous(1.0), stages=[TopK(0.1)])
assert facts(plain) == facts(experiment)       # nothing is hidden in scenes.sparse()

# %% [markdown]
# The same model and the same bytes (down and up together are those of the log): what we have measured for ten chapters is what
# crosses the network, but for the envelopes around it: ours (the number of the job, who was asked), Flower's, and TLS. Where do
# the seconds go?

# %%
ends = [seconds for seconds, text in story["sparse"]["lines"] if text.startswith("round")]
ends = [story["sparse"]["lines"][0][0], *ends]                   # first the nodes were here
names = ["app starts, nodes are asked", "round 1", "round 2", "round 3"]
figure, (ax,) = canvas(1, width=8.6, height=2.4)
left = 0.0
for name, end in zip(names, ends, strict=True):
    ax.barh(0, end - left, left=left, height=0.5, edgecolor="white")
    ax.annotate(name, ((left + end) / 2, 0.32), ha="center", fontsize=8)
    left = end
ax.set(yticks=[], ylim=(-0.5, 0.6), xlabel="seconds of the wall clock since the app was sent")
show(figure, "11.deployed")

# %% [markdown]
# Is that training? Every process of a node says at its end how much of a processor it has used since it was started, and how much
# of that went into its jobs, the training of two clients:

# %%
for node, said in story["sparse"]["nodes"].items():
    print(f"{node}:", *said, sep="\n   ")
took = np.array([[float(word) for word in text.split() if "." in word]
                 for said in story["sparse"]["nodes"].values() for text in said])
rounds_took = np.diff(ends[1:])
print(f"training: {took[:, 0].sum() / took[:, 1].sum():.1%} of the nodes' processor time; "
      f"a round: {rounds_took.mean():.0f} seconds of the wall clock")

# %% [markdown]
# It is not. Each message starts a fresh Python that imports Flower and torch, builds the experiment, trains for a blink, and ends.
# The rest of a round is waiting: for a processor that others use, too, and between two looks into a mailbox (a SuperNode of this
# version looks every three seconds). On a federation of phones the waiting is elsewhere, in links and in absent devices; the shape of the answer is the
# same: *measure where the seconds go before you make anything faster*.
#
# **Try it.** Read the table once more. With four nodes instead of two, how many bytes would a round take?
#
# Answer: as many as now. A client's model and answer are as long wherever it lives; nodes that share clients share only
# processes.
#
# ## A node dies
#
# In the second deployment node 1, the home of clients 1 and 3, loses its power after the first round, in the middle of the second.
# It cannot say so. What would *you* want the server to do?

# %%
for seconds, text in story["killed"]["lines"]:
    print(f"{seconds:6.1f} s  {text}")

# %% [markdown]
# The server waited as long as it was told to (`lost-after`, 40 seconds here), wrote down who was lost, took its step with the
# two answers that it had, and did not ask the silent node again. (Round 2 starts from version 1: versions count from
# 0.) Nothing had to be repeated, because a round needs no answer in particular: it is a mean over *those who answered*.

# %%
killed = history_of(story["killed"])
figure, (ax,) = canvas(1, width=5.4)
for history, name in ((deployed, "all four"), (killed, "node 1 dies in round 2")):
    ax.plot([r.version for r in history.records], history.series("accuracy"), "o-", label=name)
ax.set(xlabel="round", ylabel="accuracy, held out", xticks=[1, 2, 3])
show(figure, "11.killed")
print("answers used by round:", [len(r.clients) for r in killed.records])

# %% [markdown]
# Nothing was wrong with the two answers that came. Why, then, is the model worse than before the step? Look at *what* was lost, digit
# by digit:

# %%
def known(scene):
    """The share of each digit, held out, that the last model of a scene names rightly."""
    truth = experiment.data.y_test
    said = model.predict(model_of(scene), experiment.data.x_test).argmax(axis=1)
    return np.array([np.mean(said[truth == digit] == digit) for digit in range(10)])


counts = experiment.data.label_counts()
all_four, without = known(story["sparse"]), known(story["killed"])
print(pd.DataFrame({"examples on node 0": counts[[0, 2]].sum(axis=0),
                    "on node 1": counts[[1, 3]].sum(axis=0),
                    "named rightly, all four": all_four.round(2),
                    "node 1 dead": without.round(2)}).rename_axis("digit").to_string())

# %% tags=["proof"]
# Proof, open me: nothing is lost but the answers of the dead
assert [len(r.clients) for r in killed.records] == [4, 2, 2]
assert set(killed.records[1].clients) == {0, 2}
assert killed.records[0] == deployed.records[0]          # until then the two runs are one
gone, stays = [1, 2, 4, 5, 9], [3, 6, 7]                 # mostly of node 1; mostly of node 0
assert without[gone].max() < 0.15 < 0.25 < all_four[gone].min()
assert (without[stays] > all_four[stays]).all()

# %% [markdown]
# Not half of the answers at random is missing, but everybody who lives on node 1, and with them nearly every 2, 4 and 9 there is,
# and most of the 0s, 1s and 5s. Two steps that nobody but node 0 has a say in are enough: the model names hardly any 1, 2, 4, 5
# or 9 any more, and the 3, 6 and 7 of node 0 more often than the run with all four. (The 8, of node 0 too, neither has learnt by
# now.) In the log the loss falls all the while: a number of all digits together does not say whose are missing. A record of
# who is heard (chapter 6) matters more outside the laptop than inside.
#
# **Try it.** A simulation can lose clients, too. Which fleet loses each job with probability one half, and what does it not show?
#
# Answer: `LogNormal(drop=0.5)`. It loses answers independently of each other, so that over some rounds everybody is heard. A dead
# node is the same clients, round after round.
#
# ## Strangers at the door
#
# Two more nodes ask to come in: one with a key that nobody registered, one that was given another certificate authority. Both must
# stay outside, for different reasons.
#
# *The server proves who it is.* It holds a certificate: its name and public key, signed by an authority. A node trusts this
# authority and nobody else. `certificates` makes an authority for our deployment. We can shake hands in memory:

# %%
def handshake(authority, name, folder):
    """A client that trusts `authority` and wants `name` meets our server. The TLS they agree on."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "ours" / "server.pem", folder / "ours" / "server.key")
    client = ssl.create_default_context(cafile=folder / authority / "ca.pem")
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(a, b, server_hostname=name), server.wrap_bio(b, a, server_side=True)]
    for end in ends * 4:                                         # letters go to and fro
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return ends[0].version()


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    certificates(folder / "ours"), certificates(folder / "theirs")
    print("the right authority, the right name:", handshake("ours", "127.0.0.1", folder))
    for authority, name in (("theirs", "127.0.0.1"), ("ours", "fl.example.org")):
        with refusal(ssl.SSLCertVerificationError):
            handshake(authority, name, folder)

# %% [markdown]
# *The node proves who it is.* It has a pair of keys; its public half was registered with the server beforehand, and it signs
# what it sends with the private half. Whoever does not have a registered key is not let in. Both strangers tried, with these
# last words. The last line is the server's, about the stranger with the key:

# %%
for who, words in story["strangers"].items():
    print(f"{who}:", *dict.fromkeys(word[:150] for word in words), sep="\n   ")

# %% [markdown]
# | who sees | without TLS | with TLS and node keys |
# |---|---|---|
# | somebody on the line | every model, every answer | lengths and times only |
# | somebody who pretends to be the server | every answer of who believes it | nothing: no certificate |
# | somebody who pretends to be a node | the model; and may answer rubbish | nothing: no registered key (but see below) |
# | the server | every single answer | every single answer: *TLS ends there* |
# | a registered node that lies | the model; may answer rubbish (chapter 9) | the same |
#
# The last two lines are why chapters 3, 4 and 9 are not replaced by a padlock.
#
# And who may register a key? Flower asks nobody: whoever reaches the server's port can register one, and can start a run, which is a
# program of theirs on every node. (Our command does both with the address and the authority's certificate, which is no secret.) Here
# only this machine reaches the port. Between machines a firewall or a tunnel must see to it that only the nodes and you do.
#
# **Try it.** The certificates of `fl-course deploy local --tls` are for `localhost` and `127.0.0.1`. What does a node say that
# connects to the same server under the name `fl.example.org`?
#
# Answer: the second refusal above: the certificate is genuine and not valid for that name. `certificates(folder,
# ["fl.example.org"])` makes one that is.
#
# ## A secure sum over real processes
#
# In chapter 4 all clients of a secure sum lived in one process, and one could only promise that the server half did not look at
# them. Now the masks are drawn on the nodes, and the server has nothing but messages. One round of it:

# %%
secret = scenes.secure()
simulated_sum, deployed_sum = secret.train(1), history_of(story["secure"])
(one,) = deployed_sum.records
print(pd.DataFrame({"bytes up": one.bytes_up, "bytes down": one.bytes_down})
      .fillna(0).astype(int).to_string())
masked_apart = np.abs(model_of(story["secure"]) - simulated_sum.state.server.params).max()
in_clear = replace(secret, stages=[]).train(1)
grid_error = np.abs(model_of(story["secure"]) - in_clear.state.server.params).max()
print(f"from the simulated secure sum: {masked_apart:.0e}; from the sum in clear: {grid_error:.0e}")

# %% tags=["proof"]
# Proof, open me: the same sum and the same bytes; from the plain mean it differs by the grid only
assert deployed_sum.records[0].bytes_up == simulated_sum.records[0].bytes_up
assert masked_apart <= (1e-6 if live else 2e-5)              # or one step of the grid
assert grid_error <= 0.5 / (2**15 - 1)                       # SecureSum(clip=0.5, bits=16): a step

# %% [markdown]
# Five rounds of messages for one sum, a row each: keys, shares, masked answers (`update`), who is there (`consistency`),
# unmasking. The last row is the model on its way down, to four clients. Between two of them no process of a client is alive.
# What it drew and heard lies on its node; from that it is built anew for its next word, and after its last one the node
# forgets.
#
# What is still a promise: in our deployment the server hands round which public identity key belongs to whom. Against a server
# that *reads* that is enough. A server that *lies* could hand out keys of its own and so remove masks; against that, nodes must
# know each other's keys from somewhere else (chapter 4 says why).
#
# ## Without rounds: FedBuff on the real clock
#
# Flower's `Grid` with its `push_messages` and `pull_messages` needs no rounds. So the `Schedule` of chapter 7 can decide here
# as well: keep four clients at work, step at every second answer. `Elsewhere(post, real=True)` puts the loop on the real clock:
# an answer counts when it comes.

# %%
live_buffer = history_of(story["buffered"])
figure, (ax,) = canvas(1, width=8.6, height=2.8)
live_buffer.timeline(ax)
ax.set_xlabel("seconds of the wall clock")
show(figure, "11.buffered")
print(pd.DataFrame({"second": [r.clock for r in live_buffer.records],
                    "clients": [r.clients for r in live_buffer.records],
                    "staleness": [r.staleness for r in live_buffer.records],
                    "accuracy": live_buffer.series("accuracy")}).round(2).to_string(index=False))

# %% tags=["proof"]
# Proof, open me: every step used two answers, and some of them were stale
assert all(len(r.clients) == 2 for r in live_buffer.records)
assert max(max(r.staleness) for r in live_buffer.records) >= 1
clocks = [r.clock for r in live_buffer.records]
assert clocks == sorted(clocks)

# %% [markdown]
# A bar is a job on a real machine, from the order to the answer; it holds a whole message, with the process that starts for it. Two
# clients of one node answer together, because their orders travel in one message. So every step is made of one node's answers, and
# what the other node knows is a little forgotten each time: the accuracy goes up and down. Was it worth it? The fair rival is the
# same experiment in rounds, on the same nodes and the same clock, until as many answers are used:

# %%
in_rounds = history_of(story["in rounds"])
figure, (ax,) = canvas(1, width=5.4)
in_rounds.plot("accuracy", ax, x="seconds", label="in rounds, four answers a step")
live_buffer.plot("accuracy", ax, x="seconds", label="FedBuff, two answers a step")
ax.set_xlabel("seconds of the wall clock")
show(figure, "11.rival")

rounds_of_four = scenes.in_rounds()
longer_steps = replace(rounds_of_four, optimizer=FedAvg(lr=2.0)).train(4)    # simulated
every_four = live_buffer.records[1::2]                                       # after 4, 8, 12, 16
print(pd.DataFrame({"answers used": np.arange(4, 17, 4),
                    "in rounds: second": [r.clock for r in in_rounds.records],
                    "accuracy": in_rounds.series("accuracy"),
                    "FedBuff: second": [r.clock for r in every_four],
                    "accuracy ": [r.metrics["accuracy"] for r in every_four],
                    "rounds, steps twice as long": longer_steps.series("accuracy")})
      .round(2).to_string(index=False))

# %% tags=["proof"]
# Proof, open me: as many answers each; in rounds, even the real clock gives the simulated model
assert [len(r.clients) for r in in_rounds.records] == [4] * 4
assert sum(len(r.clients) for r in live_buffer.records) == 16
once_more = rounds_of_four.train(4)
gap = np.abs(model_of(story["in rounds"]) - once_more.state.server.params).max()
assert gap <= (1e-6 if live else 1e-5)
assert longer_steps.last("accuracy") > once_more.last("accuracy") + 0.03

# %% [markdown]
# In the recording FedBuff ends ahead with the same sixteen answers. But not because nobody waits: the nodes are equally fast, each
# trained four times in either run, and FedBuff saved no second. (It even took more. That is the machine, which had other work to do
# in those minutes.) FedBuff made eight steps where the rounds made four, and a mean of two answers is no shorter a step than a mean
# of four. The last column gives the rounds that, too: the same answers, a step twice as long (`FedAvg(lr=2.0)`, simulated; the length
# of a step costs no second). Then nothing is left of the advantage. What a buffer is for is a client much slower than the
# others, and there is none in this picture; chapter 7 has it.
#
# Such a run of FedBuff cannot be repeated to the bit: who comes first is decided by the machines. What can be repeated is a
# deployment on the *simulated* clock, which gives the schedule the fleet's seconds, wherever clients really train.
#
# ## What changes at scale?
#
# Take the measured bytes, and do arithmetic. The model down and an answer up have $4d$ bytes each, and a short header; $m$
# clients a round need
#
# $$\text{server traffic} = m\,(D + U)\ \text{a round},\qquad
# \text{seconds} \ge \max\left(\frac{8(D+U)}{r_k},\ \frac{8m(D+U)}{r_s}\right).$$
#
# The first term is a client's link, the second the server's. They are equal at $m = r_s/r_k$ clients: from there on, more clients a
# round only make it longer.

# %% tags=["nbval-check-output"]
header = down - 4 * model.dim
print(f"measured: {down} bytes for {model.dim} numbers, so {header} bytes of header, "
      f"and {max(up) - 4 * model.dim} in an answer")
links = {"client": 20e6, "server": 1e9}                          # bits a second, both ways
print(f"beyond {links['server'] / links['client']:.0f} clients a round "
      "the server's link is the slow one")

# %%
clients = np.logspace(0, 5, 60)
figure, axes = canvas(2)
for numbers, name in ((1e5, "$10^5$ numbers"), (1e7, "$10^7$ numbers"), (1e9, "$10^9$ numbers")):
    both_ways = 8 * 2 * (4 * numbers + header)                   # bits down and up
    seconds = np.maximum(both_ways / links["client"], clients * both_ways / links["server"])
    axes[0].loglog(clients, seconds, label=name)
    axes[1].loglog(clients, clients * both_ways / 8e9, label=name)
axes[0].set(xlabel="clients a round, $m$", ylabel="seconds a round, links only")
axes[1].set(xlabel="clients a round, $m$", ylabel="GB a round through the server")
show(figure, "11.scale")

# %% [markdown]
# Now with a real run behind it: a hundred clients with links of 1 Mbit/s, and the bytes that are really encoded. Move the clients
# a round to 100 and watch which link a round waits for; then send fewer numbers.

# %%
from fl_course.workbook.widgets.scale import scale_explorer

scale_explorer()

# %% [markdown]
# In your picture: more clients a round make a *round* better and, through a narrow server, longer. By seconds the few are
# ahead.
#
# What follows for the chapters before:
#
# - **Fewer bytes** (chapter 5) move both terms. A sparse answer shortens $U$ only; $D$ stays, unless the way down is compressed, too.
# - **More work a round** (chapters 1 and 2) moves neither, and needs fewer rounds, as long as clients do not drift apart.
# - **Waiting** (chapters 6 and 7) is in no formula here, and often the larger part.
# - **Secure sums** (chapter 4) add messages that grow with the square of the cohort, unless masks are shared with few.
#
# What does it cost? Providers charge for traffic that leaves them, so for the models on their way down. The three larger federations
# are made up, to have their sizes side by side:

# %% tags=["nbval-check-output"]
price = 0.08                                                     # of a GB that leaves, say
rows = {}
for name, numbers, m, T in (("this lesson", model.dim, 4, 3), ("keyboard", 1.4e6, 300, 3000),
                            ("vision", 2.5e7, 100, 1000), ("language", 1e9, 20, 200)):
    gb = m * T * (4 * numbers + header) / 1e9
    rows[name] = {"numbers": f"{numbers:,.0f}", "clients a round": m, "rounds": T,
                  "GB down": f"{gb:,.3f}", "price": f"{gb * price:,.2f}"}
print(pd.DataFrame(rows).T.to_string())

# %% [markdown]
# **Try it.** The keyboard's model is sent with 8 bits a number instead of 32. Which column changes, and by how much?
#
# Answer: GB and price become a quarter (`Downlink(8)` of chapter 5, and its scales, a few per cent more). The number of rounds
# does not change by itself; whether more are needed, only a run tells.
#
# ### Reproduction card: one run, two worlds
#
# | | what is said | here |
# |---|---|---|
# | claim | one experiment runs unchanged in simulation and over a network (Beutel et al. 2020, the aim of Flower) | the same, held to a stricter test |
# | number | none is given | largest difference of two models, and all byte counts |
# | what differs | | two nodes on one machine, a model of 650 numbers, loopback |

# %%
worlds = {"top-k": (apart, deployed, simulated),
          "secure sum": (masked_apart, deployed_sum, simulated_sum)}
for name, (gap, there, here) in worlds.items():
    same = [r.bytes_up for r in there.records] == [r.bytes_up for r in here.records]
    print(f"{name:10}  models differ by {gap:.0e} at most; all byte counts equal: {same}")

# %% tags=["proof"]
# Report, open me: what a sweep gathers
report(models_differ_by=float(apart), secure_models_differ_by=float(masked_apart),
       bytes_up=sum(deployed.records[0].bytes_up.values()), federated=federated.last("accuracy"),
       alone=float(np.mean(alone)), pooled=pooled.last("accuracy"))

# %% [markdown]
# ## What goes wrong
#
# Some experiments make sense in a simulation only, and are refused elsewhere:

# %% tags=["nbval-check-output"]
class Nobody:
    """A post without clients: enough to be refused."""


with refusal():                                    # an attacker here sees all updates at once
    liars = replace(together, attack=SignFlip(clients=(1,)))
    liars.train(1, work=Elsewhere(Nobody()))
with refusal():                                    # the real devices are as fast as they are
    guessed = replace(together, fleet=LogNormal())
    guessed.train(1, work=Elsewhere(Nobody(), real=True))
with refusal():                                    # a pipe carries no keys
    Processes(replace(together, weights=Uniform(), stages=[SecureSum(clip=1.0)]), 2)

# %% [markdown]
# And some mistakes are refused by nobody but a careful deployment:
#
# - *Two versions of one experiment.* A node with another learning rate trains happily. Ours sends the facts of its experiment
#   when it says who lives on it, and is turned away with the fact that differs.
# - *A server that waits for everybody.* Without `lost-after`, or a schedule with a deadline, one dead machine holds up the rest.
# - *Processes that live on.* Who starts a dozen processes must end them, also after an error or Ctrl-C, and wait until they are
#   gone: the command does, and its test counts them.
#
# ## Summary
#
# - To the server a client is bytes in, bytes out. The loop does not care who answers.
# - Named randomness and sums in the order of names make a deployed run the simulated one, to the last digits, with the same bytes.
# - A round is a mean over those who answered, so a dead node costs its clients' answers, for as long as it is dead.
# - TLS proves the server to the node, a registered key proves the node to the server. Neither hides an answer from the server.
# - At scale the server's link is the limit from $r_s/r_k$ clients a round on; what compresses helps on both sides of it.
#
# ## Recall
#
# **1.** What of a client's drawer does the server have when clients are elsewhere?
#
# Answer: the number of the job after which it was written. The residual itself stays on the node.
#
# **2.** A node dies in the middle of a synchronous round. What is in the record?
#
# Answer: an event for each of its clients, and a step with fewer answers: 2 instead of 4 in the run above.
#
# **3.** Which of the two strangers found out that something is wrong, and which was found out?
#
# Answer: the node with the other authority refused the server (its handshake failed); the node with the unknown key was refused
# by the server.
#
# **4.** A client has a link of 20 Mbit/s, the server 1 Gbit/s. From how many clients a round on does a round take longer?
#
# Answer: from 50 on, whatever the model: 1000/20.
#
# **References**: D. J. Beutel et al., *Flower: a friendly federated learning framework*, 2020, arXiv:2007.14390. · K. Bonawitz et
# al., *Towards federated learning at scale: system design*, MLSys 2019, arXiv:1902.01046. · K. Bonawitz et al., *Practical secure
# aggregation for privacy-preserving machine learning*, CCS 2017, doi:10.1145/3133956.3133982. · J. Nguyen et al., *Federated learning
# with buffered asynchronous aggregation*, AISTATS 2022, arXiv:2106.06639. · E. Rescorla, *The transport layer security protocol
# version 1.3*, RFC 8446, 2018, https://www.rfc-editor.org/rfc/rfc8446
