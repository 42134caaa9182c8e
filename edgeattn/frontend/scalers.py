"""Fitted scalers of scikit-learn as a TOML file for ``convert --preprocess``.

    import edgeattn

    edgeattn.write_preprocessing("preprocess.toml", {"readings": scaler})

Only the attributes of a fitted object are read: scikit-learn is not imported, and nothing is
unpickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import UsageError
from edgeattn.files import atomic_write, require_new
from edgeattn.frontend.numeric import EPSILON
from edgeattn.tensors import Array

Tables = list[dict[str, Any]]


def write_preprocessing(
    path: Path | str,
    inputs: Mapping[str, Any],
    *,
    target: Any = None,
    force: bool = False,
) -> None:
    """Write fitted ``StandardScaler`` or ``MinMaxScaler`` objects as steps to a TOML file.

    ``inputs`` maps names of inputs of the model to scalers of their last axis. ``target`` is the
    scaler of the values that the model was trained to predict; the answer is then scaled back.
    Raises :class:`UsageError` if an object is another, is not fitted, or has a setting that has no
    step, and :class:`OutputError` if the file exists (without ``force``).
    """
    lines = []
    for name, scaler in inputs.items():
        for table in _steps(scaler):
            lines += [f"[[inputs.{json.dumps(name)}]]", *_lines(table), ""]
    if target is not None:
        lines += ["[answer]", *_lines(_inverse(target)), ""]
    require_new(Path(path), force=force)
    with atomic_write(Path(path), hint="Choose another file.") as file:
        file.write("\n".join(lines).encode())


def _steps(scaler: Any) -> Tables:
    """Steps that compute ``scaler.transform``."""
    if _kind(scaler) == "StandardScaler":
        mean, scale = _standard(scaler)
        if (scale < EPSILON).any():
            raise UsageError(f"The scaler divides by {scale.min():.1e}, which is below {EPSILON}.")
        return [{"step": "normalization", "mean": mean.tolist(), "variance": (scale**2).tolist()}]
    scale, offset = _arrays(scaler, "scale_", "min_")
    tables: Tables = [{"step": "rescaling", "scale": scale.tolist(), "offset": offset.tolist()}]
    if getattr(scaler, "clip", False):
        low, high = scaler.feature_range
        tables.append({"step": "clip", "minimum": float(low), "maximum": float(high)})
    return tables


def _inverse(scaler: Any) -> dict[str, Any]:
    """The answer that computes ``scaler.inverse_transform``."""
    if _kind(scaler) == "StandardScaler":
        mean, scale = _standard(scaler)
    else:
        factor, offset = _arrays(scaler, "scale_", "min_")
        scale, mean = 1 / factor, -offset / factor
    return {"kind": "regression", "scale": scale.tolist(), "offset": mean.tolist()}


def _standard(scaler: Any) -> tuple[Array, Array]:
    """Mean and divisor of a StandardScaler, either of which it may leave out."""
    (variance,) = _arrays(scaler, "n_samples_seen_")  # fitted in any case
    size = int(getattr(scaler, "n_features_in_", variance.size))
    mean = _arrays(scaler, "mean_")[0] if scaler.with_mean else np.zeros(size)
    scale = _arrays(scaler, "scale_")[0] if scaler.with_std else np.ones(size)
    return mean, scale


def _kind(scaler: Any) -> str:
    name = type(scaler).__name__
    if name not in ("StandardScaler", "MinMaxScaler"):
        raise UsageError(
            f"{name} is not a StandardScaler or a MinMaxScaler.",
            hint="Write its steps in the TOML file yourself; docs/preprocessing.md lists them.",
        )
    return name


def _arrays(scaler: Any, *names: str) -> list[Array]:
    for name in names:
        if getattr(scaler, name, None) is None:
            raise UsageError(
                f"The {type(scaler).__name__} is not fitted: it has no {name}.",
                hint="Call its fit method first.",
            )
    return [np.atleast_1d(np.asarray(getattr(scaler, name), "float64")) for name in names]


def _lines(table: Mapping[str, Any]) -> list[str]:
    # Numbers, strings and lists of them are written alike in JSON and TOML.
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]
