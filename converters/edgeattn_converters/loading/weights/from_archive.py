"""Weights of ``.keras`` and ``.weights.h5`` files: one group per object, named after its class."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from edgeattn_converters.loading.config_inspection import (
    Config,
    is_model,
    layer_name,
    objects_inside,
    python_name,
    stored_layers,
    wrapped_model,
)
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.migrate.attention_package import ATTRIBUTES
from edgeattn_converters.loading.migrate.pruned_layers import INSIDE, WRAPPER
from edgeattn_converters.loading.own_code.subclassed import is_subclassed
from edgeattn_converters.loading.safety.allowed_classes import is_operation_module
from edgeattn_converters.loading.weights import arrays_of_objects, own_loading, tracking_order
from edgeattn_converters.loading.weights.arrays_of_objects import own_variables
from edgeattn_converters.loading.weights.assignment import (
    Assignment,
    find_layer,
    own_layer,
)
from edgeattn_converters.loading.weights.pruned_weights import numbered_masks

_LAYER_GROUPS = ("layers", "_layer_checkpoint_dependencies")
# The attribute of a compiled model, which Keras 2 saves without its learning rate.
_OPTIMIZER = "optimizer"


def stored_shapes(
    file: Any, stored: Config, *, by_name: bool
) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Return path and shape of the arrays of each layer by its name."""
    shapes = {}
    for item, group in layer_groups(file, stored, by_name=by_name):
        name = layer_name(item)
        shapes[name] = [
            (f"{name}/bias" if path.endswith("vars/2") else path, tuple(array.shape))
            for path, array in hdf5.datasets(group)
        ]
    return shapes


def assign(
    file: Any, model: Any, stored: Config, *, by_name: bool, version: Sequence[int] = ()
) -> None:
    """Assign the weights to the model built from the config; see :func:`.from_hdf5.assign`.

    ``by_name`` is described at :func:`layer_groups`, ``version`` is that of the Keras that saved
    the file.
    """
    assignment = _Walk(model, tuple(version))
    _assign_model(file, model, stored, assignment, by_name=by_name)
    _assign_shared(model, stored, assignment)
    _let_load_without_arrays(model, assignment)
    assignment.require_complete()


def assign_built(file: Any, model: Any, version: tuple[int, ...]) -> None:
    """Assign the weights that Keras 2 ``version`` saved to a built model without a config."""
    assignment = _Walk(model, version)
    _assign_layer(file, model, assignment)
    _let_load_without_arrays(model, assignment)
    assignment.require_complete()


class _Walk(Assignment):
    """Assigns weights in the order in which a version of Keras visits the layers to save them.

    A layer is stored once, under the attribute by which Keras reaches it first. Keras 2.15 and
    tf_keras visit attributes in reverse alphabetical order, all others in alphabetical order. From
    Keras 2.14 to tf_keras, the groups of layers in a list are numbered without the layers that are
    stored elsewhere.
    """

    def __init__(self, model: Any, version: tuple[int, ...]) -> None:
        super().__init__(model)
        self._in_reverse = (2, 15) <= version < (3,)
        self._skips_visited = (2, 14) <= version < (3,)
        self.is_keras_2 = () < version < (3,)
        self._visited: set[int] = set()

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Return the names of attributes in the order in which Keras visits them."""
        return sorted(names, reverse=self._in_reverse)

    def visit(self, layer: Any) -> None:
        """Record a layer whose weights are assigned."""
        self._visited.add(id(layer))

    def is_visited(self, layer: Any) -> bool:
        """Return whether weights of a layer were assigned."""
        return id(layer) in self._visited

    def counts(self, layer: Any) -> bool:
        """Return whether a layer in a list counts for the names of the groups of the list."""
        return not self._skips_visited or id(layer) not in self._visited

    def leaves_out(self, layer: Any) -> bool:
        """Return whether a layer in an attribute has its weights from a list of its copies."""
        return self._in_reverse and id(layer) in self._visited


def _assign_model(
    group: Any, model: Any, stored: Config, assignment: _Walk, *, by_name: bool
) -> None:
    if (wrapped := wrapped_model(stored)) is not None and "layer" in group:
        _assign_model(group["layer"], model.layer, wrapped, assignment, by_name=by_name)
        return
    if not is_model(stored):
        _assign_layer(group, model, assignment)
        return
    if own_loading.loads_itself(type(model)):
        _let_load(group, model, assignment)
    for item, layer_group in layer_groups(group, stored, by_name=by_name):
        layer = find_layer(model, item)
        if layer is not None:
            _assign_model(layer_group, layer, item, assignment, by_name=by_name)
            if INSIDE in item:
                assignment.prune(layer, numbered_masks(layer_group.parent["vars"]))


def _assign_shared(model: Any, stored: Config, assignment: Assignment) -> None:
    """Assign weights of layers that several layers of the user share, which are stored once.

    Each of these has the config of the shared layer in its own. Layers that the class of the user
    creates are not shared, whatever their names.
    """
    named = Counter(str(item["config"].get("name")) for item in objects_inside(stored))
    layers = [layer for layer in model._flatten_layers() if own_variables(layer)]
    complete = [layer for layer in layers if not assignment.lacks(own_variables(layer))]
    for layer in layers:
        if layer in complete or named[layer.name] < 2:
            continue
        twins = [
            other for other in complete
            if type(other) is type(layer) and other.name == layer.name
        ]  # fmt: skip
        if len(twins) == 1:
            values = [np.asarray(variable) for variable in own_variables(twins[0])]
            assignment.assign_all(layer, own_variables(layer), values)
            own_loading.copy_attributes(twins[0], layer)


def layer_groups(group: Any, stored: Config, *, by_name: bool) -> Iterator[tuple[Config, Any]]:
    """Yield the layers of a model with their groups, which are named after class and count.

    With ``by_name``, a group belongs to the layer whose name it stores, if there is one. Like
    Keras, do not use it for files of weights only: names that Keras generates depend on the models
    built before, so that a name may be that of another layer.
    """
    layers = next((group[key] for key in _LAYER_GROUPS if key in group), None)
    if layers is None:
        return
    items = [item for item in stored_layers(stored) if not _is_operation(item)]
    names = [
        WRAPPER if INSIDE in item else python_name(str(item.get("class_name"))) for item in items
    ]
    keys = _numbered_as_stored(names, layers)
    named = {name: key for key in layers if by_name and (name := _stored_name(layers[key]))}
    for item, key in zip(items, keys, strict=True):
        key = named.get(layer_name(item), key)
        if key not in layers:
            continue
        if INSIDE not in item:
            yield item, layers[key]
        elif "layer" in layers[key]:
            yield item, layers[key]["layer"]


def numbered(class_names: Iterable[str]) -> Iterator[str]:
    """Yield the group names of Keras for objects of these classes: lstm, dense, dense_1."""
    counts: dict[str, int] = {}
    for class_name in class_names:
        key = _snake_case(class_name)
        index = counts.get(key, 0)
        counts[key] = index + 1
        yield key if index == 0 else f"{key}_{index}"


def _numbered_as_stored(class_names: Sequence[str], group: Any) -> list[str]:
    """Return the group names of the layers of a functional model, or of a Sequential.

    Keras 2.12 and 2.13 count layers with weights twice: dense, dense_2, dense_4.
    """
    once = list(numbered(class_names))
    counts: Counter[str] = Counter()
    twice = []
    for class_name in class_names:
        name = _snake_case(class_name)
        key = f"{name}_{counts[name]}" if counts[name] else name
        twice.append(key)
        counts[name] += 2 if _has_arrays(group, key) else 1
    fits_once, fits_twice = (sum(key in group for key in keys) for keys in (once, twice))
    return twice if fits_twice > fits_once else once


def _has_arrays(group: Any, key: str) -> bool:
    return key in group and any(True for _ in hdf5.datasets(group[key]))


def _snake_case(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _is_operation(item: Config) -> bool:
    module = item.get("module")
    return isinstance(module, str) and is_operation_module(module)


def _stored_name(group: Any) -> str | None:
    value = group.attrs.get("name")
    if value is None and "vars" in group:
        value = group["vars"].attrs.get("name")
    return value.decode() if isinstance(value, bytes) else value


def _assign_layer(group: Any, layer: Any, assignment: _Walk) -> None:
    """Assign the variables of a layer, stored under ``vars``, and those of its sublayers."""
    import h5py
    import keras

    layer = own_layer(layer)
    assignment.visit(layer)
    if isinstance(layer, keras.layers.InputLayer):
        return  # it replaces a preprocessing layer, whose weights the front end has
    if own_loading.loads_itself(type(layer)):
        _let_load(group, layer, assignment)
    elif "vars" in group and len(group["vars"]):
        arrays_of_objects.assign(group["vars"], layer, assignment)
    for key in assignment.in_order(group):
        if key == "vars" or not isinstance(group[key], h5py.Group) or "seed_generator" in key:
            continue
        if _has_arrays(group, key):
            _assign_attribute(group[key], key, layer, assignment)


def _let_load(group: Any, layer: Any, assignment: _Walk) -> None:
    assignment.visit(layer)
    variables = own_variables(layer)
    assignment.load(layer, variables, lambda: own_loading.load(assignment.model, layer, group))


def _let_load_without_arrays(model: Any, assignment: _Walk) -> None:
    """Let layers load themselves for which the file has no arrays, as Keras does."""
    for layer in own_loading.layers_of(model):
        variables = own_variables(layer)
        if not assignment.is_visited(layer) and (not variables or assignment.lacks(variables)):
            _let_load({}, layer, assignment)


def _assign_attribute(group: Any, key: str, layer: Any, assignment: _Walk) -> None:
    """Assign the variables of a sublayer, or of a list or dict of sublayers."""
    import keras

    if key in _LAYER_GROUPS and isinstance(layer, keras.Model):
        _assign_layers(group, layer, assignment)
        return
    names = (key, key.lstrip("_"), ATTRIBUTES.get(key))
    values = (getattr(layer, name, None) for name in names if name)
    attribute = next((value for value in values if value is not None), None)
    if isinstance(attribute, keras.layers.Layer):
        if not assignment.leaves_out(own_layer(attribute)):
            _assign_layer(group, attribute, assignment)
    elif isinstance(attribute, list | tuple | dict):
        _assign_members(group, attribute, assignment)
    elif key != _OPTIMIZER and not _is_of_training(group, attribute):
        raise Keras3ModelError(
            f"The file contains weights for the attribute {key!r} of layer {layer.name!r}, which "
            "has no such attribute.",
            hint="Give your own class the attributes it had when the model was saved, and pass it: "
            "--custom-objects FILE.py",
        )


def _is_of_training(group: Any, attribute: Any) -> bool:
    """Whether a group contains the state of an optimizer or a metric, which no output depends on.

    Keras stores it with the weights. The class may have the attribute only if it is compiled, as
    one with ``compile(d_optimizer, g_optimizer)`` does; then the first variables show what it is:
    the number of steps and the learning rate.
    """
    import keras

    if attribute is not None:
        return isinstance(attribute, keras.optimizers.Optimizer | keras.metrics.Metric)
    if list(group) != ["vars"] or not {"0", "1"} <= set(group["vars"]):
        return False
    steps, rate = group["vars"]["0"], group["vars"]["1"]
    are_scalars = steps.shape == rate.shape == ()
    return bool(are_scalars and steps.dtype.kind in "iu" and rate.dtype.kind == "f")


def _assign_layers(group: Any, model: Any, assignment: _Walk) -> None:
    """Assign the variables of the layers of a model that is no layer of a stored config."""
    layers = tracking_order.layers_of_keras_2(model) if assignment.is_keras_2 else model.layers
    if is_subclassed(model):
        _assign_members(group, layers, assignment)
        return
    names = [type(own_layer(layer)).__name__ for layer in layers]
    for layer, key in zip(layers, _numbered_as_stored(names, group), strict=True):
        if key in group:
            _assign_layer(group[key], layer, assignment)


def _assign_members(
    group: Any, container: list[Any] | tuple[Any, ...] | dict[Any, Any], assignment: _Walk
) -> None:
    """Assign the variables of the layers in a container, which may contain other containers."""
    import keras

    members = list(container.values()) if isinstance(container, dict) else list(container)
    counts: Counter[str] = Counter()
    for member in members:
        is_container = isinstance(member, list | tuple | dict)
        if not is_container and not assignment.counts(own_layer(member)):
            continue
        name = "container" if is_container else _snake_case(type(own_layer(member)).__name__)
        key = f"{name}_{counts[name]}" if counts[name] else name
        counts[name] += 1
        if key not in group:
            continue
        if is_container:
            _assign_members(group[key], member, assignment)
        elif isinstance(own_layer(member), keras.layers.Layer):
            _assign_layer(group[key], member, assignment)
