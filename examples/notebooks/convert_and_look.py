# %% [markdown]
# # Convert and look
#
# Train a model with attention, convert it, and compare its attention in Keras and in a quantized
# file. Takes about a minute; needs `pip install 'edgeattn[convert,plots]'`.

# %%
import keras
import numpy as np

import edgeattn
from edgeattn import plots
from edgeattn.layers import Attention, attention_maps

# %% [markdown]
# ## A model that finds the largest of ten numbers

# %%
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).random((8000, 10, 1), "float32") ** 3
inputs = keras.Input((10, 1))
states = keras.layers.LSTM(32, return_sequences=True)(inputs)
outputs = keras.layers.Dense(1, name="largest")(Attention(32, name="attention")(states))
model = keras.Model(inputs, outputs, name="largest")
model.compile(keras.optimizers.Adam(0.005), "mae")
history = model.fit(x, x.max(axis=1), epochs=15, batch_size=64, verbose=0)

# %% [markdown]
# ## What it attends to
#
# Each row is a sequence; compare where the weights and the largest numbers are.

# %%
test = np.random.default_rng(1).random((500, 10, 1), "float32") ** 3
weights = attention_maps(model, test)
plots.panels({"attention": weights[:40], "numbers": test[:40, :, 0]})

# %% [markdown]
# ## Convert
#
# Every file is compared with Keras on the samples: its outputs and its attention. The bundle gets
# the name of the model, `largest.edge`, in the current folder.

# %%
conversion = edgeattn.convert(model, samples=test[:64], formats="tflite", force=True)
conversion

# %% [markdown]
# ## Validate on all of your data
#
# 64 samples can miss what happens rarely, so compare the files on all 500. The recommended file is
# the smallest that passes.

# %%
validation = edgeattn.validate(conversion, data=test)
print(validation)
for report in validation.artifacts:
    print(report.artifact.label, report.verdict, report.verdict_reason or "")
print(validation.recommendation.short)

# %% [markdown]
# ## Look
#
# The sequence whose attention changes most in the dynamic int8 file. The difference has a scale of
# its own.

# %%
quantized = edgeattn.run(conversion, test, schemes="dynamic_int8")["attention/attention"]
change = np.abs(quantized - weights).max(axis=1)
print(f"Change of a weight: median {np.median(change):.4f}, largest {change.max():.4f}")
worst = change.argmax()
plots.comparison(weights[worst], quantized[worst], names=("Keras", "dynamic_int8"))
