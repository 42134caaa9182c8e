"""Initializers, regularizers and constraints that only Keras 1 and 2 accept."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

# Keras 3 creates this one from a config only. The default of its value is 0.
_INITIALIZERS = {"constant": "zeros", "Constant": "zeros"}
# Some of TensorFlow 2 have this ending.
_ENDING = "V2"
# The distribution "normal" of VarianceScaling is truncated.
_DISTRIBUTIONS = {"normal": "truncated_normal"}


@contextlib.contextmanager
def accepted() -> Iterator[None]:
    """Within the context, ``get`` and ``deserialize`` of these modules accept them.

    Constraints and regularizers only concern training: there is none in place of one that Keras 3
    does not have. An initializer has no effect on a weight with a value in the file.
    """
    import importlib

    with contextlib.ExitStack() as stack:
        for kind, of_kind in (
            ("constraints", _or_none),
            ("regularizers", _or_none),
            ("initializers", _of_current_name),
        ):
            for root in ("keras.src", "keras", "tensorflow.keras"):
                module = importlib.import_module(f"{root}.{kind}")
                for name in ("get", "deserialize"):
                    changed = of_kind(getattr(module, name))
                    stack.enter_context(mock.patch.object(module, name, changed))
        yield


def _or_none(get: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get)
    def or_none(*args: Any, **named: Any) -> Any:
        try:
            return get(*args, **named)
        except (ValueError, TypeError):
            return None

    return or_none


def _of_current_name(get: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get)
    def of_current_name(identifier: Any, *args: Any, **named: Any) -> Any:
        return get(_current(identifier), *args, **named)

    return of_current_name


def _current(identifier: Any) -> Any:
    """A name or config as Keras 3 has it; others unchanged."""
    if isinstance(identifier, str):
        name = identifier.removesuffix(_ENDING)
        return _INITIALIZERS.get(name, name)
    if not isinstance(identifier, Mapping) or not isinstance(identifier.get("class_name"), str):
        return identifier
    config = dict(identifier.get("config") or {})
    config.pop("dtype", None)
    distribution = config.get("distribution")
    if isinstance(distribution, str):
        config["distribution"] = _DISTRIBUTIONS.get(distribution, distribution)
    name = identifier["class_name"].removesuffix(_ENDING)
    return {**identifier, "class_name": name, "config": config}
