"""Modules of Keras 1 and 2 that programs and classes of the user import.

Keras 3 has most of them under other names, such as the layers in one module.
"""

import contextlib
import importlib
import importlib.machinery
import inspect
import operator
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from types import FunctionType, ModuleType
from typing import Any
from unittest import mock

from edgeattn_converters.loading.legacy import tensorflow_core, training_names

# Names under which programs import Keras.
_ROOTS = re.compile(
    r"((keras|tf_keras|tensorflow\.(compat\.v[12]\.)?keras|tensorflow(_core)?\.python\.keras|"
    r"tensorflow_core\.keras)(\.api(\._v[12])?(\.keras)?)?|"
    r"tensorflow\.contrib\.keras(\.(api|python)\.keras)?)(\.|$)"
)
# Keras of TensorFlow 1.0 to 1.3 was a part of this package, which is in no later version.
CONTRIB = "tensorflow.contrib"
_PARENTS = frozenset({CONTRIB, *(f"{CONTRIB}.keras.{name}" for name in ("api", "python"))})
# The private copy of Keras 2 in TensorFlow, whose layers Keras 3 does not accept, and the package
# of TensorFlow 1.15 to 2.1.
_PRIVATE = ("tensorflow.python.keras", "tensorflow_core.python.keras", "tensorflow_core.keras")
# The package that continues Keras 2, and its implementation, which has helpers of Keras 2.
_PACKAGE, _IMPLEMENTATION = "tf_keras", "tf_keras.src"
# Modules whose attribute ``keras`` an import would replace.
_IN_TENSORFLOW = ("tensorflow.python", "tensorflow.compat.v1", "tensorflow.compat.v2")
# Modules that were attributes of others, without an import.
_ATTRIBUTES = frozenset(
    {"keras.api", "keras.engine", "keras.objectives", "keras.initializations",
     "keras.backend.common", "keras.backend.tensorflow_backend", "keras.utils.np_utils",
     "keras.utils.generic_utils", "keras.utils.data_utils", "keras.utils.layer_utils",
     "keras.utils.vis_utils", "keras.mixed_precision.experimental",
     *(f"keras.layers.{name}" for name in
       ("advanced_activations", "convolutional", "convolutional_recurrent", "core",
        "cudnn_recurrent", "embeddings", "experimental", "local", "noise", "normalization",
        "pooling", "preprocessing", "recurrent", "wrappers"))}
)  # fmt: skip
_RENAMED = {"objectives": "losses", "initializations": "initializers"}
# Modules of Keras 1 and 2 with layers, models and inputs.
_OF_LAYERS = frozenset({"engine", "layers", "legacy", "feature_column"})


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Let programs import the modules of Keras 1 and 2, after :func:`.legacy_backend.provide`."""
    with mock.patch.dict(sys.modules), contextlib.ExitStack() as stack:
        for name in filter(_is_replaced, list(sys.modules)):
            del sys.modules[name]
        for name in _IN_TENSORFLOW:
            # tensorflow.compat.v1 has this name in sys.modules once it is imported only.
            path = name.removeprefix("tensorflow.")
            parent = sys.modules.get(name) or operator.attrgetter(path)(sys.modules["tensorflow"])
            if hasattr(parent, "keras"):
                module = _module(f"{name}.keras")
                stack.enter_context(mock.patch.object(parent, "keras", module))
        stack.enter_context(
            mock.patch.object(sys.modules["tensorflow"], "contrib", _module(CONTRIB), create=True)
        )
        others = [tensorflow_core.Finder(), *sys.meta_path]
        finders = [_Finder(_is_replaced), *others, _Finder(_is_of_keras)]
        stack.enter_context(mock.patch.object(sys, "meta_path", finders))
        for module in _places():
            stack.enter_context(
                mock.patch.object(module, "__getattr__", _attribute(module), create=True)
            )
        yield


def _places() -> list[ModuleType]:
    """The modules of Keras 3 whose attributes programs take for modules of Keras 1 and 2."""
    import keras
    import tensorflow as tf

    return [
        *(keras, keras.layers, keras.utils, keras.backend, keras.mixed_precision),
        *(tf.keras.layers, tf.keras.utils, tf.keras.mixed_precision),
    ]


def _attribute(module: ModuleType) -> Callable[[str], Any]:
    """Find a module of Keras 1 and 2 that is used without its import: ``keras.layers.core``."""
    prefix = re.sub(r"^(keras\._tf_keras|tensorflow)\.", "", module.__name__)
    of_module = vars(module).get("__getattr__")

    def find(name: str) -> Any:
        if f"{prefix}.{name}" in _ATTRIBUTES:
            return importlib.import_module(f"{prefix}.{name}")
        if of_module is not None:
            return of_module(name)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    return find


class _Module(ModuleType):
    """A module of Keras 1 or 2; ``keras.layers.merge`` was a function, too."""

    def __getattr__(self, name: str) -> Any:
        full = f"{self.__name__}.{name}"
        is_name = not name.startswith("_") and _ROOTS.match(full)
        if is_name and full not in _PARENTS and _parts(full)[0] in training_names.PACKAGES:
            return training_names.Unused(full)
        if not name.startswith("_") and _is_of_keras(full):
            # Programs that have run find no other modules.
            with contextlib.suppress(ModuleNotFoundError):
                return importlib.import_module(full)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return vars(self)["merge"](*arguments, **named)


class _Finder(MetaPathFinder, Loader):
    """Finds modules of Keras 1 and 2, those whose name ``finds`` accepts, in those of Keras 3."""

    def __init__(self, finds: Callable[[str], bool]) -> None:
        self._finds = finds

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module that is made here, None for others."""
        if not self._finds(fullname):
            return None
        if fullname == _PACKAGE and _IMPLEMENTATION not in sys.modules:
            self._import_implementation()
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def _import_implementation(self) -> None:
        """Import the implementation of the package, which cannot be found below another module."""
        others = [finder for finder in sys.meta_path if finder is not self]
        with mock.patch.object(sys, "meta_path", others), contextlib.suppress(ImportError):
            importlib.import_module(_PACKAGE)
        # Those of other packages may be parents of a module that is being imported.
        for name in list(sys.modules):
            if _is_in(name, _PACKAGE) and _is_replaced(name):
                del sys.modules[name]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return the module."""
        return _module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module is complete."""


def _is_replaced(name: str) -> bool:
    """Return whether a module of another Keras is replaced by one with what Keras 3 has of it."""
    if any(_is_in(name, package) for package in _PRIVATE):
        return True
    return _is_in(name, _PACKAGE) and not _is_in(name, _IMPLEMENTATION) and _is_of_keras(name)


def _is_in(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def _is_of_keras(name: str) -> bool:
    return name in _PARENTS or (bool(_ROOTS.match(name)) and _target(name) is not None)


def _module(name: str) -> ModuleType:
    """A module ``name`` with what Keras 3 has of it."""
    module = _Module(name)
    vars(module).update(
        {
            key: value
            for key, value in (_target(name) or {}).items()
            if key == "__version__" or not key.startswith("__")
        }
    )
    return module


def _target(name: str) -> dict[str, Any] | None:
    """What a module of Keras 1 or 2 contains in Keras 3, None if there is nothing of it."""
    import keras

    if name in _PARENTS:
        return {}
    parts = _parts(name)
    if parts == [""]:
        return vars(keras)
    if parts[0] in training_names.PACKAGES:
        return {}
    if parts == ["mixed_precision", "experimental"]:
        now = keras.mixed_precision
        renamed = {"set_policy": now.set_global_policy, "global_policy": now.global_policy}
        return {**vars(now), **renamed}
    # "from keras.layers import CuDNNLSTM" looks for a module of that name, too.
    if any(part != part.lower() for part in parts):
        return None
    if parts[0] in _OF_LAYERS:
        models = {key: getattr(keras, key) for key in ("Input", "InputSpec", "Model", "Sequential")}
        bases = {
            "Container": keras.Model,
            "Network": keras.Model,
            "_Merge": keras.layers.Add.__base__,
        }
        return {**vars(keras.layers), **models, **bases}
    if parts[0] == "utils" and all(part.endswith(("_utils", "_util")) for part in parts[1:]):
        # It converted shapes to tuples, which they are in Keras 3.
        own = {
            "shape_type_conversion": lambda function: function,
            "has_arg": _has_argument,
            **dict.fromkeys(("plot", "print_summary"), training_names.nothing),
        }
        return {**_utilities(parts[1:]), **vars(keras.utils), **own}
    if parts[0] == "backend":
        return vars(keras.backend)
    if parts[0] == "preprocessing":
        return _of_preprocessing(parts[1:])
    found = getattr(keras, _RENAMED.get(parts[0], parts[0]), None)
    return vars(found) if isinstance(found, ModuleType) and len(parts) == 1 else None


def _parts(name: str) -> list[str]:
    """The parts of the name of a module behind that of Keras."""
    return name[_ROOTS.match(name).end() :].split(".")  # type: ignore[union-attr]


def _of_preprocessing(parts: Sequence[str]) -> dict[str, Any] | None:
    """What ``tf.keras`` has of a module that prepares data."""
    import tensorflow as tf

    found = tf.keras.preprocessing
    for part in parts:
        found = getattr(found, part, None)
    return vars(found) if isinstance(found, ModuleType) else None


def _has_argument(function: Any, name: str, accept_all: bool = False) -> bool:
    """Whether a function takes an argument; ``call`` of a layer may be a wrapped function."""
    parameters = inspect.signature(function).parameters
    if name in parameters:
        return parameters[name].kind in (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        )
    kinds = [parameter.kind for parameter in parameters.values()]
    return accept_all and inspect.Parameter.VAR_KEYWORD in kinds


def _utilities(path: Sequence[str]) -> dict[str, Any]:
    """The functions of a module of ``keras.utils`` of Keras 2, such as ``conv_utils``."""
    if len(path) != 1:
        return {}
    name = f"tf_keras.src.utils.{path[0]}"
    try:
        functions = vars(importlib.import_module(name))
    except ImportError:
        return {}
    return {
        key: value
        for key, value in functions.items()
        if isinstance(value, FunctionType) and value.__module__ == name
    }
