"""Raw samples of stored models, as the commands prepare them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.worker import tasks


def prepared_rows(path: Path, raw: Mapping[str, Array]) -> set[int]:
    """The numbers of rows of the inputs that raw samples of a stored model are prepared to.

    Files are written beside ``path``.
    """
    folder = path.parent
    np.savez(folder / "raw.npz", **raw)
    source = ModelSource(path, samples=folder / "raw.npz").to_json()
    options, target = ConversionOptions().to_json(), str(folder / "renamed.npz")
    assert tasks.rename_samples(source, options, source["samples"], target) == "raw"
    source |= {"samples": None, "raw_samples": target}
    tasks.prepare_raw_samples(source, options, str(folder / "x.npz"), str(folder / "y.npz"))
    with np.load(folder / "x.npz") as prepared:
        return {len(array) for array in prepared.values()}
