"""The ``--architecture`` option: the model of a file that contains weights only."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgeattn.errors import EdgeattnError, UnsupportedModelError, UsageError
from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.build import build_sublayers, root_cause
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.formats.json_config import parse_config
from edgeattn_converters.loading.keras_3_failures import (
    Keras3Error,
    Keras3ModelError,
    Keras3ProgramError,
)
from edgeattn_converters.loading.lambdas.recognition import CodeTrust
from edgeattn_converters.loading.legacy import legacy_classes, legacy_layers, legacy_merge
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.own_code import (
    local_packages,
    own_files,
    own_functions,
    subclassed,
    undefined_names,
)
from edgeattn_converters.loading.own_code.custom_objects import check_size, load_module
from edgeattn_converters.loading.safety import config_screening
from edgeattn_converters.loading.safety.allowed_classes import is_keras_module
from edgeattn_converters.loading.safety.size_limits import FileLimits
from edgeattn_converters.loading.weights import from_archive, own_loading
from edgeattn_converters.loading.weights.assignment import (
    OTHER_ARCHITECTURE,
    require_values,
)
from edgeattn_converters.loading.weights.skipped_attributes import SkippedAttributeError
from edgeattn_converters.loading.weights.weights_file import open_weights


def check_architecture(file: ModelFile, architecture: str | None) -> None:
    """Require the option for files of weights only, and reject it for all others.

    Raises :class:`UnsupportedModelError` if the architecture is missing, and :class:`UsageError` if
    the file contains one.
    """
    if file.kind == "weights-hdf5" and architecture is None:
        raise UnsupportedModelError(
            f"{file.path.name} contains weights only, no architecture.",
            hint="Pass the architecture: --architecture FILE.json (from model.to_json()) or "
            "--architecture FILE.py:FUNCTION",
        )
    if file.kind != "weights-hdf5" and architecture is not None:
        raise UsageError(
            f"--architecture is for files that contain weights only; {file.path.name} has its own "
            "architecture.",
            hint="Leave --architecture out.",
        )


def read_architecture(path: Path, weights: ModelFile | None = None) -> Mapping[str, Any]:
    """Read and screen the JSON that ``model.to_json()`` writes.

    If the file of the weights is trusted, a function of the user may replace the code of a Lambda.

    Raises :class:`UsageError` if the file does not exist, :class:`UnsupportedModelError` if it is
    not the JSON of a model, and :class:`UnsafeModelError` if loading it could run, import, read or
    fetch something.
    """
    if not path.is_file():
        raise UsageError(
            f"--architecture: no such file: {path}.",
            hint="Pass FILE.json (from model.to_json()) or FILE.py:FUNCTION.",
        )
    check_size(path, option="--architecture")
    try:
        text = path.read_text("utf-8")
        if isinstance(inner := json.loads(text), str):
            text = inner  # JSON text that was dumped as JSON a second time, a common mistake
    except (ValueError, RecursionError) as error:
        raise UnsupportedModelError(
            f"{path.name} is not valid JSON: {error}", hint="Write it with model.to_json()."
        ) from error
    config = parse_config(text, FileLimits(path.name))
    trust = CodeTrust() if weights is None else CodeTrust(weights.sha256, weights.trusted)
    config_screening.screen(config, hint="", trusted=False, code=trust)
    return config


def load_weights(file: ModelFile, model: Any, version: tuple[int, ...] = ()) -> None:
    """Load a file of weights only into a built model, as the Keras ``version`` that saved it does.

    Raises :class:`UnsupportedModelError` if the weights do not fit the model.
    """
    try:
        if () < version < (3,):
            with open_weights(file) as weights:
                from_archive.assign_built(weights.source, model, version)
        else:
            _load_all(model, file)
    except Exception as error:
        is_final = isinstance(error, EdgeattnError) and not isinstance(error, Keras3Error)
        raise (UnsupportedModelError if is_final else Keras3ModelError)(
            f"The weights in {file.path.name} do not fit the model of --architecture: "
            f"{error_text.shortened(_reason(error), 400)}",
            hint=error.hint if isinstance(error, SkippedAttributeError) else OTHER_ARCHITECTURE,
        ) from error


def _load_all(model: Any, file: ModelFile) -> None:
    """Let Keras load a file; :class:`UnsupportedModelError` if a variable gets no value.

    Keras 3.15 only warns about layers in a container inside a container, whose weights former
    versions did not save.
    """
    import keras

    layers = own_loading.layers_of(model)
    with own_loading.recorded(model, layers) as assigned, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_weights(str(file.path))
    others = [item for item in model.weights if not isinstance(item, keras.Variable)]
    require_values(model, {id(item) for item in (*assigned, *others)})


def _reason(error: Exception) -> str:
    """Return the first of the reasons that Keras gives, without the list of all objects."""
    if isinstance(error, UnsupportedModelError):
        return error.message
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.split(" Target variable: | List of objects that could not be loaded", text)[0]
    return re.sub(r"^A total of .*? for object <(\w+) name=([^,>]+)[^>]*>: ", r"\1 '\2': ", text)


def built_in_config(model: Any) -> Config | None:
    """Return the config of a model of Keras' and edgeattn's layers, None for any other model.

    A config has only the names of functions, so a layer with one of the user's has none.
    """
    import keras

    from edgeattn_converters.loading.eras import masks_over_time

    for layer in legacy_merge.parts(model):
        module = type(layer).__module__
        built_in = (
            is_keras_module(module)
            or module.startswith("edgeattn.layers")
            or legacy_classes.is_legacy(layer)
        )
        if not built_in or isinstance(layer, keras.layers.Lambda):
            return None
        if own_functions.has_own_activation(layer):
            return None
    if not derives_from(model, "Functional", "Sequential"):
        return None
    if legacy_merge.has_function(model):
        return None
    stored = masks_over_time.as_layers(legacy_merge.stored(model))
    text = json.dumps(legacy_classes.under_old_names(stored))
    # Another function of the user, such as one that splits texts, or a mask of no layer.
    if any(f'"class_name": "{name}"' in text for name in ("function", "MaskOverTime")):
        return None
    return parse_config(text, FileLimits("--architecture"))


def function_model(
    architecture: str,
    samples: Mapping[str, Any] = MappingProxyType({}),
    program: Program | None = None,
) -> Any:
    """Return the model that a function of the user builds, or a variable of the file contains.

    Args:
        architecture: ``FILE.py:FUNCTION`` or ``FILE.py:VARIABLE``.
        samples: inputs of the model, whose shapes a subclassed model may need, by name.
        program: what is known about the program; its calls are recorded in it.

    Raises:
        UsageError: the function does not exist, fails or returns no built model.
    """
    import keras

    path, colon, name = architecture.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise UsageError(
            f"--architecture: {architecture!r} is neither FILE.json nor FILE.py:FUNCTION.",
            hint="Try: --architecture model.py:build",
        )
    program = program or Program()
    policy = keras.config.dtype_policy()
    try:
        module = load_module(Path(path), option="--architecture", program=program)
        function = getattr(module, name, None)
        if isinstance(function, keras.Model):
            model, origin = function, f"{name} is"
        else:
            model, origin = _call(function, path, name, program), f"{name}() returned"
    finally:
        keras.config.set_dtype_policy(policy)
    if legacy_merge.merged(model) and built_in_config(model) is None:
        raise UsageError(
            f"--architecture: {origin} a Sequential that starts with Merge, and it has layers or "
            "activations of your own, a Lambda, or a Merge whose mode is a function.",
            hint=f"Change {name}() so that it returns keras.Model(inputs, outputs).",
        )
    failure = None
    if hasattr(model, "load_weights"):
        failure = subclassed.create_weights(model, samples, program.notes)
        program.failure = failure
    if isinstance(model, keras.Model) and not subclassed.is_subclassed(model) and not model.weights:
        build_sublayers(model)  # those of a cell of the user, for example
    merges = legacy_merge.merged(model) is not None  # its weights may be in the branches only
    if not merges and not (hasattr(model, "load_weights") and getattr(model, "weights", None)):
        if failure is not None and samples:
            raise failure
        hint = "Give the model an Input layer, so that its weights exist."
        if subclassed.is_subclassed(model):
            hint = (
                "Call the model before the function returns it: model(keras.ops.zeros((1, ...))) "
                f"with the shape of its inputs. {subclassed.NO_SHAPE}"
            )
        raise UsageError(
            f"--architecture: {origin} {type(model).__name__}, not a built Keras model.", hint=hint
        )
    return model


def _call(function: Any, path: str, name: str, program: Program) -> Any:
    if not callable(function):
        raise UsageError(
            f"--architecture: {path} has no function {name!r}.",
            hint="Pass FILE.py:FUNCTION with a function that the file defines.",
        )
    import keras

    try:
        with legacy_layers.usable(program), local_packages.importable(Path(path)):
            return function()
    except EdgeattnError:
        raise
    except Exception as error:
        failed = own_files.last_function(error)
        if failed in ("", f"{name} in {Path(path).name}"):
            failed = f"{name}()"
        hint = f"Change {failed} so that it runs in Keras {keras.__version__}."
        if isinstance(error, TypeError) and f"{name}() missing" in str(error):
            hint = f"Make {name}() callable without arguments; it must return the model."
        hint = undefined_names.hint(error) or hint
        raise Keras3ProgramError(
            f"--architecture: {name}() failed with {root_cause(error)}{own_files.place(error)}",
            hint=hint,
        ) from error
