"""The rest of the family, forward and backward, on layers of well-known networks."""

from .calls import ORDERS, norm, pool, transposed

TRANSPOSED = [
    "conv_transpose:n1g1i256o128_in8x8_k4x4_s2x2_p1+1x1+1_d1x1",  # DCGAN
    "conv_transpose:n1g1i256o128_in64x64_k3x3_s2x2_p1+1x1+1_d1x1_op1x1",  # CycleGAN
]
POOLS = [
    "pool:n1c64_in112x112_k3x3_s2x2_p1+1x1+1_d1x1_max",  # ResNet-50
    "pool:n1c128_in112x112_k2x2_s2x2_p0+0x0+0_d1x1_max",  # VGG-19
    "pool:n1c192_in35x35_k3x3_s1x1_p1+1x1+1_d1x1_mean",  # Inception v3
]
NORMS = [
    "norm:n8c256_in14x14_batch",  # ResNet-50
    "norm:n1c320g32_in64x64_group",  # Stable Diffusion
    "norm:n1c768_in197_layer_axes1",  # ViT-B/16
]
DIRECTIONS = ["forward", "backward"]


class Family:
    """One function of the family; those below have their problems."""

    param_names = ("problem", "direction", "order")

    def setup(self, problem, direction, order):
        self.run = self.make(problem, order, "float32")[direction]


class Transposed(Family):
    """Transposed convolution."""

    params = (TRANSPOSED, DIRECTIONS, ORDERS)
    make = staticmethod(transposed)

    def time_run(self, problem, direction, order):
        self.run()


class Pool(Family):
    """Pools."""

    params = (POOLS, DIRECTIONS, ORDERS)
    make = staticmethod(pool)

    def time_run(self, problem, direction, order):
        self.run()


class Norm(Family):
    """Norms in training."""

    params = (NORMS, DIRECTIONS, ORDERS)
    make = staticmethod(norm)

    def time_run(self, problem, direction, order):
        self.run()
