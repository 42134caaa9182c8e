"""Imports of Keras, under every name that programs use, as imports of tf_keras.

Only for the worker process that runs a program of the user with tf_keras. Keras 3 is never imported
there.
"""

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from edgeattn_converters.loading.legacy import (
    keras_shape,
    tensorflow_1,
    tensorflow_core,
    training_names,
)

_PACKAGE, _IMPLEMENTATION = "tf_keras", "tf_keras.src"
# Names under which programs import Keras, and where tf_keras has its modules.
_ROOTS = {
    "keras": _PACKAGE,
    "tensorflow.keras": _PACKAGE,
    "tensorflow.compat.v2.keras": _PACKAGE,
    "tensorflow.compat.v1.keras": "tf_keras.api._v1.keras",
    # The private copy of Keras 2 in TensorFlow, whose layers are no layers of tf_keras.
    "tensorflow.python.keras": _PACKAGE,
    "tensorflow_core.python.keras": _PACKAGE,
    "tensorflow_core.keras": _PACKAGE,
    _PACKAGE: _PACKAGE,
}
# Modules with what those of earlier versions had, which tf_keras has divided.
_PUBLIC = (
    *("layers", "models", "src.engine.base_layer", "src.engine.input_spec", "src.engine.training"),
    *("src.engine.input_layer", "src.engine.functional", "src.layers.rnn.rnn_utils"),
    *("src.utils.conv_utils", "src.utils.tf_utils", "src.utils.generic_utils", "utils", "backend"),
    *("src.backend", "activations", "initializers", "regularizers", "constraints", "losses"),
    *("metrics", "optimizers", "callbacks", "src.layers.serialization", ""),
)
# Modules that were attributes of others, without an import.
_ATTRIBUTES = {
    "": ("engine", "objectives", "legacy"),
    "utils": ("np_utils", "generic_utils", "conv_utils", "data_utils", "layer_utils", "vis_utils"),
    "layers": (
        *("advanced_activations", "convolutional", "convolutional_recurrent", "core"),
        *("cudnn_recurrent", "embeddings", "local", "merge", "noise", "normalization", "pooling"),
        *("recurrent", "wrappers"),
    ),
}
# Modules of Keras 1 and 2 that tf_keras does not have. Names with capitals are those of classes.
_OF_FORMER = re.compile(
    r"(engine|layers|legacy|utils|backend|models|objectives|initializations)(\.[a-z_0-9]+)*"
)
_RENAMED = {"objectives": "losses", "initializations": "initializers"}
# Modules that had the classes of all modules inside them.
_OF_LAYERS = re.compile(r"tf_keras\.src\.(engine$|layers\.)")
_IN_TENSORFLOW = re.compile(r"tensorflow\.(python|compat\.v[12])\.keras(\.|$)")


def provide() -> None:
    """Let all modules of Keras be those of tf_keras, in this process."""
    if any(name.split(".")[0] == "keras" for name in sys.modules):
        raise RuntimeError("Keras 3 is imported already.")
    import tensorflow as tf
    import tf_keras

    for name in filter(_IN_TENSORFLOW.match, list(sys.modules)):
        del sys.modules[name]
    tensorflow_1.provide()
    tensorflow_1.provide_settings(setattr)
    keras_shape.provide(tf.Tensor, tf.Variable, type(tf_keras.Input((1,))))
    for root in ("keras", "tensorflow.keras", "tensorflow.python.keras"):
        sys.modules[root] = tf_keras
    python = sys.modules.get("tensorflow.python")
    if python is not None:
        setattr(python, "keras", tf_keras)  # noqa: B010 -- mypy knows no such attribute
    # tf.keras loads itself when an attribute is read.
    assert tf.keras.layers.Layer is tf_keras.layers.Layer
    first = [_Finder(_ROOTS.keys() - {_PACKAGE}), tensorflow_core.Finder()]
    sys.meta_path[:] = [*first, *sys.meta_path, _Finder({_PACKAGE})]
    for module in _parents(tf, "backend"):
        setattr(module, "tf", tf)  # noqa: B010 -- mypy knows no such attribute
    for name, module in list(sys.modules.items()):
        if _OF_LAYERS.match(name) and not hasattr(module, "__getattr__"):
            setattr(module, "__getattr__", _Former(name).__getattr__)  # noqa: B010
    for module in (
        *_parents(tf, "utils"),
        importlib.import_module(f"{_PACKAGE}.src.utils.vis_utils"),
    ):
        training_names.provide_diagrams(module, setattr)
    for module in _parents(tf, "layers"):
        # The same computation with the kernels of GPUs; both read the weights of both.
        for name in ("LSTM", "GRU"):
            setattr(module, f"CuDNN{name}", getattr(module, name))
    for parent, names in _ATTRIBUTES.items():
        for module in _parents(tf, parent):
            for name in names:
                if not hasattr(module, name):
                    full = ".".join(filter(None, ("keras", parent, name)))
                    setattr(module, name, importlib.import_module(full))


def _parents(tf: Any, name: str) -> list[ModuleType]:
    """The modules of tf_keras of a name: ``tf.keras.layers`` is another one."""
    path = f"{_PACKAGE}.{name}" if name else _PACKAGE
    return [importlib.import_module(path), getattr(tf.keras, name) if name else tf.keras]


class _Finder(MetaPathFinder):
    def __init__(self, roots: Any) -> None:
        self._roots = roots

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root = next((r for r in self._roots if f"{fullname}.".startswith(f"{r}.")), None)
        if root is None:
            return None
        rest = fullname[len(root) + 1 :]
        if _module(_ROOTS[root], rest) is None and not _OF_FORMER.fullmatch(rest):
            return None
        return ModuleSpec(fullname, _Loader(root), is_package=True)


class _Loader(Loader):
    def __init__(self, root: str) -> None:
        self._root = root

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        rest = name[len(self._root) + 1 :]
        # Python returns what it finds there.
        sys.modules[name] = _module(_ROOTS[self._root], rest) or _Former(name)


def _module(package: str, rest: str) -> ModuleType | None:
    """Return the module ``rest`` of tf_keras, None if it has none of that name."""
    # Keras 2.6 to 2.12 had keras.api.keras, Keras 3.0 keras.api.
    rest = re.sub(r"^(src|api(\._v[12])?\.keras|api(?=\.(?!_v)))(\.|$)", "", rest)
    first, _, others = rest.partition(".")
    rest = ".".join(filter(None, (_RENAMED.get(first, first), others)))
    names = (".".join(filter(None, (root, rest))) for root in (package, _PACKAGE, _IMPLEMENTATION))
    return next((importlib.import_module(name) for name in names if _exists(name)), None)


def _exists(name: str) -> bool:
    """Return whether tf_keras itself has a module."""
    parent, _, _ = name.rpartition(".")
    if not parent:
        return True
    if not _exists(parent):
        return False
    path = getattr(importlib.import_module(parent), "__path__", None)
    return path is not None and PathFinder.find_spec(name, path) is not None


class _Former(ModuleType):
    """A module that tf_keras does not have: its names are looked up in those that it has."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for module in _public():
                if name in vars(module):
                    return vars(module)[name]
        raise AttributeError(f"tf_keras has no {name!r} as in {self.__name__}")


def _public() -> Iterator[ModuleType]:
    for name in _PUBLIC:
        yield importlib.import_module(f"{_PACKAGE}.{name}" if name else _PACKAGE)
