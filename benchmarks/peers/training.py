"""A training step of two networks against PyTorch: the same network and batch, in turns, in the same process.

The MNIST network (batch 256, 1x28x28, Adam) and the three-layer network (batch 50, 3x32x32, 32 filters of 7x7, 500
hidden numbers, Adam), float32. PyTorch runs in both of its memory formats; ours in the two usual layouts. A line is
the median time of PyTorch's better format over ours, and the medians in milliseconds. Run it with::

    python benchmarks/peers/training.py --threads 1
    python benchmarks/peers/training.py --threads 2
"""

import argparse
import os
from statistics import median

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--threads", type=int, default=1)
arguments.add_argument("--seconds", type=float, default=10.0, help="how long to measure each network")
GIVEN = arguments.parse_args()
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = str(GIVEN.threads)

import numpy as np
import torch

import convkernels as ck
from convkernels import nn
from convkernels.cli.bench.timing import Rules, race, sample
from convkernels.losses import softmax_cross_entropy_vjp

torch.set_num_threads(GIVEN.threads)
ck.set_config(threads=GIVEN.threads)


def mnist_peer():
    """The MNIST network in PyTorch."""
    stages, channels = [], 1
    for filters in (32, 64):
        stages += [torch.nn.Conv2d(channels, filters, 3, padding=1), torch.nn.ReLU()]
        stages += [torch.nn.MaxPool2d(2), torch.nn.Dropout2d(0.5)]
        channels = filters
    dense = [torch.nn.Flatten(), torch.nn.Linear(3136, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)]
    return torch.nn.Sequential(*stages, *dense)


def three_layer_peer():
    """The three-layer network in PyTorch."""
    return torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 32, 7, padding=3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten()),
        *(torch.nn.Linear(8192, 500), torch.nn.ReLU(), torch.nn.Linear(500, 10)),
    )


NETWORKS = {
    "MNIST network": (
        (256, 1, 28, 28),
        lambda at: nn.models.mnist_net(hdims=(32,), layout=at, generator=0),
        mnist_peer,
    ),
    "three-layer network": (
        (50, 3, 32, 32),
        lambda at: nn.models.three_layer_net(hidden_dim=500, layout=at, generator=0),
        three_layer_peer,
    ),
}


def our_step(net, x, y):
    """A function that trains ours by one batch."""
    optimiser = nn.Adam(1e-3)

    def step():
        loss, vjp = softmax_cross_entropy_vjp(net(x), y)
        net.backward(vjp(), input_grad=False)
        optimiser.step(net)
        return loss

    return step


def their_step(net, x, y, memory_format):
    """A function that trains PyTorch's by the same batch."""
    net = net.to(memory_format=memory_format)
    x, y = torch.tensor(x).contiguous(memory_format=memory_format), torch.tensor(y)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)

    def step():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def medians(steps, seconds):
    """The median milliseconds of each function, run in turns, after the threads of the last have gone to sleep."""
    for step in steps.values():
        for _ in range(3):
            step()
    round_of_all = sum(sample(step) for step in steps.values())
    found = race(steps, Rules(alternations=max(3, int(seconds / (6 * round_of_all))), repeats=3, shortest=1e-3)).medians
    return {name: 1000 * median(repeats) for name, repeats in found.items()}


def main():
    """Print a line for each network."""
    rng = np.random.default_rng(0)
    for name, (shape, make, peer) in NETWORKS.items():
        x, y = rng.normal(size=shape).astype(np.float32), rng.integers(0, 10, shape[0])
        found = medians(
            {
                "ours NCHW": our_step(make("NCHW"), x, y),
                "ours NHWC": our_step(make("NHWC"), np.ascontiguousarray(x.transpose(0, 2, 3, 1)), y),
                "PyTorch": their_step(peer(), x, y, torch.contiguous_format),
                "PyTorch channels_last": their_step(peer(), x, y, torch.channels_last),
            },
            GIVEN.seconds,
        )
        theirs = min(time for kind, time in found.items() if kind.startswith("PyTorch"))
        ours = min(time for kind, time in found.items() if kind.startswith("ours"))
        times = ", ".join(f"{kind} {time:.1f}" for kind, time in found.items())
        print(f"{name}, {GIVEN.threads} thread(s): {theirs / ours:.2f} x as fast (ms: {times})", flush=True)


if __name__ == "__main__":
    main()
