"""
What norms average over
=======================

Batch, layer, instance and group norm subtract a mean and divide by a deviation. They differ in the cells that these are
taken over (after Wu and He, "Group Normalization", 2018).
"""

import matplotlib.pyplot as plt
import numpy as np

import convkernels as ck

N, C, HW, GROUPS = 4, 6, 5, 2

# %%
# Cells of one colour share their statistics: batch norm's are of a channel in all samples, layer norm's of a sample,
# instance norm's of a channel of a sample, group norm's of some channels of a sample.
sample, channel, _ = np.indices((N, C, HW))
SETS = {
    "batch norm": channel,
    "layer norm": sample,
    "instance norm": sample * C + channel,
    "group norm": sample * GROUPS + channel // (C // GROUPS),
}
figure, places = plt.subplots(1, 4, figsize=(12, 3.6), layout="constrained")
for axes, (name, sets) in zip(places, SETS.items(), strict=True):
    colours = 5 * sets % (sets.max() + 1)  # so that neighbours differ
    axes.imshow(
        colours.transpose(1, 2, 0).reshape(C * HW, N), cmap="nipy_spectral", aspect="auto", interpolation="nearest"
    )
    axes.set(title=name, xlabel="samples", xticks=[], yticks=[])
    axes.set_yticks([HW * place - 0.5 for place in range(1, C)], [""] * (C - 1))
    axes.grid(axis="y", color="white")
    axes.tick_params(length=0)
places[0].set_ylabel("channels, and in each its cells")
plt.show()

# %%
# Before, every channel of every sample has a mean and a deviation of its own. After, those that the norm speaks of are
# 0 and 1.
rng = np.random.default_rng(0)
x = rng.normal(rng.normal(0, 2, (N, C, 1, 1)), rng.uniform(0.5, 3, (N, C, 1, 1)), (N, C, 8, 8))
one, zero = np.ones(C), np.zeros(C)
AFTER = {
    "batch norm": (ck.batch_norm_train(x, one, zero)[0], (0, 2, 3)),
    "layer norm": (ck.layer_norm(x, one, zero), (1, 2, 3)),
    "instance norm": (ck.instance_norm(x, one, zero), (2, 3)),
}
for name, (y, axes) in AFTER.items():
    print(f"{name}, over the axes {axes}")
    for when, array in (("before", x), ("after", y)):
        means, deviations = array.mean(axes).ravel()[:4], array.std(axes).ravel()[:4]
        print(f"  {when:6} means {means.round(2) + 0.0}, deviations {deviations.round(2)}")
y = ck.group_norm(x, one, zero, GROUPS).reshape(N, GROUPS, -1)
print(f"group norm, {GROUPS} groups\n  after  means {y.mean(2)[0].round(2) + 0.0}, deviations {y.std(2)[0].round(2)}")
