# %% [markdown]
# # Convert and look
#
# Train a model with attention, convert it, read the verdict, and compare the attention of Keras
# with that of a quantized file. Takes about a minute; needs
# `pip install 'edgeattn[convert,plots]'`.

# %%
from pathlib import Path

import keras
import numpy as np

import edgeattn
from edgeattn import plots
from edgeattn.layers import Attention, attention_maps
from edgeattn_converters import ConversionOptions, ModelSource, convert

FOLDER = Path("convert_and_look")
FOLDER.mkdir(exist_ok=True)

# %% [markdown]
# ## A model that finds the largest of ten numbers

# %%
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).beta(0.3, 1, (6000, 10, 1)).astype("float32")
inputs = keras.Input((10, 1))
states = keras.layers.LSTM(32, return_sequences=True)(inputs)
outputs = keras.layers.Dense(1, name="largest")(Attention(32, name="attention")(states))
model = keras.Model(inputs, outputs)
model.compile(keras.optimizers.Adam(0.005), "mae")
model.fit(x, x.max(axis=1), epochs=12, batch_size=64, verbose=0)

# %% [markdown]
# ## What it attends to
#
# Each row is a sequence: the model attends to its largest number.

# %%
test = np.random.default_rng(1).beta(0.3, 1, (500, 10, 1)).astype("float32")
weights = attention_maps(model, test)
hits = (weights.argmax(axis=1) == test[:, :, 0].argmax(axis=1)).mean()
print(f"The largest weight is on the largest number in {hits:.0%} of the sequences.")
plots.panels({"attention": weights[:40], "numbers": test[:40, :, 0]})

# %% [markdown]
# ## Convert
#
# Every file is compared with Keras on the samples. A `pass` means that the files compute what the
# model computes, including its attention.

# %%
model.save(FOLDER / "model.keras")
np.savez(FOLDER / "samples.npz", x=test[:64])
conversion = convert(
    ModelSource(FOLDER / "model.keras", samples=FOLDER / "samples.npz"),
    FOLDER / "model.edge",
    options=ConversionOptions(formats=("tflite",)),
    force=True,
)
for report in conversion.report.artifacts:
    kilobytes = report.artifact.bytes / 1000
    print(f"{report.artifact.scheme:12}  {report.verdict}  {kilobytes:5.1f} kB")
print("Verdict:", conversion.report.verdict)

# %% [markdown]
# ## Look
#
# The sequence whose map changes most. The difference has a scale of its own.

# %%
artifact = edgeattn.load(FOLDER / "model.edge", format="tflite", scheme="dynamic_int8")
quantized = np.stack([artifact(sample)["attention/attention"][0] for sample in test])
worst = np.abs(quantized - weights).max(axis=1).argmax()
print(f"Largest change of a weight: {np.abs(quantized - weights).max():.4f}")
plots.comparison(weights[worst], quantized[worst], names=("Keras", "dynamic_int8"))
