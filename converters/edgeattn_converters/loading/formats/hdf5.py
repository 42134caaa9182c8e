"""Static checks of HDF5 files, and the attributes that Keras stores in them.

Objects are visited with ``getlink``, because a hostile file may contain links to other files.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import UnsafeModelError, UnsupportedModelError, first_line
from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.safety import size_limits
from edgeattn_converters.loading.safety.size_limits import FileLimits

# The kernels of a layer: ``lstm_1_W_i``; in Keras 2 their names contain a slash.
_OF_KERAS_1 = re.compile(r"^[^/]*_W(_\w+)?(:0)?$")
# The variables of an object in a file of Keras 3 are numbered, or named by a class of the user.
_OF_OBJECT = re.compile(r"(^|[/\\])vars[/\\]")
# Groups that ``save_weights`` of Keras 0.x writes for the layers of a Sequential, or for a Graph.
_OF_KERAS_0 = re.compile(r"^(layer_\d+|graph)$")


@dataclass(frozen=True)
class HDF5Contents:
    """What an HDF5 file contains, without the values of its arrays.

    The first four are attributes of Keras, None if absent. Names of weights show the first two of
    files of Keras 1, which lack ``backend``, and the version if they contain weights only.
    ``layer_names`` are the layers with stored weights in a file of ``model.save`` or
    ``save_weights``, ``top_level`` the names of the top-level groups and arrays, and ``arrays`` is
    the number of weight arrays. ``by_object`` is whether they are stored by the objects of a model,
    as in a ``.weights.h5`` file. ``of_keras_0`` is whether they are those of Keras before 1.0.
    """

    keras_version: str | None
    backend: str | None
    model_config: str | None
    training_config: str | None
    layer_names: tuple[str, ...]
    top_level: tuple[str, ...]
    arrays: int
    by_object: bool
    of_keras_0: bool


def inspect(source: Path | io.BytesIO, limits: FileLimits, packed_bytes: int) -> HDF5Contents:
    """Check a whole file without reading an array, and return what it contains.

    ``packed_bytes`` is its size on the disk, which is smaller than its own in a zip archive.
    Raises :class:`UnsupportedModelError` if the file is not complete HDF5, and
    :class:`UnsafeModelError` if it contains links, virtual or external arrays, or arrays that
    declare more bytes than they store.
    """
    import h5py

    try:
        with h5py.File(source, "r") as file:
            _check_objects(file, limits, packed_bytes)
            weights = file.get("model_weights", file)
            paths = [path for path, _ in datasets(weights)]
            version = _text(file.attrs.get("keras_version", weights.attrs.get("keras_version")))
            backend = _text(file.attrs.get("backend", weights.attrs.get("backend")))
            if (version or "1").startswith("1") and (by_names := _backend_of_keras_1(weights)):
                version, backend = version or "1", backend or by_names
            return HDF5Contents(
                keras_version=version,
                backend=backend,
                model_config=_text(file.attrs.get("model_config")),
                training_config=_text(file.attrs.get("training_config")),
                layer_names=tuple(texts(weights, "layer_names")),
                top_level=tuple(file.keys()),
                arrays=len(paths),
                by_object=bool(paths) and all(map(_OF_OBJECT.search, paths)),
                of_keras_0=any(
                    _OF_KERAS_0.match(name) and "nb_params" in group.attrs
                    for name, group in file.items()
                ),
            )
    except UnsafeModelError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UnsupportedModelError(
            f"{limits.name} is not a complete HDF5 file: "
            f"{error_text.beginning(first_line(error), 200)}",
            hint="Download or copy the file again: it was probably cut short.",
        ) from error


def _check_objects(file: Any, limits: FileLimits, packed_bytes: int) -> None:
    """Refuse links, groups that contain themselves, and arrays without stored values."""
    import h5py

    count, declared = 0, 0
    stack: list[tuple[str, Any]] = [("", file)]
    visited: set[Any] = set()
    while stack:
        parent, group = stack.pop()
        for key in group:
            count += 1
            path = f"{parent}/{key}"
            if count > size_limits.MAX_HDF5_OBJECTS or path.count("/") > size_limits.MAX_HDF5_DEPTH:
                raise limits.refusal(
                    "it has more groups and arrays than a model, or more deeply nested ones",
                    limits.hint,
                )
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise limits.refusal(
                    f"{path!r} contains no data but a link to another place ({type(link).__name__})"
                )
            child = group[key]
            if isinstance(child, h5py.Group):
                address = h5py.h5o.get_info(child.id).addr
                if address in visited:
                    raise limits.refusal(f"the group {path!r} is linked from two places")
                visited.add(address)
                stack.append((path, child))
            elif isinstance(child, h5py.Dataset):
                declared += _check_dataset(child, path, limits)
    allowed = max(size_limits.SMALL_ARRAYS_BYTES, packed_bytes * size_limits.MAX_HDF5_RATIO)
    limits.require(
        declared <= min(allowed, size_limits.MAX_DECLARED_BYTES),
        f"{packed_bytes} bytes declare {declared} bytes of arrays",
    )


def _check_dataset(dataset: Any, path: str, limits: FileLimits) -> int:
    """Return the size in bytes of an array that is stored in this file."""
    plist = dataset.id.get_create_plist()
    if dataset.is_virtual or plist.get_external_count():
        raise limits.refusal(f"the values of {path!r} are in another file")
    size = int(dataset.size or 0) * int(dataset.dtype.itemsize)
    stored = int(dataset.id.get_storage_size())
    compact = plist.get_layout() == 0  # stored in the header, which bounds its size
    allowed = max(size_limits.SMALL_ARRAY_BYTES, stored * size_limits.MAX_HDF5_RATIO)
    limits.require(
        compact or size <= allowed, f"{path!r} declares {size} bytes and stores {stored}"
    )
    return size


def _backend_of_keras_1(weights: Any) -> str | None:
    """The library that the names of weights show, if they are those of Keras 1, else None.

    Those of Keras 1 are ``dense_1_W``, to which TensorFlow adds ``:0``.
    """
    import h5py

    layers = [group for group in weights.values() if isinstance(group, h5py.Group)]
    names = [name for layer in layers for name in texts(layer, "weight_names")]
    if not any(_OF_KERAS_1.search(name) for name in names):
        return None
    return "tensorflow" if any(name.endswith(":0") for name in names) else "theano"


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value)


def texts(group: Any, name: str) -> Iterator[str]:
    """Yield a list of names stored as an attribute, which Keras splits if it is long."""
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


def listed_weights(group: Any) -> list[tuple[str, Any]]:
    """Return path and dataset of each weight that the group of a layer lists.

    Raises :class:`UnsupportedModelError` if it lacks one.
    """
    weights = []
    for path in texts(group, "weight_names"):
        if path not in group:
            layer = str(group.name).rsplit("/", 1)[-1]
            raise UnsupportedModelError(
                f"The file lists the weight {path!r} of the layer {layer!r}, but does not contain "
                "it: it was not saved completely.",
                hint="Save the model again. Keras 2 stops while it saves an .h5 file if a layer "
                "has two weights of the same name, such as the masks of a pruned LSTM: save the "
                "model as .keras, or give each add_weight a name of its own.",
            )
        weights.append((path, group[path]))
    return weights


def datasets(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield path and array of every dataset below a group, depth first in order of names."""
    import h5py

    for key in group:
        child = group[key]
        if isinstance(child, h5py.Dataset):
            yield key, child
        else:
            for path, dataset in datasets(child):
                yield f"{key}/{path}", dataset


def array(dataset: Any) -> np.ndarray[Any, Any]:
    """Return the array of a dataset; bfloat16, two opaque bytes for HDF5, becomes float32."""
    values = np.asarray(dataset)
    if values.dtype != np.dtype("V2"):
        return values
    # The upper half of the bits of a float32.
    return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def with_forward_slashes(file: Any) -> Any:
    """Return the file, or a copy in memory if Windows wrote backslashes into its paths."""
    import h5py

    if not any("\\" in path for path in (*file, *file.get("layers", ()))):
        return file
    copy = h5py.File(io.BytesIO(), "w")
    for path, dataset in datasets(file):
        copy[path.replace("\\", "/")] = dataset[()]
    return copy
