"""The static look at an HDF5 file, and what Keras keeps in its attributes.

Every object is visited by ``getlink``: following a link is what a hostile file waits for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.safety import size_limits as limits

NEVER = "Keras saves no such file; do not use it, and ask its maker for another."
MAGIC = b"\x89HDF\r\n\x1a\n"


def inspect(source: Path | io.BytesIO, *, name: str, hint: str, trusted: bool) -> Mapping[str, Any]:
    """Walk the whole file without reading an array; its root attributes come back.

    Returns:
        ``keras_version``, ``backend``, ``model_config`` and ``training_config`` as text,
        ``layer_names``, ``objects``: the names at the top, ``stored``: how many arrays.

    Raises:
        UnsupportedModelError: not to be read as HDF5, as when it was cut short.
        UnsafeModelError: links, virtual or external arrays, or arrays larger than the file
            can hold.
    """
    import h5py

    try:
        with h5py.File(source, "r") as file:
            _walk(file, name=name, hint=hint, trusted=trusted)
            weights = file.get("model_weights", file)
            attributes = {
                key: _text(file.attrs.get(key, weights.attrs.get(key)))
                for key in ("keras_version", "backend")
            }
            return {
                **attributes,
                "model_config": _text(file.attrs.get("model_config")),
                "training_config": _text(file.attrs.get("training_config")),
                "layer_names": tuple(texts(weights, "layer_names")),
                "objects": tuple(file.keys()),
                "stored": sum(1 for _ in datasets(weights)),
            }
    except UnsafeModelError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UnsupportedModelError(
            f"expected a complete HDF5 file, but {name} cannot be read as one: "
            f"{_first_line(error)}",
            hint="The file was probably cut short in a download or a copy; get it again.",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _walk(file: Any, *, name: str, hint: str, trusted: bool) -> None:
    """Refuse links that leave their place, and arrays that are not really there."""
    import h5py

    seen, declared = 0, 0
    stack: list[tuple[str, Any]] = [("", file)]
    visited: set[Any] = set()
    while stack:
        path, group = stack.pop()
        for key in group:
            seen += 1
            here = f"{path}/{key}"
            if seen > limits.MAX_HDF5_OBJECTS or here.count("/") > limits.MAX_HDF5_DEPTH:
                raise UnsafeModelError(
                    f"{name} has more groups and arrays, or deeper ones, than a model", hint=hint
                )
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = type(link).__name__
                raise UnsafeModelError(
                    f"refused {name}: {here!r} is not data but a link to elsewhere ({kind})",
                    hint=NEVER,
                )
            child = group[key]
            if isinstance(child, h5py.Group):
                address = h5py.h5o.get_info(child.id).addr
                if address in visited:
                    raise UnsafeModelError(
                        f"refused {name}: {here!r} is a group that is there twice", hint=NEVER
                    )
                visited.add(address)
                stack.append((here, child))
            elif isinstance(child, h5py.Dataset):
                declared += _check_dataset(
                    child, where=f"{name}, {here!r}", hint=hint, trusted=trusted
                )
    if declared > limits.MAX_DECLARED_BYTES and not trusted:
        raise UnsafeModelError(f"{name} declares {declared} bytes of arrays", hint=hint)


def _check_dataset(dataset: Any, *, where: str, hint: str, trusted: bool) -> int:
    """How many bytes the array is, once it is known to be in this file and really that large."""
    plist = dataset.id.get_create_plist()
    if dataset.is_virtual or plist.get_external_count():
        raise UnsafeModelError(f"refused {where}: its values lie in another file", hint=NEVER)
    size = int(dataset.size or 0) * int(dataset.dtype.itemsize)
    stored = int(dataset.id.get_storage_size())
    if plist.get_layout() == 0:  # compact: kept in the header, never large
        return size
    if size > max(limits.SMALL_ARRAY_BYTES, stored * limits.MAX_HDF5_RATIO) and not trusted:
        raise UnsafeModelError(
            f"refused {where}: it declares {size} bytes and holds {stored}", hint=hint
        )
    return size


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value)


def texts(group: Any, name: str) -> Iterator[str]:
    """A list of names kept as an attribute, which Keras splits when it is long."""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        parts, index = [], 0
        while f"{name}{index}" in group.attrs:
            parts.append(group.attrs[f"{name}{index}"])
            index += 1
    for part in parts:
        for item in part:
            yield _text(item) or ""


def datasets(group: Any) -> Iterator[tuple[str, Any]]:
    """Every array under the group with its path, depth first in order of names."""
    import h5py

    for key in group:
        child = group[key]
        if isinstance(child, h5py.Dataset):
            yield key, child
        else:
            for path, dataset in datasets(child):
                yield f"{key}/{path}", dataset


def _plain(value: dict[str, Any]) -> Any:
    """Tuples and shapes, for which JSON has no word."""
    if isinstance(items := value.get("items"), list):
        if value.get("class_name") == "__tuple__":
            return tuple(items)
        if value.get("class_name") == "TensorShape":
            return items
    return value


def with_slashes(file: Any) -> Any:
    """The file, or a copy in memory without the backslashes that Windows wrote into its paths."""
    import h5py

    if not any("\\" in path for path in (*file, *file.get("layers", ()))):
        return file
    copy = h5py.File(io.BytesIO(), "w")
    for path, dataset in datasets(file):
        copy[path.replace("\\", "/")] = dataset[()]
    return copy


def parse_config(
    text: str, *, name: str, hint: str = NEVER, trusted: bool = False
) -> Mapping[str, Any]:
    """The architecture as stored, from its JSON.

    Raises:
        UnsupportedModelError: no JSON object, or not of a model.
        UnsafeModelError: too large.
    """
    if len(text) > limits.MAX_CONFIG_BYTES and not trusted:
        raise UnsafeModelError(
            f"refused {name}: its configuration has {len(text)} characters, "
            f"more than the {limits.MAX_CONFIG_BYTES} allowed",
            hint=hint,
        )
    try:
        config = json.loads(text, object_hook=_plain)
    except RecursionError as error:
        raise UnsafeModelError(
            f"refused {name}: its configuration is nested too deeply",
            hint="No model that Keras made looks like this; do not use the file.",
        ) from error
    except ValueError as error:
        raise UnsupportedModelError(
            f"expected the configuration in {name} to be JSON: {error}",
            hint="The file is damaged; save the model again.",
        ) from error
    if not isinstance(config, dict) or "class_name" not in config or "config" not in config:
        raise UnsupportedModelError(
            f"expected the configuration of a Keras model in {name}, with class_name and config",
            hint="Save the whole model, with model.save(...).",
        )
    return config
