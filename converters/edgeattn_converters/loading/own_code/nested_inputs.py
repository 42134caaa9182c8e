"""Inputs of subclassed models: their shapes in nested dicts and lists, which Keras stores so."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.fixed_time_axis import TimeSteps, length_of, with_sizes

# The keys and indices that lead to one input in nested dicts and lists.
InputPath = tuple[str | int, ...]


def free_batch(shape: Any) -> Any:
    """Return a shape, or the shapes in lists and dicts, with a free batch axis."""
    return mapped(lambda axes, _: [None, *axes[1:]], shape)


def is_shape(value: Any) -> bool:
    """Return whether ``value`` is one shape, and no dict or list of them."""
    return not isinstance(value, Mapping) and all(
        size is None or isinstance(size, int) for size in value
    )


def mapped(function: Callable[[Any, InputPath], Any], shape: Any, path: InputPath = ()) -> Any:
    """Return the structure of ``shape`` with ``function(axes, path)`` in place of each shape."""
    if isinstance(shape, Mapping):
        return {key: mapped(function, item, (*path, key)) for key, item in shape.items()}
    if not is_shape(shape):
        return [mapped(function, item, (*path, k)) for k, item in enumerate(shape)]
    return function(shape, path)


def _paths(shape: Any) -> list[InputPath]:
    paths: list[InputPath] = []
    mapped(lambda _, path: paths.append(path), shape)
    return paths


def input_names(shape: Any) -> dict[InputPath, str]:
    """Return the name of each input: its innermost key, or all keys if two inputs have this one.

    Keras accepts no slash in names. Raises :class:`UnsupportedModelError` if two are still equal.
    """
    short = {path: _joined(_from_last_key(path)) for path in _paths(shape)}
    count = Counter(short.values())
    names = {path: name if count[name] == 1 else _joined(path) for path, name in short.items()}
    equal = [name for name, number in Counter(names.values()).items() if number > 1]
    if equal:
        raise UnsupportedModelError(
            f"Two inputs in nested dicts or lists would both have the name {equal[0]!r}.",
            hint="Rename the keys of the inputs, or pass the inputs in a flat dict, and save the "
            "model again.",
        )
    return names


def _from_last_key(path: InputPath) -> InputPath:
    last = max((k for k, part in enumerate(path) if isinstance(part, str)), default=0)
    return path[last:]


def _joined(path: InputPath) -> str:
    if not path:
        return "inputs"
    parts = path if isinstance(path[0], str) else ("input", *path)
    return "_".join(map(str, parts))


def shapes_by_name(shape: Any, names: Mapping[InputPath, str]) -> dict[str, Any]:
    """Return the shape of each input by its name."""
    found: dict[str, Any] = {}
    mapped(lambda axes, path: found.update({names[path]: axes}), shape)
    return found


def with_time_steps(
    shape: Any, time_steps: TimeSteps | None, names: Mapping[InputPath, str]
) -> Any:
    """Return the shapes with the numbers of time steps that were passed for them."""

    def with_steps(axes: Any, path: InputPath) -> Any:
        has_key = any(isinstance(part, str) for part in path)
        if not has_key and isinstance(time_steps, Mapping) and len(time_steps) == 1:
            # the only input, whatever its name
            return with_sizes(axes, next(iter(time_steps.values())))
        return with_sizes(axes, length_of(time_steps, names[path]))

    return mapped(with_steps, shape)


def is_free(shape: Any) -> bool:
    """Return whether an axis behind the batch axis is free, in any of the shapes."""
    if isinstance(shape, Mapping):
        return any(map(is_free, shape.values()))
    return None in shape[1:] if is_shape(shape) else any(map(is_free, shape))
