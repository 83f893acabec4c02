"""A training step of the courses' networks: forward, loss, backward, Adam."""

import numpy as np

from .problems import ORDERS

try:
    from convkernels import nn
    from convkernels.losses import softmax_cross_entropy_vjp
except ImportError:  # of a commit that has no networks yet
    nn = None

NETWORKS = {
    "MNIST network": ((1, 28, 28), lambda layout: nn.models.mnist_net(hdims=(32,), layout=layout, generator=0)),
    "three-layer network": ((3, 32, 32), lambda layout: nn.models.three_layer_net(layout=layout, generator=0)),
}


class Training:
    """A batch of 64."""

    params = (list(NETWORKS), ORDERS)
    param_names = ("network", "order")

    def setup(self, network, order):
        if nn is None:
            raise NotImplementedError("there are no networks")
        shape, make = NETWORKS[network]
        rng = np.random.default_rng(0)
        x, self.y = rng.standard_normal((64, *shape), np.float32), rng.integers(0, 10, 64)
        last = order == "channels_last"
        self.x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if last else x
        self.net, self.optimiser = make("NHWC" if last else "NCHW"), nn.Adam(1e-3)
        self.time_step(network, order)  # compiles

    def time_step(self, network, order):
        _, vjp = softmax_cross_entropy_vjp(self.net(self.x), self.y)
        self.net.backward(vjp(), input_grad=False)
        self.optimiser.step(self.net)
