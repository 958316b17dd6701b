"""Other people's simulators at the benchmark's work, each in an environment of its own: Flower, pfl and FedJAX."""
