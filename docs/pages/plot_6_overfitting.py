"""
Overfitting a small set
=======================

A network that is put together rightly learns a hundred pictures by heart. If yours does not, look there first.
"""

import matplotlib.pyplot as plt
import numpy as np

from convkernels import nn

digits = nn.data.digits()
data = nn.data.Dataset(
    "a hundred digits",
    *(digits.train_x[:100], digits.train_y[:100], digits.test_x, digits.test_y),
    *(digits.classes, digits.credit),
)
net = nn.models.three_layer_net((1, 8, 8), hidden_dim=100, filter_size=3, generator=0)
trainer = nn.Trainer(net, data, nn.Adam(lr=1e-3), batch_size=50)
trainer.fit(epochs=40)
print(f"on the hundred: {trainer.evaluate(data.train_x, data.train_y).accuracy:.2f}")
print(f"on others:      {trainer.history['test_accuracy'][-1]:.2f}")

# %%
# The loss goes to 0, and the accuracy on the hundred to 1. On other digits it stops rising: what is learned by heart
# is of no use there.
history = trainer.history
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
left.plot(history["loss"], ".-")
left.set(xlabel="step", ylabel="loss")
right.plot(np.reshape(history["accuracy"], (40, 2)).mean(1), "o-", label="the hundred")
right.plot(history["test_accuracy"], "o-", label="others")
right.set(xlabel="epoch", ylabel="accuracy")
right.legend()
plt.show()
