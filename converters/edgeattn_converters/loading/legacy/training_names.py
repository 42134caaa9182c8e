"""Names of Keras 1 and 2 that programs import and that concern training, data or drawing only.

Training has no effect on a model that is loaded: whatever Keras 3 does not have of it is replaced.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Modules of Keras 1 and 2 that Keras 3 does not have.
PACKAGES = frozenset({"estimator", "experimental", "premade", "wrappers"})
_MODULES = (
    *("callbacks", "datasets", "losses", "metrics", "optimizers", "optimizers.legacy"),
    *("preprocessing.image", "preprocessing.sequence", "preprocessing.text"),
)
_UTILITIES = ("GeneratorEnqueuer", "HDF5Matrix", "OrderedEnqueuer", "print_summary")
_DIAGRAMS = ("plot_model", "model_to_dot")
_OPTIMIZERS = ("Adadelta", "Adagrad", "Adam", "Adamax", "Nadam", "RMSprop", "SGD")


class Unused:
    """A function, class or object in place of one that Keras 3 does not have.

    It can be called, passed on and derived from, but nothing can be computed with it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_: Any, **__: Any) -> Unused:
        """Return what the function would have returned."""
        return Unused(f"{self._name}()")

    def __getattr__(self, name: str) -> Unused:
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no attribute {name!r}")
        return Unused(f"{self._name}.{name}")

    def __enter__(self) -> Unused:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        return (object,)

    def __repr__(self) -> str:
        return f"<{self._name}, which Keras 3 does not have>"


def provide_diagrams(utilities: ModuleType, replace: Callable[[Any, str, Any], None]) -> None:
    """Let functions that draw a model do nothing; the drawing may need other packages.

    ``replace`` sets an attribute of ``utilities``, a module ``keras.utils``.
    """
    for name in _DIAGRAMS:
        replace(utilities, name, Unused(f"keras.utils.{name}"))


def provide(replace: Callable[[Any, str, Any], None]) -> None:
    """Add the names to Keras 3; ``replace`` sets an attribute of a module."""
    import keras

    callback = keras.callbacks.Callback
    for root in ("keras", "tensorflow.keras"):
        backend = importlib.import_module(f"{root}.backend")
        # Of tensors of the model: programs observe them during training.
        replace(backend, "function", Unused("keras.backend.function"))
        utilities = importlib.import_module(f"{root}.utils")
        provide_diagrams(utilities, replace)
        for name in _UTILITIES:
            if not hasattr(utilities, name):
                replace(utilities, name, Unused(f"keras.utils.{name}"))
        replace(utilities, "to_categorical", _to_categorical)
        callbacks = importlib.import_module(f"{root}.callbacks")
        for name, cls in list(vars(callbacks).items()):
            if isinstance(cls, type) and issubclass(cls, callback) and cls is not callback:
                replace(callbacks, name, type(name, (cls,), {"__init__": nothing}))
        for path in _MODULES:
            try:
                # An attribute of tf.keras may be another module than an import returns.
                module = importlib.import_module(f"{root}.{path}")
                current = importlib.import_module(f"keras.{path.removesuffix('.legacy')}")
            except ModuleNotFoundError:  # such as keras.preprocessing.text
                continue
            found = {name: value for name, value in vars(current).items() if name[0] != "_"}
            if path.startswith("optimizers"):
                found |= {name.lower(): getattr(keras.optimizers, name) for name in _OPTIMIZERS}
            for name, value in found.items():
                if name not in vars(module) and not isinstance(value, ModuleType):
                    replace(module, name, value)
            of_module = vars(module).get("__getattr__")
            replace(module, "__getattr__", _unused(f"keras.{path}", of_module))


def nothing(*_: Any, **__: Any) -> None:
    """Return None, in place of a function or a constructor without an effect on a model."""


def _to_categorical(y: Any, num_classes: int | None = None, dtype: Any = "float32") -> Any:
    """``keras.utils.to_categorical`` of Keras 2."""
    from keras.src.utils.numerical_utils import to_categorical

    return to_categorical(y, num_classes).astype(dtype)


def _unused(module: str, of_module: Callable[[str], Any] | None) -> Callable[[str], Any]:
    def find(name: str) -> Any:
        if of_module is not None:
            try:
                return of_module(name)
            except AttributeError:
                pass
        if name.startswith("_"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return Unused(f"{module}.{name}")

    return find
