# %% [markdown]
# # Tune and choose
#
# Search for the smallest file of a trained model that passes, and compare it with the others. Takes
# a few minutes; run it in the folder of a clone, after `pip install '.[convert,plots]'`.

# %%
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import edgeattn
from edgeattn_converters import ModelSource
from edgeattn_converters.tuning.tune import TuningOptions, tune

FOLDER = Path("tune_and_choose")
FOLDER.mkdir(exist_ok=True)
SAMPLES = "sample_models/digits/samples.npz"

# %% [markdown]
# ## Search
#
# The model recognizes handwritten digits. A file may lose at most five points of accuracy, with 95%
# confidence, on 360 labeled pictures. A search that was interrupted resumes if the cell runs again.

# %%
options = TuningOptions(
    max_drop=0.05, formats=("tflite",), schemes=("all", "int4"), max_candidates=8
)
result = tune(
    ModelSource("sample_models/digits/model.h5", samples=SAMPLES),
    SAMPLES,
    FOLDER / "tuned.edge",
    options=options,
    force=True,
)

# %% [markdown]
# ## Compare
#
# Candidates from the smallest to the largest. What fails is listed with the reason.

# %%
converted = sorted((r for r in result.results if r.bytes), key=lambda r: r.bytes)
for candidate in converted:
    score = "" if candidate.score is None else f"{candidate.score:.1%}"
    kilobytes = candidate.bytes / 1000
    label = candidate.candidate.label
    print(f"{kilobytes:6.1f} kB  {candidate.verdict:5}  {score:6}  {label}  {candidate.shortfall}")
print("Chosen:", result.chosen.candidate.label)


# %%
def bars(candidates):
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for candidate in candidates:
        color = "tab:blue" if candidate.passed else "tab:gray"
        axes.barh(candidate.candidate.label, candidate.bytes / 1000, color=color)
    axes.set_xlabel("size (kB); gray: does not pass")
    return figure


bars(converted)

# %% [markdown]
# ## Choose
#
# The bundle contains the chosen file only. Use it as on a device:

# %%
pictures = np.load(SAMPLES)
model = edgeattn.load(FOLDER / "tuned.edge")
answers = [model(picture)["dense"].argmax() for picture in pictures["x"]]
accuracy = (np.array(answers) == pictures["y"]).mean()
print(f"Accuracy of the chosen file: {accuracy:.1%}")
