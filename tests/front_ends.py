"""Front ends for the dense model, and its answers by NumPy."""

import numpy as np
from artifacts import dense, edit_manifest

from edgeattn.bundle.manifest import sha256
from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FRONTEND, FrontEnd
from edgeattn.frontend.lookup import StringLookup
from edgeattn.frontend.numeric import Rescaling
from edgeattn.frontend.windows import Window

LABELS = ("low", "high")
# Three readings make a sample; smoothing must not connect requests.
WINDOWS = FrontEnd(
    {"x": (Rescaling((0.5,)),)}, Window(3, hop=1), Answer(labels=LABELS, smoothing="mean")
)
COUNTS = FrontEnd(
    {"x": (StringLookup(("a", "b"), output_mode="count"),)},
    answer=Answer(kind="regression", output="score"),
)


def add_front_end(bundle, front_end):
    """Store ``front_end`` in the bundle, as ``convert`` does."""
    path = bundle.path / FRONTEND
    path.write_bytes(front_end.to_bytes())
    entry = {"path": FRONTEND, "sha256": sha256(path)}
    edit_manifest(bundle.path, lambda data: data.update(frontend=entry))


def expected(window):
    """The answer of ``WINDOWS`` to three readings."""
    scores = dense(np.float32([window]) / 2)[0]
    return {"label": LABELS[scores.argmax()], "score": float(scores.max())}
