"""An audited file as a Keras model that computes what its own Keras computed.

One path for all eras: the config is repaired into today's words (``sources.graph``), built in
Keras 3 with safe mode on, and filled by the names in the file (``sources.weights``). Nothing in a
file is executed, and nothing a file names is imported.
"""

from __future__ import annotations

import inspect as python_inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.errors import EdgeattnError, UnsupportedModelError, UsageError
from edgeattn_converters.loading import custom_objects as custom
from edgeattn_converters.loading.audit import ModelFile, as_damaged, read_architecture
from edgeattn_converters.loading.formats import hdf5, saved_model
from edgeattn_converters.loading.formats import keras_archive as archive
from edgeattn_converters.loading.migrate import config_summary as outline
from edgeattn_converters.loading.migrate import free_axes as axes
from edgeattn_converters.loading.migrate import mixed_precision as precision
from edgeattn_converters.loading.migrate import model_config as graph
from edgeattn_converters.loading.migrate import preprocessing
from edgeattn_converters.loading.migrate.context import Context, Shape, era_of, version_numbers

_LOADABLE = ("keras-hdf5", "keras-zip", "weights-hdf5", "saved-model")


# How names in a TensorFlow graph begin, where nothing is around them.
NAME_OF_GRAPH = re.compile(r"[A-Za-z0-9.]")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be converted.

    Attributes:
        file: where it came from.
        model: the Keras model.
        notes: every repair made, for the user.
        stateful: the names of the layers that kept their state from one call to the next.
    """

    file: ModelFile
    model: Any
    notes: tuple[str, ...]
    stateful: tuple[str, ...] = ()


def load_model(
    file: ModelFile,
    *,
    custom_objects: Path | None = None,
    architecture: str | None = None,
    time_steps: int | None = None,
    allow_free_time: bool = False,
) -> LoadedModel:
    """Load an audited file.

    Args:
        file: as :func:`audit_file` returned it.
        custom_objects: a Python file of the user's own with classes that the model needs.
        architecture: ``FILE.json`` or ``FILE.py:function``, for a file of weights only.
        time_steps: the length of a free time axis.
        allow_free_time: leave a free time axis free, to look at the model and not to convert it.

    Raises:
        UsageError: flags that do not fit the file.
        UnsupportedModelError: what cannot be loaded faithfully, and why.
        UnsafeModelError: a declared size that the file does not hold.
    """
    if file.kind not in _LOADABLE:
        raise UsageError(
            f"expected a Keras model, but {file.path.name} is a {file.kind}",
            hint=f"Try: edgeattn inspect {file.path}",
        )
    _check_architecture(file, architecture)
    notes: list[str] = []
    stateful: list[str] = []
    mine = custom.load_objects(custom_objects)
    if architecture is not None and not architecture.endswith(".json"):
        model = _call_function(architecture)
        _fill_given(file, model)
    else:
        stored = read_architecture(Path(architecture)) if architecture else file.config
        model = _rebuild(
            file, stored, mine, time_steps, notes, stateful, allow_free_time=allow_free_time
        )
    if not model.weights:
        raise UnsupportedModelError(
            f"expected a trained model, but {file.path.name} has a model without any weights",
            hint="Save the trained model with model.save('model.keras').",
        )
    if not NAME_OF_GRAPH.match(model.name):
        # Keras itself could not predict with it on TensorFlow.
        notes.append(f"the model's name, {model.name!r}, is none that TensorFlow takes: left out")
        model.name = "model"
    return LoadedModel(file, model, tuple(dict.fromkeys(notes)), tuple(stateful))


def _check_architecture(file: ModelFile, architecture: str | None) -> None:
    if file.kind == "weights-hdf5" and architecture is None:
        raise UnsupportedModelError(
            f"{file.path.name} holds weights and no architecture",
            hint="Give the architecture too: --architecture FILE.json (model.to_json()) or "
            "--architecture FILE.py:function",
        )
    if file.kind != "weights-hdf5" and architecture is not None:
        raise UsageError(
            f"--architecture is for files of weights only, {file.path.name} has its own",
            hint="Leave --architecture out.",
        )


def _rebuild(
    file: ModelFile,
    stored: Mapping[str, Any],
    mine: Mapping[str, Any],
    time_steps: int | None,
    notes: list[str],
    stateful: list[str],
    *,
    allow_free_time: bool,
) -> Any:
    """Config repaired, model built, weights filled in."""
    with as_damaged(file.path):
        graph.require_layers(stored)
        stored = graph.with_calls(stored)
        version = version_numbers(file.keras_version or _version_in(stored))
        era = era_of(version, stored)
        masked = outline.is_model(stored) and graph.has_masks(stored)
    with _open_weights(file) as weights:
        with as_damaged(file.path):
            shapes = _shapes(weights, stored)
        ctx = Context(
            era=era,
            version=version,
            accepted=_accepted,
            custom=mine,
            shapes=shapes,
            masked=masked,
            note=notes.append,
            stateful=stateful.append,
        )
        with as_damaged(file.path):
            repaired = preprocessing.cut(graph.model(stored, ctx), notes.append)
            if not allow_free_time:
                repaired = axes.fix_time(repaired, time_steps)
        repaired, half = precision.in_float32(repaired)
        if half:
            notes.append(f"trained in {', '.join(sorted(half))}; computed in float32 here.")
        try:
            model = _build(file, repaired, mine, weights)
        except UnsupportedModelError:
            if allow_free_time:
                axes.fix_time(repaired, None)  # a length that is missing says more
            raise
        with as_damaged(file.path):
            _fill(file, weights, model, stored, era)
    if not allow_free_time:
        from edgeattn_converters.loading.cross_check import compare

        notes.extend(compare(file.path, file.kind, stored, model, ctx))
    return model


def _version_in(stored: Mapping[str, Any]) -> str | None:
    version = stored.get("keras_version")
    return version if isinstance(version, str) else None


@contextmanager
def _open_weights(file: ModelFile) -> Iterator[Any]:
    """The HDF5 file of the weights, wherever it lies; of a folder, its variables by path."""
    import h5py

    if file.kind == "saved-model":
        yield saved_model.read_variables(file.path)
        return
    source = archive.read_weights(file.path) if file.kind == "keras-zip" else file.path
    try:
        with h5py.File(source, "r") as weights:
            yield hdf5.with_slashes(weights)
    except (OSError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"the weights in {file.path.name} cannot be read: {error}", hint="Get the file again."
        ) from error


def _shapes(weights: Any, stored: Mapping[str, Any]) -> Callable[[str], list[tuple[str, Shape]]]:
    """Path and shape of what is stored for a layer, without reading it."""
    from edgeattn_converters.loading.migrate.weights import stored_shapes

    if isinstance(weights, dict):
        return lambda _name: []
    found = stored_shapes(weights, stored)
    return lambda name: found.get(name, [])


def _accepted(class_name: str) -> frozenset[str] | None:
    """What a layer class of Keras 3 takes by name."""
    import keras

    found = getattr(keras.layers, class_name, None)
    if not python_inspect.isclass(found):
        return None
    names: set[str] = {"name", "trainable", "dtype", "autocast", "activity_regularizer"}
    for parent in found.__mro__:
        if parent is keras.layers.Layer:
            break
        if "__init__" in vars(parent):
            names |= set(python_inspect.signature(vars(parent)["__init__"]).parameters)
    if class_name == "InputLayer":
        names -= {"trainable", "autocast", "activity_regularizer", "kwargs"}
    return frozenset(names - {"self", "args", "kwargs"})


def _build(file: ModelFile, config: dict[str, Any], mine: Mapping[str, Any], weights: Any) -> Any:
    """The model in Keras 3, its weights still zeros.

    Raises:
        UnsupportedModelError: Keras would not build it; with Keras' own words.
    """
    import keras

    import edgeattn.layers  # noqa: F401  registers our layer
    from edgeattn_converters.loading.migrate import mask_layers  # noqa: F401  registers its layers
    from edgeattn_converters.loading.migrate import registered_objects as objects

    arrays = weights.items() if isinstance(weights, dict) else hdf5.datasets(weights)
    stored = None if file.trusted else sum(int(array.size) for _, array in arrays)
    try:
        # Keras warns of masks that end, as they are meant to.
        with objects.allocating_at_most(stored), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = keras.saving.deserialize_keras_object(
                config, custom_objects=custom.handed(mine), safe_mode=True
            )
            return _built(model, file)
    except EdgeattnError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"Keras cannot build the model in {file.path.name}: {_innermost(error)}",
            hint="Try: edgeattn inspect FILE. Classes of your own come with --custom-objects.",
        ) from error


def _innermost(error: BaseException) -> str:
    """What went wrong first, in one line; Keras wraps errors in errors and configs."""
    text = str(error).split("Exception encountered: ")[-1].strip()
    return f"{type(error).__name__}: {' '.join(text.split())[:400]}"


def _built(model: Any, file: ModelFile) -> Any:
    """The model once it knows its inputs."""
    import keras

    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(
            f"expected a model in {file.path.name}, got a {type(model).__name__}",
            hint="Save the model, not a layer of it.",
        )
    if not model.built:
        raise UnsupportedModelError(
            f"the model in {file.path.name} does not say the shape of its input",
            hint="Add an Input (or input_shape) to the model and save it again.",
        )
    return model


def _fill(file: ModelFile, weights: Any, model: Any, stored: Mapping[str, Any], era: int) -> None:
    from edgeattn_converters.loading.migrate import weights as loading

    if isinstance(weights, dict):
        saved_model.assign(weights, model, stored)
    elif "layer_names" in weights.attrs or "model_weights" in weights or (
        "layer_names0" in weights.attrs
    ):  # fmt: skip
        arrays = loading.stored_arrays(weights)
        loading.assign_layers(model, stored, arrays, era=era, backend=file.backend)
    else:
        loading.assign_archive(weights, model, stored, era=era)


def _call_function(architecture: str) -> Any:
    """The model that a function of the user's own makes."""
    path, colon, name = architecture.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise UsageError(
            f"--architecture: expected FILE.json or FILE.py:function, got {architecture!r}",
            hint="Try: --architecture model.py:build",
        )
    function = getattr(custom.load_module(Path(path), flag="--architecture"), name, None)
    if not callable(function):
        raise UsageError(
            f"--architecture: {path} has no function {name!r}", hint="Give FILE.py:function."
        )
    try:
        model = function()
    except Exception as error:
        raise UsageError(
            f"--architecture: {name}() failed with {type(error).__name__}: {error}",
            hint="It is called without arguments and must return the model.",
        ) from error
    if not hasattr(model, "load_weights") or not getattr(model, "weights", None):
        raise UsageError(
            f"--architecture: {name}() returned {type(model).__name__}, not a built Keras model",
            hint="Build it with an Input, so that its weights exist.",
        )
    return model


def _fill_given(file: ModelFile, model: Any) -> None:
    """Weights into a model of the user's making, with Keras' own loader for such files."""
    try:
        model.load_weights(str(file.path))
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise UnsupportedModelError(
            f"the weights in {file.path.name} do not fit the model of --architecture: "
            f"{first[:400]}",
            hint="The function must build the very model whose weights these are.",
        ) from error
