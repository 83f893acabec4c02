"""
Training on handwritten digits
==============================

The MNIST network on scikit-learn's digits. ``convkernels train`` does the same, with a checkpoint that Ctrl-C leaves;
with your own copies of the files, ``convkernels train mnist --data DIR`` and ``convkernels train cifar10 --data DIR``
do so with MNIST and CIFAR-10. Their figures in the course notes, 0.988 after 10 epochs and 0.48 after one, were not
reproduced here, for this site's build downloads nothing.
"""

import matplotlib.pyplot as plt
import numpy as np

from convkernels import nn

data = nn.data.digits()
net = nn.models.mnist_net((1, 8, 8), hdims=(32,), batch_norm=True, generator=0)
print(nn.summary(net, (1, 1, 8, 8)))

# %%
# Every parameter, its shape and its first values: weights are normal (He), biases 0, and a norm starts as 1 and 0.
for parameter in net.parameters():
    print(f"{parameter.name:8} {parameter.value.shape!s:16} {parameter.value.ravel()[:3].round(3)}")

# %%
# Untrained, it guesses. A few epochs later, it does not.
trainer = nn.Trainer(net, data, nn.Adam(lr=3e-3), batch_size=64, lr_decay=0.95)
print(f"untrained: {trainer.evaluate(data.test_x, data.test_y).accuracy:.3f}")
EPOCHS = 15
trainer.fit(EPOCHS)
print(f"trained:   {trainer.history['test_accuracy'][-1]:.3f}")

history = trainer.history
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
left.plot(np.arange(len(history["loss"])) / trainer.steps_per_epoch, history["loss"], ".", label="each batch")
left.plot(np.arange(1, EPOCHS + 1), history["test_loss"], "o-", label="test")
left.set(xlabel="epoch", ylabel="loss")
right.plot(np.arange(1, EPOCHS + 1), np.reshape(history["accuracy"], (EPOCHS, -1)).mean(1), "o-", label="training")
right.plot(np.arange(1, EPOCHS + 1), history["test_accuracy"], "o-", label="test")
right.set(xlabel="epoch", ylabel="accuracy")
for axes in (left, right):
    axes.legend()
plt.show()

# %%
# With dropout, training looks worse than the test: in the test nothing is dropped.
guesses = trainer.predict(data.test_x)
wrong, right = (np.flatnonzero((guesses == data.test_y) == same) for same in (False, True))
figure, places = plt.subplots(5, 5, figsize=(7, 7.5), layout="constrained")
for axes, number in zip(places.flat, [*wrong[:5], *right], strict=False):
    axes.imshow(data.test_x[number, 0], cmap="gray_r")
    axes.set_title(f"{guesses[number]}", color="crimson" if number in wrong else "black")
    axes.set_axis_off()
figure.supxlabel(data.credit, fontsize=6, wrap=True)
plt.show()
