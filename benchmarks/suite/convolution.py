"""Convolution: the three operations by every strategy, in both common layouts, on layers of well-known networks."""

import numpy as np

import convkernels as ck
from convkernels.layout import Layout

# Literal, so that a result always means the same problem.
PROBLEMS = [
    "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",  # ResNet-50
    "n1g1i3o64_in224x224_k7x7_s2x2_p3+2x3+2_d1x1",  # GoogLeNet's stem
    "n1g1i256o512_in28x28_k1x1_s2x2_p0+-1x0+-1_d1x1",  # ResNet-50's shortcut
    "n1g128i128o128_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",  # MobileNet, depthwise
    "n1g1i32o32_in8435_k2_s1_p0+0_d1",  # WaveNet
    "n1g1i16o32_in8x28x28_k3x3x3_s1x1x1_p1+1x1+1x1+1_d1x1x1",  # I3D
]
STRATEGIES = ["im2col", "stride_tricks"]
LAYOUTS = ["channels_first", "channels_last"]


class Convolution:
    """One convolution, forward and backward."""

    params = (PROBLEMS, STRATEGIES, LAYOUTS)
    param_names = ("problem", "strategy", "layout")

    def setup(self, problem, strategy, layout):
        spec = ck.parse_problem(problem)[1]
        spatial = "DHW"[3 - spec.window.rank :]
        first = layout == "channels_first"
        data, weights = ("NC" + spatial, "OI" + spatial) if first else ("N" + spatial + "C", spatial + "IO")
        rng = np.random.default_rng(0)
        self.x = rng.random(Layout(data).shape(spec.x_shape), np.float32)
        self.w = rng.random(Layout(weights, "OI").shape(spec.w_shape), np.float32)
        self.dy = rng.random(Layout(data).shape(spec.y_shape), np.float32)
        self.kernel_size = spec.window.kernel_size
        self.options = {
            "stride": spec.window.stride,
            "padding": spec.window.padding,
            "groups": spec.groups,
            "layout": data,
            "strategy": strategy,
        }
        self.time_forward(problem, strategy, layout)

    def time_forward(self, problem, strategy, layout):
        ck.conv(self.x, self.w, **self.options)

    def time_input_grad(self, problem, strategy, layout):
        ck.conv_input_grad(self.dy, self.w, x_shape=self.x.shape, **self.options)

    def time_weight_grad(self, problem, strategy, layout):
        ck.conv_weight_grad(self.x, self.dy, kernel_size=self.kernel_size, **self.options)


class Call:
    """What a call costs besides its arithmetic."""

    def setup(self):
        self.x, self.w = np.ones((1, 1, 8, 8), np.float32), np.ones((1, 1, 3, 3), np.float32)
        self.time_smallest()

    def time_smallest(self):
        ck.conv2d(self.x, self.w)


def timeraw_import():
    return "import convkernels"
