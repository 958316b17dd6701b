"""Data sets, and who holds what of them.

    examples.py     whatever holds numbers → float32 examples and int64 classes, or a sentence with the cure
    ids.py          names of clients
    federated.py    Dataset: examples that nobody owns yet; FederatedData: the same with owners, from_clients(…): your own
    partition.py    rules that divide a pool: IID, Shards, Dirichlet, QuantitySkew, Writers
    groups.py       divided data in which clients differ: few examples, turned images, clients set apart
    sources.py      digits(), mnist(), synthetic(α, β); no network
    capstones.py    patients, loans, roles, cars: actg175(), german_credit(), shakespeare(), vehicles()
    datasets/       the files of these, with their licences
"""

from .federated import Dataset, FederatedData, from_clients
from .partition import IID, Dirichlet, Partitioner, QuantitySkew, Shards, Writers
from .sources import digits, mnist, synthetic

__all__ = ["IID", "Dataset", "Dirichlet", "FederatedData", "Partitioner", "QuantitySkew", "Shards", "Writers", "digits",
           "from_clients", "mnist", "synthetic"]
