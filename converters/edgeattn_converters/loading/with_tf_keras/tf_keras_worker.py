"""Programs and classes of the user, run with tf_keras in a worker process of its own.

The process is one without Keras 3: see :mod:`.tf_keras_modules`. Like Keras 3 in a conversion, it
runs the code in the files that the user passes, and none that is stored in a model file.
"""

import contextlib
import importlib
import importlib.util
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.migrate.pruned_layers import WRAPPER
from edgeattn_converters.loading.own_code import local_packages, own_files
from edgeattn_converters.loading.own_code.own_classes import own_objects
from edgeattn_converters.loading.safety.allowed_classes import is_keras_module
from edgeattn_converters.loading.with_tf_keras import (
    configs_for_tf_keras,
    pruning_wrapper,
    tf_keras_modules,
)

# Characters of the message of an error.
_LONGEST = 160
# What the user's files may import, as long as the worker runs.
_imports = contextlib.ExitStack()


class NotLoadedError(Exception):
    pass


def outputs(source: Mapping[str, Any], tensors: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return what the model of ``source`` computes for groups of samples.

    Args:
        source: ``script``, the user's file, and ``function``, the name of what builds the model in
            it. Or ``config``, the JSON of the model, or neither if ``file`` contains the model and
            the script the classes. ``file`` and ``suffix``, that of the format. ``structure`` of
            the inputs, with their numbers, of each of the ``groups``, and ``by_name`` if the inputs
            are several arguments of the model.
        tensors: the inputs by ``"group/number"``.

    Returns:
        The version of tf_keras, why the model failed, if it did, and for each group the number of
        outputs, or why it failed; and the outputs by ``"group/number"``.
    """
    tf_keras_modules.provide()
    import tf_keras

    result: dict[str, Any] = {"version": tf_keras.__version__, "failure": None, "groups": []}
    groups = [inputs_of(source, tensors, number) for number in range(source["groups"])]
    try:
        model = loaded(source, calling(source, groups[0]))
    except Exception as error:
        return {**result, "failure": reason(error)}, {}
    arrays: dict[str, Any] = {}
    for group, inputs in enumerate(groups):
        try:
            values = predicted(model, inputs, by_name=source["by_name"])
        except Exception as error:
            result["groups"].append(reason(error))
            continue
        result["groups"].append(len(values))
        arrays |= {f"{group}/{k}": value for k, value in enumerate(values)}
    return result, arrays


def inputs_of(source: Mapping[str, Any], tensors: Mapping[str, Any], group: int) -> Any:
    """Return a group of inputs in the structure of a source; see :func:`outputs`."""
    arrays = {number: tensors[f"{group}/{number}"] for number in source["numbers"]}
    return _with_arrays(source["structure"], arrays)


def _with_arrays(structure: Any, arrays: Mapping[int, Any]) -> Any:
    if isinstance(structure, Mapping):
        return {key: _with_arrays(item, arrays) for key, item in structure.items()}
    if isinstance(structure, list):
        return [_with_arrays(item, arrays) for item in structure]
    return arrays[structure]


def calling(source: Mapping[str, Any], inputs: Any) -> Callable[[Any], Any]:
    """Return a function that calls a model with a group of inputs."""
    return lambda model: called(model, inputs, by_name=source["by_name"])


def loaded(source: Mapping[str, Any], build: Callable[[Any], Any]) -> Any:
    """Return the model with the weights of its file, loaded as users do.

    ``source`` is that of :func:`outputs`. ``build`` calls a model that has no weights yet.
    """
    module = _script(Path(source["script"])) if source["script"] else ModuleType("none")
    with _linked(source) as link:
        if source["function"] is not None:
            model = _built(module, source["function"])
        else:
            with _nothing_stored_runs(), _arguments_restored(), _copies_separate():
                model = _stored(source["config"], link, _objects(module))
            if source["config"] is None:
                return model
        if not model.inputs or not model.built:
            build(model)
        model.load_weights(str(link))
    return model


def load_weights(model: Any, source: Mapping[str, Any]) -> None:
    """Load the weights of a file into a model once more."""
    with _linked(source) as link:
        model.load_weights(str(link))


@contextlib.contextmanager
def _linked(source: Mapping[str, Any]) -> Iterator[Path]:
    """A name of the file by whose end tf_keras recognizes its format."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"m{source['suffix']}"
        link.symlink_to(Path(source["file"]).resolve())
        yield link


def _stored(config: str | None, path: Path, objects: dict[str, Any]) -> Any:
    """Return the model of a JSON text, or else that of a file, with its weights."""
    import tf_keras

    if config is None:
        return tf_keras.models.load_model(str(path), custom_objects=objects, compile=False)
    return tf_keras.models.model_from_json(config, custom_objects=objects)


def _script(path: Path) -> Any:
    name = local_packages.module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise NotLoadedError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _imports.enter_context(local_packages.importable(path))
    spec.loader.exec_module(module)
    return module


def _built(module: Any, name: str) -> Any:
    import tf_keras

    model = getattr(module, name)
    model = model if isinstance(model, tf_keras.Model) else model()
    if not isinstance(model, tf_keras.Model):
        raise NotLoadedError(f"{name}() returned no model of tf_keras")
    return model


def _objects(module: Any) -> dict[str, Any]:
    """Return the classes and functions of the user, as :mod:`.custom_objects` finds them."""
    import tf_keras

    objects = own_objects(module)
    for name in ("CuDNNLSTM", "CuDNNGRU"):
        objects.setdefault(name, getattr(tf_keras.layers, name))
    objects.setdefault(WRAPPER, pruning_wrapper.wrapper_class())
    for value in list(objects.values()):
        registered = tf_keras.utils.get_registered_name(value)
        objects.setdefault(registered, value)
        objects.setdefault(registered.rsplit(">", 1)[-1], value)
    chosen = getattr(module, "custom_objects", None)
    for name, value in chosen.items() if isinstance(chosen, dict) else ():
        if isinstance(value, str):  # the one of Keras
            objects.pop(name, None)
        else:
            objects[name] = value
    return objects


@contextlib.contextmanager
def _nothing_stored_runs() -> Iterator[None]:
    """Refuse the code in a model file, and imports of modules that it names."""
    import tf_keras
    from tf_keras.src.saving import serialization_lib
    from tf_keras.src.utils import generic_utils

    def refused(*_: Any, **__: Any) -> Any:
        raise NotLoadedError("it contains a Lambda layer, whose stored code is not run")

    class Importlib:
        @staticmethod
        def import_module(name: str) -> Any:
            if not is_keras_module(name):
                raise NotLoadedError(f"the file names the module {name}")
            return importlib.import_module(name)

    with (
        mock.patch.object(generic_utils, "func_load", refused),
        # It may also name a function of a module.
        mock.patch.object(tf_keras.layers.Lambda, "from_config", refused),
        mock.patch.object(serialization_lib, "importlib", Importlib),
    ):
        yield


@contextlib.contextmanager
def _arguments_restored() -> Iterator[None]:
    """Let tf_keras build the model that was saved; see :mod:`.configs_for_tf_keras`."""
    from tf_keras.src.engine import functional

    build = functional.reconstruct_from_config

    def build_as_saved(config: Any, *args: Any, **kwargs: Any) -> Any:
        return build(configs_for_tf_keras.with_arguments(config), *args, **kwargs)

    with mock.patch.object(functional, "reconstruct_from_config", build_as_saved):
        yield


@contextlib.contextmanager
def _copies_separate() -> Iterator[None]:
    """Let copies that the constructor of a class makes of its layer have their own parts.

    They have when the model is created and saved. While it loads a ``.keras`` file, tf_keras lets
    the layers inside ``TimeDistributed.from_config(layer.get_config())`` be one, because it marks a
    layer whose config it creates for the second time as shared.
    """
    from tf_keras.src.saving import serialization_lib

    record = serialization_lib.record_object_after_serialization

    def not_marked(layer: Any, config: Any) -> None:
        serialization_lib.SHARED_OBJECTS.id_to_config_map = {}
        record(layer, config)

    with mock.patch.object(serialization_lib, "record_object_after_serialization", not_marked):
        yield


def predicted(model: Any, inputs: Any, *, by_name: bool) -> list[Any]:
    """Return the outputs as arrays, in the order of tf.nest."""
    import tensorflow as tf

    compute_in_float32(model)
    flat = tf.nest.flatten(inputs)
    size = _batch_size(model) or len(flat[0])
    parts = []
    for start in range(0, len(flat[0]), size):
        rows = np.arange(start, start + size) % len(flat[0])
        part = tf.nest.map_structure(lambda array, rows=rows: array[rows], inputs)
        if getattr(model, "stateful", False):
            model.reset_states()
        values = tf.nest.flatten(_result(model, part, by_name=by_name))
        parts.append([np.asarray(value, "float64") for value in values])
    return [np.concatenate(items)[: len(flat[0])] for items in zip(*parts, strict=True)]


def compute_in_float32(model: Any) -> None:
    """Let a model compute as the loaded one, which has no half precision."""
    for layer in model._flatten_layers():
        if "float16" in str(layer.compute_dtype):
            layer._set_dtype_policy("float32")


def _batch_size(model: Any) -> int | None:
    """Return the number of samples that a model takes, if it is fixed."""
    sizes = [tensor.shape[0] for tensor in model.inputs or ()]
    return next((size for size in sizes if size is not None), None)


def _result(model: Any, inputs: Any, *, by_name: bool) -> Any:
    if by_name:
        return called(model, inputs, by_name=by_name)
    with contextlib.suppress(Exception):
        return model.predict_on_batch(_reference(model, inputs))
    return called(model, inputs, by_name=by_name)


def called(model: Any, inputs: Any, *, by_name: bool) -> Any:
    import tensorflow as tf

    inputs = tf.nest.map_structure(tf.convert_to_tensor, _reference(model, inputs))
    return model(**inputs, training=False) if by_name else model(inputs, training=False)


def _reference(model: Any, inputs: Any) -> Any:
    """Return inputs in the structure with which a functional model was created."""
    import tensorflow as tf

    if not model.inputs or not hasattr(model, "_nested_inputs") or model._nested_inputs is None:
        return inputs
    names = [tensor.name for tensor in model.inputs]
    given = inputs if isinstance(inputs, Mapping) else {}
    flat: Sequence[Any] = tf.nest.flatten(inputs)
    if set(names) == set(given):
        flat = [given[name] for name in names]
    return tf.nest.pack_sequence_as(model._nested_inputs, flat)


def reason(error: BaseException) -> str:
    """Return one short line: the error, and where in the user's file it occurred."""
    inner = error_text.of_user_code(str(error))
    if inner is not None:
        text, place = inner
        return error_text.beginning(text, _LONGEST).rstrip(" .:") + place
    # Keras puts other errors between texts of its own.
    parts = re.split(r"Exception encountered: |\n\n", str(error).strip())
    of_call = len(parts) > 1 and parts[0].startswith("Exception encountered when")
    text = parts[-1] if "Exception encountered: " in str(error) else parts[1 if of_call else 0]
    # A message about an import contains the path of tf_keras.
    text = re.sub(r" \(/[^)]*\)", "", next(iter(text.splitlines()), ""))
    # TensorFlow's about an operation begin with its place in the graph.
    text = re.sub(r"\{\{\w+ \S*\}\} ?", "", text)
    text = error_text.beginning(text, _LONGEST).rstrip(" .:")
    kind = "" if isinstance(error, NotLoadedError) else type(error).__name__
    return ": ".join(filter(None, (kind, text))) + own_files.place(error)
