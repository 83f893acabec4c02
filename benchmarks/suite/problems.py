"""The problems, and the ways of computing them.

Parameters are literal, so that a result always means the same problem, whatever is installed.
"""

CONVOLUTIONS = [
    "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",  # ResNet-50
    "n1g1i3o64_in224x224_k7x7_s2x2_p3+2x3+2_d1x1",  # GoogLeNet's stem
    "n1g1i256o512_in28x28_k1x1_s2x2_p0+-1x0+-1_d1x1",  # ResNet-50's shortcut
    "n1g128i128o128_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",  # MobileNet, depthwise
    "n1g1i32o32_in8435_k2_s1_p0+0_d1",  # WaveNet
    "n1g1i16o32_in8x28x28_k3x3x3_s1x1x1_p1+1x1+1x1+1_d1x1x1",  # I3D
]
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
    "batch_norm:n1c256_in56x56_batch",  # ResNet-50, with the statistics given
    "local_response_norm:n1c96_in27x27_size5",  # AlexNet
]
SMALL = [
    "n1g1i16o12_in32x32_k3x3_s1x1_p1+1x1+1_d1x1",  # DenseNet
    "n1g1i192o16_in28x28_k1x1_s1x1_p0+0x0+0_d1x1",  # GoogLeNet, before its 5x5
]
"""Convolutions of which the definition, in Python loops, comes to an end."""

CONVOLVED = ["auto", "depthwise", "winograd", "direct", "im2col", "stride_tricks"]
POOLED = ["auto", "direct", "stride_tricks", "im2col"]
NORMALISED = ["auto", "direct", "numpy"]
"""Strategies; the definition is timed where others are measured by it."""

GRADIENTS = ["forward", "input_grad", "weight_grad"]
BOTH = ["forward", "backward"]
ORDERS = ["channels_first", "channels_last"]
DTYPES = ["float32", "float64"]
