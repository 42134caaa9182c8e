"""What tf_keras reads from a file of weights: which variables get values, and what is left over.

Only for the worker process that runs a program of the user with tf_keras. ``load_weights`` of
tf_keras reports neither weights in the file that the model lacks nor, in some cases, the reverse.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from edgeattn.printable import enumerated
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.with_tf_keras import tf_keras_worker
from edgeattn_converters.loading.with_tf_keras.tf_keras_worker import NotLoadedError

_LISTED = 3
# Groups in a file for training, which no output depends on.
_OF_TRAINING = re.compile(r"(^|/)[^/]*(optimizer|metric|loss)[^/]*(/|$)", re.IGNORECASE)
_VALUES = "vars"
# The group of weights of the model itself in an ``.h5`` file.
_TOP_LEVEL = "top_level_model_weights"

Shape = tuple[int, ...]


@dataclass
class Assignments:
    """The values that a model gets from a file.

    Attributes:
        values: the last value of each variable, by the identity of its handle.
        handles: the handles, which keep their identities as long as this object exists.
        conflicting: whether a variable got several values.
        stored: the groups with arrays in a ``.keras`` or ``.weights.h5`` file.
        visited: the groups that tf_keras looked for.
    """

    values: dict[int, Any] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)
    conflicting: bool = False
    stored: set[str] = field(default_factory=set)
    visited: set[str] = field(default_factory=set)

    def add(self, variable: Any, value: Any) -> None:
        """Record that ``variable`` gets a value."""
        handle, array = variable.handle, np.asarray(value)
        before = self.values.get(id(handle))
        self.conflicting |= before is not None and before.tobytes() != array.tobytes()
        self.values[id(handle)] = array
        self.handles.append(handle)

    @property
    def left_over(self) -> list[str]:
        """The groups with weights that the model has not got."""
        others = sorted(self.stored - self.visited)
        return [group for group in others if not _OF_TRAINING.search(group)]


def loaded_completely(
    source: Mapping[str, Any], build: Callable[[Any], None]
) -> tuple[Any, Assignments]:
    """Return the model of a source, see :func:`.tf_keras_worker.loaded`, and what it has got.

    Raises an error if it lacks weights of the file, and if names contradict the order.
    """
    with recorded() as assigned:
        model = tf_keras_worker.loaded(source, build)
    if assigned.left_over:
        groups = enumerated(list(map(repr, assigned.left_over[:_LISTED])))
        raise NotLoadedError(f"the model lacks the weights {groups} of the file")
    if assigned.conflicting:
        raise NotLoadedError("the file has several values for a weight of the model")
    if source["suffix"] == ".h5":
        _require_order(source["file"], model)
    return model, assigned


def _require_order(path: str, model: Any) -> None:
    """Raise an error if the names in a file contradict the order, in which tf_keras assigns.

    Weights belong to layers by order, because generated names depend on models built before. The
    last parts of the names of weights are given by the program. They are in another order if layers
    of a nested model were frozen when the file was saved.
    """
    listed = _listed(path)
    names = [name for name, weights in listed.items() if weights and name != _TOP_LEVEL]
    layers = [layer for layer in model.layers if layer.weights]
    if _is_moved(names, [layer.name for layer in layers]):
        raise NotLoadedError("the file has the layers in another order")
    for layer, name in zip(layers, names, strict=False):
        ours = [item.name for item in (*layer.trainable_weights, *layer.non_trainable_weights)]
        if _is_moved([_last(weight) for weight, _ in listed[name]], list(map(_last, ours))):
            raise NotLoadedError(f"the file has the weights of layer {layer.name} in another order")
    if not _is_in_order(listed, model):
        raise NotLoadedError("the names of the weights contradict their order")


def _listed(path: str) -> dict[str, list[tuple[str, Shape]]]:
    """The names and shapes of the weights in an ``.h5`` file by the names of its layers, in order.

    Those of the model itself are last, under another name.
    """
    import h5py

    with h5py.File(path) as file:
        root = file.get("model_weights", file)
        names = [*hdf5.texts(root, "layer_names"), *([_TOP_LEVEL] if _TOP_LEVEL in root else [])]
        return {
            name: [
                (weight, root[name][weight].shape)
                for weight in hdf5.texts(root[name], "weight_names")
            ]
            for name in names
        }


def _is_moved(names: Sequence[str], others: Sequence[str]) -> bool:
    return Counter(names) == Counter(others) and names != others


def _last(name: str) -> str:
    """``kernel`` of ``dense/kernel:0``."""
    return name.rsplit("/", 1)[-1].split(":")[0]


@contextlib.contextmanager
def recorded() -> Iterator[Assignments]:
    """Record what tf_keras loads within the context, but not what code of the user assigns."""
    from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable, ResourceVariable
    from tf_keras.src.saving import saving_lib
    from tf_keras.src.saving.legacy import hdf5_format

    found, depth = Assignments(), [0]
    get = saving_lib.H5IOStore.get

    def recording(assign: Callable[..., Any]) -> Callable[..., Any]:
        def assigned(variable: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            if depth[0]:
                found.add(variable, value)
            return assign(variable, value, *args, **kwargs)

        return assigned

    def group(store: Any, path: str) -> Any:
        found.stored.update(_groups(store.h5_file))
        found.visited.add(path)
        return get(store, path)

    def loading(load: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            depth[0] += 1
            try:
                return load(*args, **kwargs)
            finally:
                depth[0] -= 1

        return wrapped

    by_order = hdf5_format.load_weights_from_hdf5_group
    with (
        mock.patch.object(ResourceVariable, "assign", recording(ResourceVariable.assign)),
        # That of variables that tf.function creates while it traces the call of a model.
        mock.patch.object(BaseResourceVariable, "assign", recording(BaseResourceVariable.assign)),
        mock.patch.object(saving_lib.H5IOStore, "get", group),
        mock.patch.object(saving_lib, "_load_state", loading(saving_lib._load_state)),
        mock.patch.object(hdf5_format, "load_weights_from_hdf5_group", loading(by_order)),
    ):
        yield found


def _groups(file: Any) -> set[str]:
    """The paths of the objects with arrays in an open file."""
    import h5py

    paths: set[str] = set()

    def visit(name: str, item: Any) -> None:
        *path, key, _ = ("", *name.split("/"))
        if isinstance(item, h5py.Dataset) and key == _VALUES:
            paths.add("/".join(filter(None, path)))

    file.visititems(visit)
    return paths


def _is_in_order(listed: Mapping[str, Sequence[tuple[str, Shape]]], model: Any) -> bool:
    """Return whether names allow that weights of an ``.h5`` file belong to a model in their order.

    tf_keras assigns them so, because generated names depend on the models built before. Layers that
    were frozen when the file was saved, and are not in the program, are in another place. Then
    names of weights of the same shape are sorted in another way.
    """
    from tf_keras.src.saving.legacy import hdf5_format

    ours = [
        f"{layer.name}/{weight.name}"
        for layer in model.layers
        for weight in hdf5_format._legacy_weights(layer)
    ]
    if _TOP_LEVEL in listed:
        own = model._trainable_weights + model._non_trainable_weights
        ours += [f"{_TOP_LEVEL}/{weight.name}" for weight in own]
    stored = [
        (f"{name}/{weight}", shape) for name, weights in listed.items() for weight, shape in weights
    ]
    kinds: dict[Any, list[int]] = {}
    for number, (name, shape) in enumerate(stored):
        kinds.setdefault((name.rpartition("/")[2], shape), []).append(number)
    return len(ours) == len(stored) and all(
        sorted(numbers, key=lambda k: _by_number(stored[k][0]))
        == sorted(numbers, key=lambda k: _by_number(ours[k]))
        for numbers in kinds.values()
    )


def _by_number(name: str) -> list[Any]:
    """A key that sorts dense, dense_2, dense_10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


@contextlib.contextmanager
def as_keras_2_14() -> Iterator[None]:
    """Let tf_keras visit attributes in alphabetical order, as Keras 2.14."""
    from tf_keras.src.saving import saving_lib

    walk = saving_lib._walk_trackable

    def in_order(trackable: Any) -> Iterator[Any]:
        yield from reversed(list(walk(trackable)))

    with mock.patch.object(saving_lib, "_walk_trackable", in_order):
        yield


@contextlib.contextmanager
def as_keras_2_13() -> Iterator[None]:
    """Let tf_keras number layers in a list also if they are stored elsewhere, as Keras 2.13."""
    from tf_keras.src.saving import saving_lib
    from tf_keras.src.utils import generic_utils

    def load(
        container: Any,
        weights_store: Any,
        assets_store: Any,
        inner_path: str,
        skip_mismatch: bool,
        visited_trackables: Any,
    ) -> None:
        counts: dict[str, int] = {}
        members = container.values() if isinstance(container, dict) else container
        for member in filter(saving_lib._is_keras_trackable, list(members)):
            name = generic_utils.to_snake_case(type(member).__name__)
            count = counts.get(name, 0)
            counts[name] = count + 1
            saving_lib._load_state(
                member,
                weights_store,
                assets_store,
                f"{inner_path}/{name}_{count}" if count else f"{inner_path}/{name}",
                skip_mismatch,
                visited_trackables,
            )

    with as_keras_2_14(), mock.patch.object(saving_lib, "_load_container_state", load):
        yield
