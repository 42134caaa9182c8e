"""Read the layers of a Keras 2 SavedModel folder. Its TensorFlow graph is never loaded or run.

Keras stores the config of every layer beside the graph, in ``keras_metadata.pb`` or, before
TensorFlow 2.5, in ``saved_model.pb``. The field numbers are those of TensorFlow's
``saved_metadata.proto``, ``saved_model.proto`` and ``saved_object_graph.proto``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners.protobuf import BYTES, fields
from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.config_inspection import is_model
from edgeattn_converters.loading.formats import other_files
from edgeattn_converters.loading.formats.json_config import parse_config, parse_object
from edgeattn_converters.loading.safety import size_limits
from edgeattn_converters.loading.safety.size_limits import FileLimits

VARIABLES = "variables/variables"
SAVE_AS_FILE = "Load the model in Keras and save it as one file: model.save('model.keras')"
_COPY_AGAIN = "Download or copy the folder again: it is damaged."
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
# The state of a tf.random.Generator, which layers draw from in training; Keras 2 does not list it.
_RANDOM_STATE = "/_state_var"


def inspect(path: Path) -> tuple[str | None, str | None, Mapping[str, Any]]:
    """Keras version, backend and configuration of the model in a folder.

    The configuration is empty if the folder contains a graph only, or a subclassed model. Raises
    :class:`UnsupportedModelError` if there are no variables, and :class:`UnsafeModelError` if a
    file is too large.
    """
    _require_no_pointers(path)
    if not (path / f"{VARIABLES}.index").is_file():
        raise UnsupportedModelError(
            f"The SavedModel {path.name} contains no weights: {VARIABLES}.index is missing.",
            hint=SAVE_AS_FILE,
        )
    stored = _first_config(path)
    version, backend = stored.get("keras_version"), stored.get("backend")
    config: dict[str, Any] = {}
    if is_model(stored):
        config = {key: stored[key] for key in ("class_name", "config")}
        config["keras_version"] = version
    return (
        version if isinstance(version, str) else None,
        backend if isinstance(backend, str) else None,
        config,
    )


def _require_no_pointers(path: Path) -> None:
    """Raise :class:`UnsupportedModelError` if a file of a folder is in Git LFS only."""
    for file in sorted((*path.glob("*.pb"), *path.glob(f"{VARIABLES}.*"))):
        with file.open("rb") as opened:
            head = opened.read(len(other_files.LFS_POINTER))
        if head == other_files.LFS_POINTER:
            raise UnsupportedModelError(
                f"{file.relative_to(path)} in the SavedModel {path.name} is a Git LFS pointer.",
                hint=other_files.PULL,
            )


def reason_for_graph(path: Path) -> str:
    """Return the sentence that says why the graph of an audited folder is the model."""
    stored = _first_config(path)
    # Only models have the key, layers do not.
    if stored.get("is_graph_network") is not False or is_model(stored):
        return "The folder does not list Keras layers."
    return (
        f"The folder lists the layers of a model of the class {stored['class_name']}, but not how "
        "it calls them."
    )


def _first_config(path: Path) -> Mapping[str, Any]:
    """Return what is stored for the first Keras object of a folder, the model; empty if none."""
    for text in _metadata(path):
        if '"class_name"' in text:
            limits = FileLimits(path.name)
            stored = parse_object(text, limits)
            if stored.get("is_graph_network") is not False or "class_name" not in stored:
                return parse_config(text, limits)
            # TensorFlow 2.0 and 2.1 store no config of a subclassed model.
            return {"config": {}, **stored}
    return {}


def _metadata(path: Path) -> Iterator[str]:
    """Yield the JSON texts stored for the objects of a folder, that of the model first."""
    keras_metadata = path / "keras_metadata.pb"
    try:
        if keras_metadata.is_file():
            for node in _fields(_read(keras_metadata), 1):
                yield from _texts(node, 5)
            return
        for meta_graph in _fields(_read(path / "saved_model.pb"), 2):
            for objects in _fields(meta_graph, 7):
                for node in _fields(objects, 1):
                    for user_object in _fields(node, 4):
                        yield from _texts(user_object, 3)
    except ValueError as error:
        raise UnsupportedModelError(
            f"The SavedModel {path.name} is damaged: {error}", hint=_COPY_AGAIN
        ) from error


def _read(file: Path) -> bytes:
    size = file.stat().st_size
    FileLimits(file.name, SAVE_AS_FILE).require(
        size <= size_limits.MAX_CONFIG_BYTES * 4, f"it has {size} bytes"
    )
    return file.read_bytes()


def _texts(message: bytes, number: int) -> Iterator[str]:
    for value in _fields(message, number):
        yield value.decode("utf-8", errors="replace")


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """Yield the values of one length-delimited field of a protobuf message."""
    for field, wire_type, start, end in fields(message, 0, len(message)):
        if field == number and wire_type == BYTES:
            yield message[start:end]


def read_variables(path: Path) -> Mapping[str, Any]:
    """The arrays of the checkpoint in a folder by their path in the object graph, without states
    of random numbers; :class:`UnsupportedModelError` if it is damaged."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(path / VARIABLES))
        names = [
            name for name in reader.get_variable_to_shape_map()
            if name.endswith(_SUFFIX) and not name.endswith(f"{_RANDOM_STATE}{_SUFFIX}")
            and "/.OPTIMIZER_SLOT/" not in name
        ]  # fmt: skip
        return {name.removesuffix(_SUFFIX): reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise UnsupportedModelError(
            f"Cannot read the variables of the SavedModel {path.name}: "
            f"{error_text.beginning(error, 200)}",
            hint=_COPY_AGAIN,
        ) from error
