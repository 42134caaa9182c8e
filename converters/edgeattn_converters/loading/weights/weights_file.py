"""The weights of a file in any format: their shapes, their total size and their assignment."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.config_inspection import (
    Config,
    all_names,
    has_masks,
    is_model,
    layer_name,
    python_name,
    stored_layers,
)
from edgeattn_converters.loading.formats import hdf5, keras_archive, saved_model
from edgeattn_converters.loading.legacy.argument_types import scopes
from edgeattn_converters.loading.migrate.context import Shape, safe_name
from edgeattn_converters.loading.migrate.pruned_layers import wrapped_layers
from edgeattn_converters.loading.notes import MOST_NAMES
from edgeattn_converters.loading.quantized_layers import is_float8
from edgeattn_converters.loading.weights import (
    from_archive,
    from_hdf5,
    from_saved_model,
    tracking_order,
)
from edgeattn_converters.loading.weights.assignment import MISMATCH, OTHER_ARCHITECTURE, find_layer


@dataclass(frozen=True)
class WeightsFile:
    """The weights of an open file: an HDF5 file, or the variables of a SavedModel by path.

    ``names`` are names of layers by the names in the file, where these differ. ``separate`` is
    whether the file contains weights only.
    """

    source: Any
    names: Mapping[str, str] = field(default_factory=dict)
    separate: bool = False
    saved_by: tuple[int, ...] = ()

    def shapes(self, stored: Config) -> Callable[[str], list[tuple[str, Shape]]]:
        """Return a function from layer name to path and shape of its arrays, without values."""
        if isinstance(self.source, dict):
            return lambda _name: []
        shapes = from_hdf5.stored_shapes(self.source, self.names)
        if not shapes and is_model(stored):
            shapes = from_archive.stored_shapes(self.source, stored, by_name=not self.separate)
        return lambda name: shapes.get(name, [])

    def with_layer_names(self, stored: Config) -> Config:
        """Return the config of a model with names for layers whose config is empty.

        Keras 2 saves a layer of the user without ``get_config`` so. The names are those of the
        groups of weights that no other layer has, in order, or generated ones.
        """
        unnamed = [item for item in stored_layers(stored) if not _has_name(item)]
        if not unnamed or isinstance(stored["config"], list):
            return stored
        named = {layer_name(item) for item in stored_layers(stored) if _has_name(item)}
        groups: list[str] = []
        if self.is_layered:
            groups = [name for name in from_hdf5.group_names(self.source) if name not in named]
        if len(groups) != len(unnamed):
            groups = [f"{python_name(str(item.get('class_name')))}_of_file_{number}"
                      for number, item in enumerate(unnamed)]  # fmt: skip
        names = iter(groups)
        layers = [
            item if _has_name(item)
            else {**item, "config": {**(item.get("config") or {}), "name": next(names)}}
            for item in stored_layers(stored)
        ]  # fmt: skip
        return {**stored, "config": {**stored["config"], "layers": layers}}

    def version(self) -> tuple[int, ...]:
        """Return the first Keras version that wrote the layout of the file; ``()`` if unknown."""
        return (2, 13) if "_layer_checkpoint_dependencies" in self.source else ()

    @property
    def has_names(self) -> bool:
        """Whether the weights of a layer have its name beside them, as in files of Keras 3.

        Neither the first versions of Keras 3 nor tf_keras store it.
        """
        if isinstance(self.source, dict) or "vars" not in self.source:
            return False
        return "name" in self.source["vars"].attrs

    @property
    def is_layered(self) -> bool:
        """Whether the weights are stored by the names of layers, as in ``.h5`` files."""
        return not isinstance(self.source, dict) and from_hdf5.is_layered(self.source)

    @property
    def has_objects(self) -> bool:
        """Whether the weights are stored by objects in attributes, as in ``.keras`` files."""
        return not isinstance(self.source, dict) and not self.is_layered

    @property
    def is_listed(self) -> bool:
        """Whether some weights of a SavedModel are stored by their place in a list only."""
        return isinstance(self.source, dict) and from_saved_model.is_listed(self.source)

    @property
    def is_quantized(self) -> bool:
        """Whether some weights are those of layers that Keras quantized.

        These are integers of 8 bits, or have the scales of float8.
        """
        layers: dict[str, dict[str, Any]] = {}
        for path, array in () if isinstance(self.source, dict) else hdf5.datasets(self.source):
            group, _, key = path.rpartition("/")
            # Those of a class of the user have names beside each other.
            if key.isdigit() or not f"/{group}".endswith("/vars"):
                layers.setdefault(group, {})[key] = array
        return any(
            any(array.dtype in ("int8", "uint8") for array in arrays.values())
            or is_float8([tuple(arrays[key].shape) for key in _in_order(arrays)])
            for arrays in layers.values()
        )

    def by_order(self, model: Any, stored: Config) -> WeightsFile:
        """The file with the names of the layers in order, if it has names that the model lacks.

        Keras assigns weights in order, because generated names depend on the models built before.
        So if the same names are in another order, both assignments are possible. Raises
        :class:`UnsupportedModelError` if the shapes do not show which one is meant.
        """
        if not self.is_layered:
            return self
        stored_shapes = from_hdf5.stored_shapes(self.source)
        found = {
            layer_name(item): layer
            for item in stored_layers(stored)
            if (layer := find_layer(model, item)) is not None and layer.weights
        }
        # The layers of a class of the user in the order in which Keras 2 lists them.
        order = [id(layer) for layer in tracking_order.layers_of_keras_2(model)]
        in_class = {id(layer) for layer in found.values()} <= set(order)
        if in_class and tracking_order.is_recorded(model):
            found = dict(sorted(found.items(), key=lambda item: order.index(id(item[1]))))
        slashed = scopes([name for name in stored_shapes if stored_shapes[name]], list(found))
        named = replace(self, names=slashed)
        shapes = {
            slashed.get(name, name): [shape for _, shape in arrays]
            for name, arrays in stored_shapes.items()
            if arrays
        }
        names, layers = list(shapes), list(found)
        in_order = dict(zip(names, layers, strict=False))
        if set(names) == set(layers):
            moved = {name: layer for name, layer in in_order.items() if name != layer}
            if all(shapes[name] == shapes[layer] for name, layer in moved.items()):
                if moved:
                    raise _ambiguous(names, layers)
                return named
            fits_by_name = all(_sizes(shapes[name]) == _sizes_of(found[name]) for name in moved)
            return named if fits_by_name else self._renamed(in_order, slashed)
        if len(names) != len(layers):
            return named
        fits = all(_sizes(shapes[name]) == _sizes_of(found[in_order[name]]) for name in names)
        if set(names) <= set(all_names(stored)) and not fits:
            return named  # some are those of layers in nested models
        by_number = _by_number(names, layers)
        moved = {name: layer for name, layer in by_number.items() if layer != in_order[name]}
        if moved and all(_sizes(shapes[name]) == _sizes_of(found[moved[name]]) for name in moved):
            raise _other_numbers(in_order, by_number)
        return self._renamed(in_order, slashed)

    def _renamed(self, layers: Mapping[str, str], slashed: Mapping[str, str]) -> WeightsFile:
        """The file with layers by its names, of which ``slashed`` are those with slashes."""
        names = {safe: name for name, safe in slashed.items()}
        return replace(self, names={names.get(name, name): layers[name] for name in layers})

    def order_notes(self) -> tuple[str, ...]:
        """A note with the names that differ if the weights are assigned in order."""
        pairs = [
            f"{layer} <- {name}"
            for name, layer in self.names.items()
            if layer not in (name, safe_name(name))
        ]
        if not pairs:
            return ()
        more = len(pairs) - MOST_NAMES
        listed = "; ".join(pairs[:MOST_NAMES]) + (f"; and {more} more" if more > 0 else "")
        equal = len(self.names) - len(pairs)
        others = f" {counted(equal, 'other name')} {'is' if equal == 1 else 'are'} the same."
        return (
            "Layers of the architecture have other names than those in the file, so the weights "
            f"were assigned in order: {listed}.{others if equal else ''} Only their shapes were "
            "compared.",
        )

    def nested_notes(self, model: Any, stored: Config) -> tuple[str, ...]:
        """A note on nested models whose weights are assigned by name, in another order."""
        if not self.is_layered or not is_model(stored):
            return ()
        moved = list(from_hdf5.moved_inside(self.source, model, stored, self.names))
        if not moved:
            return ()
        return (
            f"{', '.join(moved)}: the file has the weights of its layers in another order than the "
            "architecture, and they were assigned by name, as if some of the layers had been "
            "frozen. If Keras generated the names in another program, give the layers other names.",
        )

    def pruning_notes(self, stored: Config) -> tuple[str, ...]:
        """A note if layers of the model, or of the file, had wrappers that prune their weights."""
        count, end = len(list(wrapped_layers(stored))), ""
        if not count and self.is_layered:
            count = from_hdf5.pruned(self.source)
            # As behind strip_pruning.
            end = " Masks of steps pass these layers; they end at the wrappers."
        if not count:
            return ()
        return (
            f"Removed the pruning wrapper (PruneLowMagnitude) of {counted(count, 'layer')}: pruned "
            "weights are the stored ones multiplied by their stored masks."
            f"{end if is_model(stored) and has_masks(stored) else ''}",
        )

    def size(self) -> int:
        """Return the number of stored values."""
        variables = isinstance(self.source, dict)
        arrays = self.source.items() if variables else hdf5.datasets(self.source)
        return sum(int(array.size) for _, array in arrays)

    def bits(self) -> int:
        """Return the number of stored bits."""
        variables = isinstance(self.source, dict)
        arrays = self.source.items() if variables else hdf5.datasets(self.source)
        return sum(8 * int(array.size) * int(array.dtype.itemsize) for _, array in arrays)

    def assign(self, model: Any, stored: Config, *, major: int, backend: str | None) -> None:
        """Assign the weights to the model built from the config; see :func:`from_hdf5.assign`."""
        try:
            self._assign(model, stored, major, backend)
        except UnsupportedModelError as error:
            if self.separate and error.hint == MISMATCH:
                raise type(error)(error.message, hint=OTHER_ARCHITECTURE) from error
            raise

    def _assign(self, model: Any, stored: Config, major: int, backend: str | None) -> None:
        if isinstance(self.source, dict):
            from_saved_model.assign(self.source, model, stored)
        elif from_hdf5.is_layered(self.source):
            from_hdf5.assign(
                self.source, model, stored, major=major, backend=backend, names=self.names
            )
        else:
            from_archive.assign(
                self.source, model, stored, by_name=not self.separate, version=self.saved_by
            )


def _in_order(keys: Iterable[str]) -> list[str]:
    """Return the keys of the arrays of a layer, which are numbers in files of weights only."""
    return sorted(keys, key=lambda key: (len(key), key))


def _sizes(shapes: Iterable[Shape]) -> int:
    """Return the number of values; their arrangement may be that of another version."""
    return sum(math.prod(shape) for shape in shapes)


def _sizes_of(layer: Any) -> int:
    return _sizes(tuple(weight.shape) for weight in layer.weights)


def _ambiguous(names: Sequence[str], layers: Sequence[str]) -> UnsupportedModelError:
    """Return the error for the same names in another order."""
    first = next(i for i, (name, layer) in enumerate(zip(names, layers, strict=True))
                 if name != layer)  # fmt: skip
    return UnsupportedModelError(
        "The layers of the architecture have the names of those in the file in another order: "
        f"the file has {names[first]!r} where the architecture has {layers[first]!r}. The shapes "
        "of the weights fit both ways.",
        hint="If the weights belong to the layers in order, as load_weights of Keras assigns them, "
        "give the layers of the architecture other names. If they belong to the layers of their "
        "names, assign them in Keras and save the whole model: model.save('model.keras')",
    )


def _by_number(names: Sequence[str], layers: Sequence[str]) -> dict[str, str]:
    """Return the layers by the names in a file if only generated numbers differ, else nothing.

    Keras numbers the layers of a class in the order in which a program creates them.
    """

    def numbered(name: str) -> tuple[str, int]:
        base, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()  # type: ignore[union-attr]
        return base, int(number or 0)

    pairs = list(zip(sorted(names, key=numbered), sorted(layers, key=numbered), strict=True))
    return dict(pairs) if all(numbered(a)[0] == numbered(b)[0] for a, b in pairs) else {}


def _other_numbers(
    in_order: Mapping[str, str], by_number: Mapping[str, str]
) -> UnsupportedModelError:
    """Return the error for layers that the program creates in another order than it calls them."""
    name = next(name for name, layer in by_number.items() if layer != in_order[name])
    return UnsupportedModelError(
        f"The weights of {name!r} in the file are those of {in_order[name]!r} by the order of the "
        f"layers, and those of {by_number[name]!r} by the numbers in their names. The shapes of "
        "the weights fit both ways.",
        hint="Give the layers of the architecture the names in the file, or save the whole model "
        "in Keras: model.save('model.keras')",
    )


def _has_name(item: Config) -> bool:
    config = item.get("config")
    return bool(item.get("name") or isinstance(config, list) or (config or {}).get("name"))


@contextmanager
def open_weights(file: ModelFile) -> Iterator[WeightsFile]:
    """Open the weights of an audited file; :class:`UnsupportedModelError` if that is impossible."""
    import h5py

    if file.kind == "saved-model":
        yield WeightsFile(saved_model.read_variables(file.path))
        return
    source = keras_archive.read_weights(file.path) if file.kind == "keras-zip" else file.path
    try:
        with h5py.File(source, "r") as weights:
            separate = file.kind == "weights-hdf5"
            yield WeightsFile(hdf5.with_forward_slashes(weights), separate=separate)
    except NotImplementedError:  # a RuntimeError, but none of HDF5
        raise
    except (OSError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"Cannot read the weights in {file.path.name}: {error}",
            hint="Download or copy the file again: it is damaged.",
        ) from error
