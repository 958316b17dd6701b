"""A run that is written down as a notebook is made again by it, to the bit; what cannot be written is refused by its name."""

import math
from dataclasses import dataclass, replace

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from small import InOrder, experiment, federation

from fl_course import (
    APFL,
    DPSGD,
    IFCA,
    IID,
    QSGD,
    Backdoor,
    Buffered,
    CentralDP,
    Clusters,
    Coordinator,
    Correction,
    Devices,
    Discount,
    Ditto,
    Equal,
    Evaluation,
    FedAdam,
    FedPer,
    FedProx,
    FedRep,
    FLTrust,
    History,
    Known,
    LocalSGD,
    LogNormal,
    LoRA,
    MultiKrum,
    Oort,
    QualityScore,
    Scaffold,
    SecureSum,
    SemiSynchronous,
    Shards,
    SignFlip,
    Split,
    SquaredError,
    Stage,
    Stragglers,
    Synchronous,
    TopK,
    Trace,
    Trigger,
    Uniform,
    WeightedMean,
    Wrapped,
    Writers,
    digits,
    few_examples,
    from_clients,
    logistic,
    mlp,
    rotated,
    set_apart,
    synthetic,
    vehicles,
)
from fl_course.federation.identity import facts
from fl_course.federation.notebook import written

TEN = digits().partition(Shards(2), 10, seed=np.int64(1))


def run_cells(cells, stored):
    space = {"stored": stored}
    for cell in cells:
        lines = cell.splitlines()
        if lines[0].startswith("with np.load"):                                # the arrays are handed over here
            lines = lines[2:]
        exec("\n".join(lines), space)
    return space["fed"]


def small(data=TEN, model=None, training=None, schedule=None, **more):
    schedule = schedule or Synchronous(0.5)
    return Coordinator(data, model or logistic(64, 10), training or LocalSGD(0.1, 1, 20), schedule, **more)


def sgd(**more):
    return LocalSGD(0.1, 1, 20, **more)


MODEL = mlp(64, 8, 10)
KNOWN = {
    "defaults": lambda: small(),
    "corrections": lambda: small(training=sgd(correction=Scaffold())),
    "proximal": lambda: small(training=sgd(correction=FedProx(0.5))),
    "stragglers": lambda: small(training=LocalSGD(0.1, Stragglers(0.5, 3), 20)),
    "central noise": lambda: small(weights=Uniform(), stages=[CentralDP(1.0, 1.0, noise_seed=3, budget=9.0)]),
    "local noise": lambda: small(training=sgd(private=DPSGD(1.0, 1.0, noise_seed=1)), weights=Uniform()),
    "masks": lambda: small(weights=Uniform(), stages=[SecureSum(1.0, round_seed=1)]),
    "compression": lambda: small(stages=[TopK(0.1), QSGD(4)]),
    "selectors": lambda: small(selection=Oort(), fleet=LogNormal(0.3, drop=0.1)),
    "scores": lambda: small(selection=QualityScore()),
    "buffers": lambda: small(schedule=Buffered(4, 2), aggregation=WeightedMean(Discount(a=0.7))),
    "semi-synchronous": lambda: small(schedule=SemiSynchronous(0.8, deadline=3.0)),
    "known speeds": lambda: small(fleet=Known({k: float(k + 1) for k in range(10)})),
    "a trace": lambda: small(fleet=Devices(Equal(2.0), Trace({k: ((0.0, float(k < 8)), (9.0, 1.0)) for k in range(10)}))),
    "personal layers": lambda: small(model=Split(MODEL, "dense1"), training=sgd(personal=FedPer())),
    "adapters": lambda: small(model=LoRA(MODEL, "dense0", 2, base=MODEL.init(np.random.default_rng(0)))),
    "twins": lambda: small(training=sgd(personal=Ditto(0.5))),
    "mixtures": lambda: small(training=sgd(personal=APFL())),
    "clusters": lambda: small(model=Clusters(MODEL, 3), training=sgd(personal=IFCA())),
    "attacks": lambda: small(attack=SignFlip((1, 2), 3.0), aggregation=MultiKrum(2), schedule=Synchronous(1.0)),
    "backdoor": lambda: small(attack=Backdoor((1,), 3, Trigger((0, 1, 8)))),
    "root set": lambda: small(aggregation=FLTrust(replace(digits(), x=digits().x[:30], y=digits().y[:30]))),
    "optimiser, evaluation": lambda: small(optimizer=FedAdam(0.01), evaluation=Evaluation(2, True), strict=True, seed=7),
    "few": lambda: small(few_examples(rotated(TEN, 2), 20, seed=3)),
    "apart": lambda: small(set_apart(TEN, [3, 4])[0]),
    "writers": lambda: small(digits().partition(Writers(), ["a", "b'", 'c"'], test_fraction=0.3)),
    "generated": lambda: small(synthetic(1.0, 0.5, clients=5, dim=10), logistic(10, 10)),
    "vehicles": lambda: small(vehicles(6, 20), logistic(5, 1, loss=SquaredError())),
    "brought": lambda: experiment(federation(ids=["x", 1, "y z", 3, 4, 5])),
    "as a split net": lambda: small(model=Split(mlp(64, 8, 10), ("dense0",)), training=sgd(personal=FedRep(2))),
    "by owner": lambda: small(from_clients("mine", {k: (np.eye(4) * k, [0, 1, 2, 1]) for k in (1, 2)}, 3), logistic(4, 3)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_every_kind_of_part_is_written_as_the_call_that_makes_it(name, tmp_path):
    fed = KNOWN[name]()
    cells, stored = written(fed, tmp_path / "run.ipynb")
    again = run_cells(cells, stored)
    assert facts(again) == facts(fed)
    assert (repr(again.evaluation), again.strict, again.seed) == (repr(fed.evaluation), fed.strict, fed.seed)
    assert again.data.name == fed.data.name
    assert bool(stored) == (name in ("brought", "by owner", "root set", "adapters"))
    assert again.train(2).replay(fed)


def executed(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    here = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources=here).execute()
    return book


@pytest.mark.parametrize("name", ["known", "brought"])
def test_the_notebook_makes_the_run_again(name, tmp_path):
    if name == "known":
        fed = small(stages=[TopK(0.1)], fleet=LogNormal(drop=0.2), selection=Oort())
    else:
        fed = experiment(federation(ids=["x", 1, "y", 3, 4, 5]), schedule=Buffered(4, 2))
    history = fed.train(5)
    first = fed.train(2)
    rest = fed.train(3, first)
    rest.to_notebook(tmp_path / f"{name}.ipynb", fed)                          # a resumed run is made again from its beginning
    book = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
    book.cells.append(nbformat.v4.new_code_cell("print(history.state.server.params.tobytes().hex())"))
    nbformat.write(book, tmp_path / f"{name}.ipynb")
    shown = executed(tmp_path / f"{name}.ipynb").cells[-1].outputs[0].text.strip()
    assert bytes.fromhex(shown) == history.state.server.params.tobytes()
    assert (tmp_path / f"{name}.npz").exists() == (name == "brought")


def test_its_last_cell_notices_one_bit(tmp_path):
    fed = small()
    history = fed.train(2)
    wrong = replace(history.records[1], metrics={**history.records[1].metrics, "loss": math.nextafter(history.last("loss"), 9)})
    History([history.records[0], wrong]).to_notebook(tmp_path / "run.ipynb", fed)
    *cells, proof = (cell.source for cell in nbformat.read(tmp_path / "run.ipynb", as_version=4).cells[1:])
    space = {}
    for cell in cells:
        exec(cell, space)
    with pytest.raises(AssertionError):
        exec(proof, space)
    history.to_notebook(tmp_path / "run.ipynb", fed)
    exec(nbformat.read(tmp_path / "run.ipynb", as_version=4).cells[-1].source, space)


def test_the_same_run_is_the_same_file(tmp_path):
    fed = small()
    for name in ("a", "b"):
        fed.train(1).to_notebook(tmp_path / f"{name}.ipynb", fed)
    assert (tmp_path / "a.ipynb").read_bytes() == (tmp_path / "b.ipynb").read_bytes()


class Mine(Correction):
    pass


@dataclass(frozen=True)
class Doubled(Stage):
    times: float = 2.0


@dataclass(frozen=True)
class MyDeal(IID):
    pass


def test_what_is_ones_own_is_refused_by_its_name(tmp_path):
    def refused(fed, words):
        with pytest.raises(ValueError, match=words):
            fed.train(1).to_notebook(tmp_path / "run.ipynb", fed)

    refused(small(training=sgd(correction=Mine())), r"training\.correction is .*Mine")
    refused(small(stages=[Doubled()]), r"stages\[0\] is .*Doubled.* of test_to_notebook, which a notebook in another process")
    refused(small(selection=InOrder()), "selection is .*InOrder.*pip install")
    refused(small(model=Wrapped(torch.nn.Linear(64, 10))), r"model\.module is Linear.*nobody knows the call")
    refused(small(weights=Uniform(), stages=[CentralDP(1.0, 1.0)]), "make this run again: round 1 is another one.*noise_seed=0")
    assert list(tmp_path.iterdir()) == []
    own = small(digits().partition(MyDeal(), 10))                              # its examples are known, its rule is not
    own.train(1).to_notebook(tmp_path / "run.ipynb", own)
    assert (tmp_path / "run.npz").exists()


def test_another_beginning_no_rounds_and_no_notebook_are_refused(tmp_path):
    fed = small()
    given = fed.train(1, fed.initial(np.ones(650, np.float32)))
    with pytest.raises(ValueError, match="no notebook would make this run again: round 1"):
        given.to_notebook(tmp_path / "run.ipynb", fed)
    with pytest.raises(ValueError, match=r"ends with \.ipynb"):
        given.to_notebook(tmp_path / "run.py", fed)
    with pytest.raises(ValueError, match="no round"):
        History().to_notebook(tmp_path / "run.ipynb", fed)


def test_data_remember_their_call_and_forget_it_when_they_are_changed(tmp_path):
    assert TEN.source == "digits().partition(Shards(per_client=2), 10, seed=np.int64(1))"
    assert [part.source for part in set_apart(TEN, 2)] == [f"set_apart({TEN.source}, 2)[{i}]" for i in (0, 1)]
    changed = replace(TEN, test=TEN.train[:0] + tuple(part[:3] for part in TEN.test))
    assert changed.source == few_examples(changed).source == federation().source == ""
    lying = replace(TEN)
    object.__setattr__(lying, "source", digits().partition(Shards(2), 10, seed=2).source)
    cells, stored = written(small(lying), tmp_path / "run.ipynb")              # a call that makes others is not believed
    assert facts(run_cells(cells, stored)) == facts(small(TEN))
    assert stored["data.x"] is lying.x


def test_a_history_from_json_is_written_down_too_and_its_records_are_checked(tmp_path):
    fed = small(stages=[TopK(0.1)])
    bare = History.from_json(fed.train(2).to_json())
    bare.to_notebook(tmp_path / "run.ipynb", fed)
    space = {}
    for cell in nbformat.read(tmp_path / "run.ipynb", as_version=4).cells[1:]:
        exec(cell.source, space)
        assert "params" not in cell.source
    assert space["history"].records == bare.records
