"""
Common mistakes, each on its smallest input
===========================================

Convolution and pooling are a few nested loops, and almost everybody gets one of these wrong at first. Each mistake
below is shown on the smallest input that gives it away, beside the right result. ``convkernels check FILE.py`` finds
such inputs in your own functions.
"""

import numpy as np

import convkernels as ck
from convkernels.courses import cs231n, deeplearning_ai
from convkernels.testing import check_kernel


def show(**results):
    for name, result in results.items():
        print(f"{name:>6}: {np.array2string(np.asarray(result), separator=', ')}".replace("\n", "\n        "))


# %%
# Cutting the padding off with ``pad:-pad``
# -----------------------------------------
# When there is no padding, ``0:-0`` is ``0:0``: nothing is left. Cut from ``pad`` to ``pad + H`` instead.
dx_padded, pad, H = np.ones((1, 1, 1, 1)), 0, 1
show(wrong=dx_padded[:, :, pad:-pad].shape, right=dx_padded[:, :, pad : pad + H].shape)

# %%
# The row of a flat maximum
# -------------------------
# ``argmax`` counts through a window row by row, so the row is ``flat // width``. With the height it works for square
# windows only: here, one row of two cells, it points below the window.
window = np.array([[0.0, 1.0]])
height, width = window.shape
flat = int(window.argmax())
show(wrong=(flat // height, flat % height), right=(flat // width, flat % width))

# %%
# Statistics of the wrong cells
# -----------------------------
# Batch norm wants one mean for each channel. ``x.reshape(-1, C)`` does not move the channels last, it only counts the
# cells in another way: the two channels get mixed. Forward and backward agree with each other, so that a gradient check
# passes; it shows as soon as there are two channels of two cells.
x = np.array([[[[1.0, 2.0]], [[30.0, 40.0]]]])
show(wrong=x.reshape(-1, 2).mean(0), right=np.moveaxis(x, 1, -1).reshape(-1, 2).mean(0))

# %%
# Axes in another order
# ---------------------
# ``n_H, n_W, n_C, m = A.shape`` takes the number of pictures for a height. With all sizes equal nothing is noticed; one
# picture of two rows is enough.
A = np.zeros((1, 2, 1, 1))
n_H, n_W, n_C, m = A.shape
show(wrong={"pictures": m, "rows": n_H}, right={"pictures": A.shape[0], "rows": A.shape[1]})

# %%
# Settings by their place in a dictionary
# ---------------------------------------
# ``stride, pad = hparameters.values()`` depends on who wrote the dictionary. Take them by name.
hparameters = {"pad": 0, "stride": 1}
stride, pad = hparameters.values()
show(wrong={"stride": stride, "pad": pad}, right={"stride": hparameters["stride"], "pad": hparameters["pad"]})

# %%
# A result of whole numbers
# -------------------------
# ``np.zeros_like(b)`` of a bias of whole numbers makes an array of whole numbers, and what is put into it loses its
# fraction without a word.
b = np.array([0, 128])
db = np.zeros_like(b)
db[0] = 0.9
show(wrong=db[:1], right=np.array([0.9]))

# %%
# The size behind the pool
# ------------------------
# ``2 * (filter_size - 1) // 2`` is ``filter_size - 1`` whatever it is, while the padding is ``(filter_size - 1) // 2``
# on each side: an even filter leaves a row and a column less. And a picture may be wider than high.
filter_size, H, W = 2, 4, 6
pad = (filter_size - 1) // 2
taken = (H + 2 * (filter_size - 1) // 2 - filter_size + 1) // 2
true = tuple((size + 2 * pad - filter_size + 1) // 2 for size in (H, W))
show(wrong=(taken, taken), right=true)

# %%
# An eps of one's own
# -------------------
# The backward must take the eps that the forward had, and not 1e-5 whatever was given.
x, dy = np.array([[-1.0], [1.0]]), np.array([[1.0], [0.0]])
found = {}
for name, eps in (("wrong", 1e-5), ("right", 1.0)):
    out, cache = cs231n.batchnorm_forward(x, np.ones(1), np.zeros(1), {"mode": "train", "eps": eps})
    found[name] = cs231n.batchnorm_backward(dy, cache)[0].T
show(**found)

# %%
# A picture that is square already
# --------------------------------
# To crop a picture to a square, ``picture[:, d // 2 : -d // 2]`` cuts off ``d`` columns. Where ``d`` is 0, it cuts off
# everything. And ``(picture - min) / (max - min)`` divides 0 by 0 where all cells are equal.
picture, d = np.ones((1, 1)), 0
show(wrong=picture[:, d // 2 : -d // 2].shape, right=picture[:, d // 2 : d // 2 + 1].shape)

# %%
# AlexNet's first dense layer
# ---------------------------
# Counted from the 13x13 cells in front of the last pool, it would have 177 million weights. It sees the 6x6 behind it.
show(wrong=13 * 13 * 256 * 4096, right=6 * 6 * 256 * 4096)

# %%
# More of the kind
# ----------------
# These functions are handed to :func:`!convkernels.testing.check_kernel`, which finds the smallest input by itself, and
# mostly says what is wrong.


def conv_forward_naive(x, w, b, conv_param, times=1, flip=False):
    """A right convolution with two things to get wrong."""
    step, pad = conv_param["stride"], conv_param["pad"]
    if flip:
        w = w[:, :, ::-1, ::-1]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))[:, :, ::step, ::step]
    return np.einsum("nchwij,fcij->nfhw", windows, w) + times * b[:, None, None], None


def report(function, name):
    found = check_kernel(function, name)
    print("right" if found.right else f"{found.finding.words}\nhint: {found.finding.hint}")


# %%
# The bias is added for every tap, because it stands inside the loop:
report(lambda x, w, b, conv_param: conv_forward_naive(x, w, b, conv_param, times=w[0, 0].size), "conv_forward_naive")

# %%
# The filter is flipped, as a convolution in mathematics has it:
report(lambda x, w, b, conv_param: conv_forward_naive(x, w, b, conv_param, flip=True), "conv_forward_naive")

# %%
# A mean over f times f cells is divided by f + f:
report(
    lambda A_prev, hparameters, mode: (
        deeplearning_ai.pool_forward(A_prev, hparameters, mode)[0]
        * (1 if mode == "max" else hparameters["f"] ** 2 / (2 * hparameters["f"])),
        None,
    ),
    "pool_forward",
)


# %%
# The momentum is the share that is new, and not the one that stays:
def batchnorm_forward(x, gamma, beta, bn_param):
    turned = {**bn_param, "momentum": 1 - bn_param.get("momentum", 0.9)}
    result = cs231n.batchnorm_forward(x, gamma, beta, turned)
    bn_param |= {key: turned[key] for key in ("running_mean", "running_var")}
    return result


report(batchnorm_forward, "batchnorm_forward")

# %%
# The padding takes part in a max pool: -1 is the largest cell here, but the zeros beside it win.
x = np.array([[[[-1.0]]]])
show(wrong=np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).max((2, 3)), right=ck.max_pool2d(x, 3, padding=1)[0, 0])

# %%
# A weight gradient is transposed. The shape of a square filter hides it, its values do not:
x, w, dout = np.array([[[[1.0, 2.0], [0.0, 0.0]]]]), np.zeros((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
out, cache = cs231n.conv_forward_naive(x, w, np.zeros(1), {"stride": 1, "pad": 0})
_, dw, _ = cs231n.conv_backward_naive(dout, cache)
show(wrong=dw[0, 0].T, right=dw[0, 0])

# %%
# What is not wrong
# -----------------
# Where a window holds its maximum twice, the first, the last, or both in equal shares may take the gradient: each is a
# subgradient, and the course's tests cannot tell them apart. Only the whole gradient for each is none, though
# deeplearning.ai's mask gives it.
x = np.zeros((1, 1, 1, 2))
for ties in ("first", "last", "split", "all"):
    y, vjp = ck.max_pool2d_vjp(x, (1, 2), ties=ties)
    print(f"{ties:>6}: {vjp(np.ones_like(y)).ravel()}")

# %%
# In a group norm's backward, the share of the mean's gradient that goes through the variance may be left out: it is a
# multiple of the sum of ``x - mean``, which is 0. The mean's own gradient may not. And float64 results for float32 data
# are right, if larger than they need be.
x = np.random.default_rng(0).normal(size=5)
print(f"{np.sum(x - x.mean()):.0e}")
