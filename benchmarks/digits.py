"""How well the MNIST network with batch norm learns the handwritten digits, as `convkernels train` trains it.

The accuracy on each of five fixed fifths, held out in turn, and the seconds of each training. Run it with::

    python benchmarks/digits.py             # as the trainings of the command line
    python benchmarks/digits.py --epochs 10
"""

import argparse
from time import perf_counter

import numpy as np

from convkernels import nn
from convkernels.cli.train import PLANS

LAYOUT = "NHWC"


def main():
    """Print a line for each fifth, then the mean."""
    plan = PLANS["digits"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=plan.epochs)
    given = parser.parse_args()
    found = []
    for fold in range(5):
        data = nn.data.digits(fold).in_layout(LAYOUT)
        net = nn.models.mnist_net((1, 8, 8), hdims=(32,), batch_norm=True, layout=LAYOUT, generator=0)
        trainer = nn.Trainer(net, data, nn.Adam(plan.lr), batch_size=plan.batch_size, lr_decay=plan.lr_decay)
        start = perf_counter()
        found.append(trainer.fit(given.epochs).accuracy)
        print(f"fifth {fold}: test accuracy {found[-1]:.4f}, {perf_counter() - start:.1f} s", flush=True)
    print(f"mean: {np.mean(found):.4f}")


if __name__ == "__main__":
    main()
