"""
Counting AlexNet
================

Where the parameters of AlexNet are, where its operations are, and that its dense layers are convolutions.
"""

import matplotlib.pyplot as plt

from convkernels import nn

net = nn.models.alexnet(generator=0)
summary = nn.summary(net, (1, 3, 227, 227))
print(summary)

# %%
# The first convolution has 11 * 11 * 3 * 96 weights. The second has two groups, so that a filter sees 48 of the 96
# channels; so do the fourth and the fifth. The first dense layer sees 6 * 6 * 256 numbers.
counts = [11 * 11 * 3 * 96, 5 * 5 * 48 * 256, 3 * 3 * 256 * 384, 3 * 3 * 192 * 384, 3 * 3 * 192 * 256]
counts += [6 * 6 * 256 * 4096, 4096 * 4096, 4096 * 1000]
assert counts == [parameter.value.size for parameter in net.parameters() if parameter.key == "w"]
print([f"{count:,}" for count in counts])

# %%
# Dense layers have the parameters, convolutions the operations.
names = {"Conv2d": "conv", "Linear": "dense"}
rows = [row for row in summary.rows if row.parameters]
figure, places = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for axes, (name, numbers) in zip(
    places, {"parameters": [r.parameters for r in rows], "operations": [r.flops for r in rows]}.items(), strict=True
):
    axes.bar([f"{names[row.kind]} {row.name}" for row in rows], numbers, color=["steelblue"] * 5 + ["darkorange"] * 3)
    axes.tick_params(axis="x", rotation=60)
    axes.set_title(f"{name}: {sum(numbers):,}")
plt.show()

# %%
# A dense layer is a convolution whose window is all there is, and those behind it are 1x1 convolutions. The network
# then takes larger pictures, and gives a score for each place.
convolutional = nn.models.alexnet(convolutional=True, generator=0)
print(convolutional.parameter_count == net.parameter_count)
print(nn.summary(convolutional, (1, 3, 291, 259)).rows[-1].shape)

# %%
# A 1x1 convolution mixes channels and no cells: here 256 become 16, and a 3x3 convolution behind it is 16 times
# cheaper.
wide, narrow = nn.Conv2d(256, 256, 3, generator=0), nn.Sequential(nn.Conv2d(256, 16, 1), nn.Conv2d(16, 256, 3))
for layers in (wide, narrow):
    found = nn.summary(layers, (1, 256, 15, 15))
    print(f"{found.parameters:>9,} parameters, {found.flops:>13,} operations, output {found.rows[-1].shape}")
