"""Models for Keras 2 that Keras 3 cannot run, as the graph that tf_keras computes for them.

tf_keras, in a process of its own, builds the model, loads the file and saves the graph, which then
is the model like that of a SavedModel folder without Keras layers.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import EdgeattnError, UnsupportedModelError, UsageError
from edgeattn.printable import enumerated, join_lines
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.comparison_samples import SAMPLES
from edgeattn_converters.loading.keras_3_failures import Keras3Error
from edgeattn_converters.loading.loaded_model import LoadedModel, LoadRequest
from edgeattn_converters.loading.migrate.tensorflow_layers import (
    is_tensorflow_layer,
    only_computes,
)
from edgeattn_converters.loading.output_differences import TOLERANCE, difference
from edgeattn_converters.loading.signatures import signature
from edgeattn_converters.loading.with_tf_keras import tf_keras_process
from edgeattn_converters.loading.with_tf_keras.tf_keras_process import UserProgram, version_of

_FILES = ("keras-hdf5", "keras-zip", "weights-hdf5")
# The first tf.keras with the defaults of tf_keras. The Keras before it, and the package keras until
# 2.3, had other ones, such as recurrent_activation="hard_sigmoid", on which programs and layers
# that classes create rely. Keras 2.2.4-tf is both that of TensorFlow 1 and 2. Whole files contain
# the arguments of their layers, but not of those inside classes.
_SAME_DEFAULTS, _SAME_IN_TENSORFLOW = (2, 4), (2, 3)
# The first version whose groups in .keras and .weights.h5 files are those of tf_keras.
_SAME_GROUPS = (2, 15)

# The name of the folder that contains the graph.
_FOLDER = "graph"
_STATE_RESET = (
    "was stateful; every sequence starts from the initial state, without --states in a graph."
)


class NotUsedError(UnsupportedModelError):
    """The graph is not known to compute what the trained model did; the message is the reason."""


def load_graph(
    file: ModelFile,
    program: UserProgram,
    samples: Mapping[str, Any],
    request: LoadRequest,
    failure: Keras3Error,
) -> LoadedModel | None:
    """Load a model of the user's program or classes, which Keras 3 cannot load.

    ``samples`` are those of the user by name, and ``failure`` is the error of Keras 3. None if
    tf_keras may compute something else than the Keras that saved the file. Raises
    :class:`NotUsedError` if tf_keras cannot load the model either, or if its graph is not known to
    compute what the trained model did, see :mod:`.tf_keras_export`, and :class:`UsageError` if the
    number of time steps is free and not given.
    """
    if not _is_of_same_keras(file, program) or not _only_computes(program.config or file.config):
        return None
    with tempfile.TemporaryDirectory(prefix="edgeattn-graph-") as name:
        folder = Path(name) / _FOLDER
        source = {
            **tf_keras_process.source_of(file, program),
            "folder": str(folder),
            "time_steps": request.time_steps,
            "version": bool(version_of(file, program)),
            "activations": sorted(_activations(program.config or file.config)),
        }
        given = {key: np.asarray(array[:SAMPLES]) for key, array in samples.items()}
        try:
            result, arrays = tf_keras_process.call(
                "edgeattn_converters.loading.with_tf_keras.tf_keras_export:export", source, given
            )
            if result["failure"] is not None:
                fails = program.function is None and not result["loads"]
                raise NotUsedError(result["failure"], hint=_weights_of(file) if fails else None)
            # Variables are read here, so nothing needs the folder later.
            model, notes = signature.load_signature(
                folder, request.time_steps, allow_free_time=request.allow_free_time
            )
            _require_equal(model, result["groups"], arrays)
        except (UsageError, NotUsedError):
            raise
        except EdgeattnError as error:
            raise NotUsedError(_of_graph(error.message)) from error
    own_notes = _notes(program, failure, result, has_version=bool(source["version"]))
    return LoadedModel(file, model, (*own_notes, *notes[1:]))


def _is_of_same_keras(file: ModelFile, program: UserProgram) -> bool:
    """Return whether tf_keras computes as the Keras that saved a file, and loads its weights."""
    if program.script is None or file.kind not in _FILES:
        return False
    version = version_of(file, program)
    source = tf_keras_process.source_of(file, program)
    if not version:
        # Only files of weights of Keras 3 and tf_keras lack it, whose layouts are compared.
        return file.kind == "weights-hdf5" and source["suffix"] != ".h5"
    if version >= (3,):
        return False
    of_tensorflow = str(file.keras_version).endswith("-tf")
    defaults = _SAME_IN_TENSORFLOW if of_tensorflow else _SAME_DEFAULTS
    return version >= (defaults if source["suffix"] == ".h5" else _SAME_GROUPS)


def _only_computes(stored: Any) -> bool:
    """Return whether all functions of TensorFlow that a stored config names are known to compute.

    tf_keras calls any function by its name.
    """
    if isinstance(stored, list):
        return all(map(_only_computes, stored))
    if not isinstance(stored, Mapping):
        return True
    if is_tensorflow_layer(str(stored.get("class_name"))) and not only_computes(stored):
        return False
    return all(map(_only_computes, stored.values()))


def _activations(stored: Any) -> Iterator[str]:
    """Yield the names of activations in a stored config, at any depth."""
    if isinstance(stored, list):
        for item in stored:
            yield from _activations(item)
    elif isinstance(stored, Mapping):
        for key, value in stored.items():
            if str(key).endswith("activation") and isinstance(value, str):
                yield value
            yield from _activations(value)


def _require_equal(model: Any, groups: int, arrays: Mapping[str, Any]) -> None:
    """Raise an error unless the loaded graph computes what ``predict`` of tf_keras did."""
    for group in range(groups):
        expected = _of_group(arrays, f"{group}/outputs/")
        inputs = _of_group(arrays, f"{group}/inputs/")
        try:
            outputs = model({name: inputs[name] for name in model.input}, training=False)
        except Exception as error:  # TensorFlow's have no public base class
            raise NotUsedError("it fails in another process") from error
        actual = [np.asarray(outputs[name], "float64") for name in expected]
        if difference([actual], [list(expected.values())]).error > TOLERANCE:
            raise NotUsedError("it computes something else in another process")


def _of_group(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found = {key: array for key, array in arrays.items() if key.startswith(prefix)}
    return {key.removeprefix(prefix): array for key, array in found.items()}


def _notes(
    program: UserProgram, failure: Keras3Error, result: Mapping[str, Any], *, has_version: bool
) -> tuple[str, ...]:
    of = f"tf_keras {result['version']}"
    kind = "program" if program.function is not None else "model"
    notes = [
        f"The {kind} does not run in Keras 3: {_in_one_line(failure.message)} The model is the "
        f"graph that {of} computes for it; the artifacts are compared with that. A graph has no "
        "Keras layers, which inspect would list and --lowering arrange. Attention maps are those "
        "that are found in the graph."
    ]
    if not has_version:
        notes.append(
            "The file does not contain its Keras version. No other Keras 2 would load other "
            "weights from it into the program, which therefore computes as in tf_keras."
        )
    if result["unknown"]:
        listed = enumerated(list(map(repr, result["unknown"])))
        notes.append(
            f"The outputs {listed} of the graph were not compared with predict of {of}: there are "
            "values that are NaN or infinite for all samples."
        )
    notes += [f"{name}: {_STATE_RESET}" for name in result["stateful"]]
    return (*notes, *([result["note"]] if result["note"] else []))


def _weights_of(file: ModelFile) -> str | None:
    """How to convert a whole file that tf_keras does not load, but the model of its program."""
    if file.kind == "weights-hdf5":
        return None
    return (
        "tf_keras does not load the file either. If a program builds the model, save its weights "
        f"with tf_keras: model = build(); model.load_weights({file.path.name!r}); "
        "model.save_weights('weights.h5'), and convert that file with --architecture "
        "PROGRAM.py:build."
    )


def with_reason(failure: Keras3Error, error: NotUsedError) -> Keras3Error:
    """Return the error of Keras 3 with the reason for which the graph was not used, if another.

    Its hint then precedes the other one.
    """
    reason, hint = error.message, failure.hint
    # The error that the same line of the program raises in tf_keras.
    text = re.sub(r"^\w+: | \([^()]+, line \d+\)$", "", reason).replace("tf_keras", "keras")
    if text in " ".join(failure.message.split()):
        return failure
    if error.hint:
        hint = f"{error.hint} Or {hint[0].lower()}{hint[1:]}" if hint else error.hint
    line = f"The graph of tf_keras was not used: {_in_one_line(reason)}"
    return type(failure)(join_lines([failure.message, line]), hint=hint)


def _of_graph(message: str) -> str:
    """Return the message about a folder as one about the graph: "it changes a variable"."""
    message = re.sub(rf"^The SavedModel {_FOLDER} ", "it ", message)
    return message.removeprefix(f"Refused {_FOLDER}: ")


def _in_one_line(message: str) -> str:
    line = " ".join(message.split())
    return line if line.endswith((".", "…")) else f"{line}."
