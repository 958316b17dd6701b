"""Chapter 8: a model for each client. Which layers stay at home is said by the network, how they are trained by the method.

    split.py         Split: a network of which some layers never travel
    layers.py        FedPer, FedRep, LG-FedAvg: train what is shared and what is not
    twins.py         fine-tuning, Ditto, pFedMe, APFL: a whole model at home beside the one that travels
    meta.py          Per-FedAvg: a model that is good after one step
    clusters.py      IFCA: k models, everybody takes the one that suits it
    lowrank.py       LoRA: personal layers that are thin, and why their products are not averaged
    steps.py         the steps of SGD, for methods that need two gradients where plain training has one
    evaluation.py    each client's own model on its own held-out examples, beside local only, global and pooled
    exact.py         two problems whose answers are known: a rope's best strength, a shared plane
    rules.py         what does not go together
"""
