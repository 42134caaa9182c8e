"""Arguments of functions as files: bundles, Keras models and arrays."""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

from edgeattn.api.arguments import StrPath, open_bundle
from edgeattn.errors import UsageError
from edgeattn.printable import counted

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from edgeattn.bundle.bundle import Bundle


class KerasModel(Protocol):
    """A model in memory: a ``keras.Model`` of Keras 3, or of tf_keras."""

    def save(self, *args: Any, **kwargs: Any) -> Any: ...


class HasBundle(Protocol):
    """The result of an earlier step."""

    @property
    def bundle(self) -> Bundle: ...


class HasModelFile(Protocol):
    """The result of a step that has read a Keras file."""

    @property
    def model_file(self) -> Path: ...


BundleLike: TypeAlias = "StrPath | Bundle | HasBundle"
ModelLike: TypeAlias = "StrPath | KerasModel | HasModelFile"
# A path, an array, a mapping of arrays by name, or a pair of inputs and labels.
SamplesLike: TypeAlias = Any


class Workspace:
    """A temporary folder, which is removed when no result refers to it any more.

    ``kept`` is what must remain as long as it does.
    """

    def __init__(self, kept: object = None) -> None:
        self._kept = kept

    @functools.cached_property
    def path(self) -> Path:
        path = Path(tempfile.mkdtemp(prefix="edgeattn-"))
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        return path


def bundle_path(source: object) -> Path:
    """The path of a bundle, of a :class:`Bundle`, or of the bundle of a result."""
    if isinstance(source, str | os.PathLike):
        return Path(source)
    bundle = getattr(source, "bundle", source)
    path = getattr(bundle, "path", None)
    if not isinstance(path, Path):
        raise UsageError(
            f"Expected a bundle, received {type(source).__name__}.",
            hint="Pass the path of a bundle, or the result of edgeattn.convert.",
        )
    return path


def opened(source: BundleLike, require_signature: StrPath | None = None) -> Bundle:
    """The bundle, opened; its signature is checked if a file of allowed signers is given."""
    signers = None if require_signature is None else Path(require_signature)
    return open_bundle(bundle_path(source), signers)


def is_keras_model(value: object) -> TypeGuard[KerasModel]:
    """Whether ``value`` is a model in memory. Keras is not imported."""
    return any(
        base.__name__ == "Model" and base.__module__.split(".")[0] in ("keras", "tf_keras")
        for base in type(value).__mro__
    )


def keras_file(model: ModelLike, workspace: Workspace) -> Path:
    """The path of a Keras file, or of the one that an earlier result has read.

    A model in memory is saved to a file in ``workspace``.

    Conversion needs a file, because it runs in a process of its own, with the Keras version that
    it was tested with. Raises :class:`UsageError` if the model cannot be saved.
    """
    if isinstance(model, str | os.PathLike):
        return Path(model)
    if _is_result(model):
        return model.model_file
    if not is_keras_model(model):
        raise UsageError(
            f"Expected a Keras model, received {type(model).__name__}.",
            hint="Pass a keras.Model, the path of a .h5 or .keras file, or the result of "
            "edgeattn.convert.",
        )
    # tf_keras writes the files of Keras 2, of which .h5 is the format with the fewest variants.
    legacy = any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__)
    path = workspace.path / f"{model_name(model)}{'.h5' if legacy else '.keras'}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(str(path))
    except Exception as error:  # of any class: layers define how they are saved
        raise UsageError(
            f"Keras cannot save the model: {type(error).__name__}: {error}",
            hint="Save the model to a file, and pass its path.",
        ) from error
    return path


def _is_result(value: object) -> TypeGuard[HasModelFile]:
    return isinstance(getattr(value, "model_file", None), Path)


def workspace_for(model: object) -> Workspace:
    """A workspace that keeps an earlier result, in whose workspace the Keras file may be."""
    return Workspace(model if _is_result(model) else None)


def default_output(model: ModelLike, file: Path, suffix: str) -> Path | None:
    """Where a bundle is written by default, as the name of ``file`` with ``suffix``.

    In the current folder for a model in memory, beside the bundle for an earlier result, and None,
    which stands for beside the file, for a path.
    """
    name = f"{file.stem}{suffix}"
    if _is_result(model):
        return bundle_path(model).with_name(name)
    return Path(name) if is_keras_model(model) else None


def model_name(model: object) -> str:
    """The name of a model in memory, as a file name."""
    return re.sub(r"[^\w-]+", "_", str(getattr(model, "name", ""))).strip("_") or "model"


def sample_file(values: Any, workspace: Workspace, name: str) -> Path | None:
    """The path of a file of samples, or a file in ``workspace`` with the arrays ``values``.

    ``values`` is a path, an array for the only input, a mapping of arrays by name, or a pair of
    inputs and labels, each an array or a mapping. Raises :class:`UsageError` if they are not
    numbers or text.
    """
    if values is None or isinstance(values, str | os.PathLike):
        return None if values is None else Path(values)
    from edgeattn.samples.npz import write_npz

    if isinstance(values, tuple):
        if len(values) != 2:
            raise UsageError(
                f"{name}: expected inputs and labels, received {counted(len(values), 'value')}.",
                hint="Pass (inputs, labels), or a mapping of arrays by name.",
            )
        inputs, labels = values
        arrays = {**_by_name(inputs, "x"), **_labels(labels)}
    else:
        arrays = _by_name(values, "x")
    converted = {key: _array(array, f"{name}[{key!r}]") for key, array in arrays.items()}
    path = workspace.path / f"{name}.npz"
    with path.open("wb") as file:
        write_npz(file, converted)
    return path


def _by_name(values: ArrayLike | Mapping[str, ArrayLike], default: str) -> dict[str, Any]:
    return dict(values) if isinstance(values, Mapping) else {default: values}


def _labels(values: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, Any]:
    """Labels under the names that files of samples have for them."""
    if not isinstance(values, Mapping):
        return {"y": values}
    return {f"y/{name}": array for name, array in values.items()}


def _array(values: Any, name: str) -> Any:
    import numpy as np

    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"{name} is not an array: {error}", hint="Pass numbers.") from error
    if array.dtype.kind not in "biufUS":
        raise UsageError(f"{name} has the dtype {array.dtype}.", hint="Pass an array of numbers.")
    return array
