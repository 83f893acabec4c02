"""
Pooling reducers side by side
=============================

A pool reduces each window to one number. Which number is up to its reducer: one of those built in, or your own.
"""

import matplotlib.pyplot as plt
import numpy as np

import convkernels as ck
from convkernels.nn.data import PHOTOS_CREDIT, sample_images

x = sample_images()["flower"][np.newaxis].astype(np.float64) / 255  # NHWC

# %%
# A reducer of your own gets the windows, and reduces the axes it is told.
spread = ck.Reducer("spread", None, lambda windows, axes, count: windows.max(axes) - windows.min(axes))
REDUCERS = {
    "mean": "mean",
    "max": "max",
    "min": "min",
    "root of the mean square": "lp2",
    "log of the mean exponential": "logsumexp10",
    "max less min, one's own": spread,
}
figure, places = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
for axes, (name, reducer) in zip(places.flat, REDUCERS.items(), strict=True):
    y = ck.pool2d(x, 12, reducer, layout="NHWC")[0]
    if reducer == "lp2":
        y /= 12
    if reducer == "logsumexp10":
        y -= np.log(12 * 12) / 10
    axes.imshow(np.clip(y, 0, 1))
    axes.set_title(name)
    axes.set_axis_off()
figure.supxlabel(PHOTOS_CREDIT, fontsize=8)
plt.show()

# %%
# Where the gradient goes tells them apart, too: to the largest cell alone, to all alike, or to each by its share.
x = np.array([[[[3.0, 1.0], [0.0, 2.0]]]])
for name in ("max", "mean", "lp2", "logsumexp1"):
    y, vjp = ck.pool2d_vjp(x, 2, name)
    print(f"{name:10} {y.item():.3f}  {vjp(np.ones_like(y)).ravel().round(3)}")
