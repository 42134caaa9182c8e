# %% [markdown]
# # Tune and choose
#
# Search for the smallest file of a trained model that passes, and compare it with the others. Takes
# a few minutes; run it in the folder of a clone, after `pip install '.[convert,report]'`.

# %%
import numpy as np

import edgeattn

samples = "sample_models/digits/samples.npz"
pictures = np.load(samples)

# %% [markdown]
# ## Search
#
# The model recognizes handwritten digits. A file may lose at most five points of accuracy, with 95%
# confidence, on 360 labeled pictures. A search that was interrupted resumes if the cell runs again.

# %%
tuning = edgeattn.tune(
    "sample_models/digits/model.h5",
    samples,
    "tune_and_choose.edge",
    samples=samples,
    max_drop=0.05,
    formats="tflite",
    schemes=("float32", "dynamic_int8", "int4"),
    max_candidates=8,
    force=True,
)
print(tuning)

# %% [markdown]
# ## Compare
#
# Candidates from the smallest to the largest; what does not pass is listed with the reason.

# %%
converted = sorted((item for item in tuning.search.results if item.bytes), key=lambda c: c.bytes)
for item in converted:
    kilobytes = item.bytes / 1000
    print(f"{kilobytes:6.1f} kB  {item.verdict:6} {item.candidate.label}  {item.shortfall}")

# %% [markdown]
# Left: size and score. Right: size and latency on this machine. The chosen file is circled.

# %%
tuning.plot()

# %% [markdown]
# ## Choose
#
# The bundle contains the chosen file only. Use it as on a device:

# %%
model = edgeattn.load(tuning)
answers = [model(picture)["dense"].argmax() for picture in pictures["x"]]
accuracy = (np.array(answers) == pictures["y"]).mean()
print(f"Accuracy of the chosen file: {accuracy:.2%}")
