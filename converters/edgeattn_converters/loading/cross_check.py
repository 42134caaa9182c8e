"""A second opinion: the same file as a stock loader opens it, on seeded samples.

Keras 3 for files of Keras 3, tf_keras for those of Keras 2. Only files without any code in them,
without classes of the user's own, and after the audit: tf_keras would run a Lambda it is given.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn_converters.loading.migrate import config_summary as outline
from edgeattn_converters.loading.migrate.context import Config, Context
from edgeattn_converters.loading.safety import allowed_classes as classes

SEED = 20150817
ROWS = 4
# Different kernels of the same mathematics differ by this much at most, relative to the largest.
TOLERANCE = 1e-4
# They keep code, or name functions; a loader might run or look up what they name.
_CODE = frozenset({"Lambda", "TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})


def compare(path: Path, kind: str, stored: Config, model: Any, ctx: Context) -> tuple[str, ...]:
    """A note when a stock loader opens the file and computes something else; else nothing.

    Requires an audited file, and the model that was made of it.
    """
    if kind not in ("keras-hdf5", "keras-zip") or ctx.era == 1:
        return ()
    loader = "Keras 3" if ctx.era == 3 else "tf_keras"
    try:
        if not _only_builtins(stored):
            return ()
        samples = _samples(model, stored)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = _stock(path, kind, stored, ctx)
            if other is None:
                return ()
            theirs = _predict(other, samples)
            ours = _predict(model, samples)
    except Exception:  # whatever a stock loader dies of is why the repairs are there
        return ()
    if len(ours) != len(theirs):
        return (f"{loader} opens this file too, with {len(theirs)} outputs, not {len(ours)}.",)
    error = max(
        (_error(one, another) for one, another in zip(ours, theirs, strict=True)), default=0.0
    )
    if error <= TOLERANCE:
        return ()
    return (
        f"{loader} opens this file too and computes something else (by {error:.1e} of the largest "
        f"value on {ROWS} seeded samples): the above repairs keep what its own Keras computed.",
    )


def _only_builtins(stored: Config) -> bool:
    """Whether every part, at any depth, is a layer of Keras that holds no code."""
    if not outline.is_model(stored):
        return False
    for item in outline.stored_layers(stored):
        class_name = item.get("class_name")
        if outline.is_model(item):
            if not _only_builtins(item):
                return False
        elif class_name not in classes.LAYERS or class_name in _CODE:
            return False
        config = item.get("config")
        for inner in config.values() if isinstance(config, Mapping) else ():
            wrapped = isinstance(inner, Mapping) and "class_name" in inner
            if wrapped and (inner["class_name"] in _CODE or inner["class_name"] == "__lambda__"):
                return False
    return True


def _stock(path: Path, kind: str, stored: Config, ctx: Context) -> Any:
    """The model as the stock loader makes it; None where the choice of the era is ours to make."""
    if ctx.era == 3:
        import keras

        return keras.saving.load_model(path, compile=False, safe_mode=True)
    unsaid = "'GRU" in repr(stored) and "'reset_after'" not in repr(stored)
    if kind != "keras-hdf5" or unsaid:
        return None
    import tf_keras

    config = copy.deepcopy(stored["config"])
    if isinstance(config, list):
        config = {"name": "model", "layers": config}
        model = tf_keras.Sequential.from_config(config)
    elif outline.is_sequential(stored):
        model = tf_keras.Sequential.from_config(config)
    else:
        model = tf_keras.Model.from_config(config)
    model.load_weights(str(path))
    return model


def _samples(model: Any, stored: Config) -> list[Any]:
    """Seeded inputs: numbers, or word numbers with padding where an Embedding reads them."""
    generator = np.random.default_rng(SEED)
    words = min(_vocabularies(stored), default=None)
    samples = []
    for tensor in model.inputs:
        shape = (ROWS, *tensor.shape[1:])
        if words is not None and len(shape) == 2:
            x = generator.integers(1, max(words, 2), shape).astype("float64")
        else:
            x = generator.normal(size=shape)
        for row in range(1, ROWS):  # the later rows are padded, each a little more
            x[row, -row * shape[1] // (2 * ROWS) or shape[1] :] = 0
        samples.append(x.astype(tensor.dtype))
    return samples


def _vocabularies(stored: Config) -> list[int]:
    found: list[int] = []
    for item in outline.stored_layers(stored):
        if outline.is_model(item):
            found += _vocabularies(item)
        config = item.get("config")
        if isinstance(config, Mapping) and item.get("class_name") == "Embedding":
            found.append(int(config.get("input_dim") or 2))
    return found


def _predict(model: Any, samples: Sequence[Any]) -> list[Any]:
    outputs = model(samples if len(samples) > 1 else samples[0], training=False)
    if isinstance(outputs, Mapping):
        outputs = [outputs[name] for name in sorted(outputs)]
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [np.asarray(output, "float64") for output in outputs]


def _error(ours: Any, theirs: Any) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    largest = max(float(np.abs(theirs).max(initial=0.0)), 1e-6)
    return float(np.abs(ours - theirs).max(initial=0.0)) / largest
