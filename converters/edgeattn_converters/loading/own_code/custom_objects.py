"""The user's own classes and functions, from the Python file passed with ``--custom-objects``.

A model file may name any module; modules are never imported because a model file names them.
"""

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeattn.errors import EdgeattnError, UsageError
from edgeattn_converters.loading.config_inspection import registered_name, unqualified
from edgeattn_converters.loading.keras_3_failures import Keras3ProgramError
from edgeattn_converters.loading.legacy import legacy_layers, legacy_modules
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.own_code import (
    local_packages,
    own_files,
    own_functions,
    registrations,
    undefined_names,
)
from edgeattn_converters.loading.own_code.own_classes import is_of_library, own_objects
from edgeattn_converters.loading.safety.allowed_classes import is_keras_module
from edgeattn_converters.loading.safety.size_limits import MAX_SOURCE_BYTES

# The option whose files build models; those of the other one define classes.
_BUILDS_MODELS = "--architecture"


def load_module(path: Path, *, option: str, program: Program | None = None) -> Any:
    """Run a Python file of the user and return it as a module; :class:`UsageError` if it fails.

    The file may use the backend and the modules of Keras 2. The default dtype of Keras is float32
    afterwards, whatever the file sets. ``program`` is what is known about the file.
    """
    import keras

    if not path.is_file():
        raise UsageError(f"{option}: no such file: {path}.", hint="Pass the path of a Python file.")
    check_size(path, option=option)
    name = local_packages.module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(
            f"{option}: {path.name} is not a Python file.", hint="Pass a file that ends in .py."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    floats = keras.config.floatx()
    try:
        with (
            registrations.recorded(path),
            legacy_layers.usable(program),
            local_packages.importable(path),
        ):
            spec.loader.exec_module(module)
    except Exception as error:
        is_final = isinstance(error, EdgeattnError)
        raise (UsageError if is_final else Keras3ProgramError)(
            f"{option}: {path.name} failed with {type(error).__name__}: "
            f"{' '.join(str(error).split())}{own_files.place(error)}",
            hint=_hint(error, path, option),
        ) from error
    finally:
        keras.config.set_floatx(floats)
    return module


def _hint(error: Exception, path: Path, option: str) -> str:
    """Return what to do about an error of the user's code."""
    import keras

    importing, _ = own_files.last_line(error) or (path.name, 0)
    needed = "only what the layers of the model use is needed."
    if isinstance(error, ImportError) and is_keras_module(str(error.name)):
        package = own_files.installed_package(error)
        if package is not None and not is_of_library(package):
            return (
                f"Keras {keras.__version__} does not have it, and the package {package} needs it. "
                f"Remove the import of {package} from {importing}; {needed}"
            )
        return (
            f"Keras {keras.__version__} does not have it. Remove the import from {importing}, or "
            f"import it from where Keras has it now; {needed}"
        )
    if f"'{legacy_modules.CONTRIB}" in str(error):
        return (
            "No package has tensorflow.contrib, which was a part of TensorFlow 1; of it, edgeattn "
            f"provides tensorflow.contrib.keras only. Remove the import from {importing}: {needed}"
        )
    if not isinstance(error, ModuleNotFoundError):
        return undefined_names.hint(error) or f"Try: python {path}"
    if error.name == "attention":
        own = f"If attention.py is a file of yours, put it beside {importing}. "
        if option != _BUILDS_MODELS:
            return (
                f"{own}If it is the package from PyPI, remove the import from {importing}: "
                "edgeattn reads the layers of that package without it."
            )
        return (
            f"{own}If it is the package from PyPI, write in {importing}: from edgeattn.layers "
            "import Attention. Then add use_mask=False where the layer is created, because that "
            "of the package ignores masks: Attention(units=64, use_mask=False)"
        )
    if (package_hint := local_packages.hint(str(error.name), path)) is not None:
        return package_hint
    package, _, inner = str(error.name).partition(".")
    if package == "tensorflow_addons":
        return (
            "tensorflow_addons has no version for the current Keras. Remove the import from "
            f"{importing}, and write there what the layers of the model use of it: "
            "tfa.activations.gelu, for example, is tf.nn.gelu(x, approximate=True)."
        )
    if package == "tensorflow_model_optimization":
        return (
            f"Remove the import and the calls of {package} from {importing}: the .h5 weights of a "
            "model with pruning wrappers are loaded into the model without them."
        )
    if inner and local_packages.is_found(package, path):
        return (
            f"The package {package} is installed and has no module {inner}. Import what the layers "
            f"need from where it has it now, or remove the import from {importing}: {needed}"
        )
    return f"Install the package, or remove the import from {importing}: {needed}"


def check_size(path: Path, *, option: str) -> None:
    """Raise :class:`UsageError` if a file of source text is too large to be one."""
    size = path.stat().st_size
    if size > MAX_SOURCE_BYTES:
        raise UsageError(
            f"{option}: {path.name} has {size:,} bytes, over {MAX_SOURCE_BYTES:,}.",
            hint="Pass the file that describes the model, not its weights.",
        )


def load_custom_objects(path: Path | None, version: tuple[int, ...] = ()) -> Mapping[str, Any]:
    """Return the classes and functions that a file defines, by name.

    ``version`` is that of the Keras of the model, for models that the file builds itself.

    A dict ``custom_objects`` in the file adds to them, as for ``keras.models.load_model``, see
    :func:`.own_functions.with_choices`.
    """
    if path is None:
        return {}
    module = load_module(path, option="--custom-objects", program=Program(version or (3,)))
    objects = own_objects(module)
    objects |= _by_registered_name(objects)
    return own_functions.with_choices(objects, _chosen(module), path.name)


def registered_objects(path: Path | None) -> Mapping[str, Any]:
    """Return what a file, loaded by :func:`load_custom_objects`, has registered with Keras.

    The keys are registered names, see :mod:`.registrations`. The dict ``custom_objects`` in the
    file adds to them, and decides about names without a package.
    """
    if path is None:
        return {}
    module = sys.modules[local_packages.module_name(path)]
    chosen = _chosen(module)
    found = registrations.of_file(path, module).items()
    registered = {key: value for key, value in found if unqualified(key) not in chosen}
    return registered | {key: value for key, value in chosen.items() if callable(value)}


def _chosen(module: Any) -> dict[str, Any]:
    extra = getattr(module, "custom_objects", None)
    return {str(key): value for key, value in extra.items()} if isinstance(extra, dict) else {}


def _by_registered_name(objects: Mapping[str, Any]) -> dict[str, Any]:
    """The objects that were registered under another name, by that name without its package."""
    import keras

    registered = {
        unqualified(keras.saving.get_registered_name(value)): value for value in objects.values()
    }
    return {name: value for name, value in registered.items() if name not in objects}


def for_keras(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``custom_objects`` argument for Keras: own names and registered names.

    Names with a package are those that classes of the user look up themselves.
    """
    registered = {
        registered_name(name): value.function
        if isinstance(value, own_functions.UnclearFunction)
        else value
        for name, value in objects.items()
        if ">" not in name
    }
    return {**own_functions.plain(objects), **registered}


def parameters(cls: type) -> set[str]:
    """Return the constructor arguments of a class and those of its parents outside libraries."""
    names: set[str] = set()
    for parent in cls.__mro__:
        if is_of_library(parent.__module__):
            break
        if "__init__" in vars(parent):
            names |= set(inspect.signature(vars(parent)["__init__"]).parameters)
    return names


def accepts_keywords(cls: Any) -> bool:
    """Return whether the constructor of a class accepts keywords that it does not name."""
    kinds = {item.kind for item in inspect.signature(cls.__init__).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds
