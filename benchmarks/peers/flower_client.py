"""The ClientApp of the Flower peer: an ordinary training loop with a DataLoader. Ray's workers import this file."""

from __future__ import annotations

import protocol
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from networks import network
from torch.utils.data import DataLoader, TensorDataset

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    config = message.content["config"]
    work = protocol.load(config["work"])
    rows = work.clients[context.node_config["partition-id"]]
    torch.set_num_threads(1)
    model = network(work.model)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())

    if not config["noop"]:
        data = TensorDataset(torch.from_numpy(work.x[rows]), torch.from_numpy(work.y[rows]))
        loader = DataLoader(data, batch_size=work.batch)                    # not shuffled: the order is given
        optimizer = torch.optim.SGD(model.parameters(), lr=work.lr)
        model.train()
        for _ in range(work.epochs):
            for images, labels in loader:
                optimizer.zero_grad()
                F.cross_entropy(model(images), labels).backward()
                optimizer.step()

    metrics = MetricRecord({"num-examples": len(rows)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)
