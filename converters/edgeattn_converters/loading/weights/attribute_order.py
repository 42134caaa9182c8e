"""Whether tf_keras saved a file of weights, by its groups for a model of the user.

Keras stores a layer under the first attribute that leads to it, and ``layers`` of a model leads to
all of its layers. Keras 3 visits attributes in alphabetical order, as do Keras 2.12 to 2.14, and
tf_keras, as Keras 2.15, in reverse: so ``embedding`` has a group of its own in the former only, and
``output_layer`` in tf_keras only.
"""

from collections import Counter
from collections.abc import Container, Iterator
from typing import Any

from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.own_code.hidden_layers import in_attribute
from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.own_code.subclassed import is_subclassed
from edgeattn_converters.loading.weights.from_archive import numbered

_LAYERS = "layers"


def is_of_tf_keras(file: Any, model: Any) -> bool | None:
    """Return whether tf_keras saved the weights of a built model; None if either could have.

    ``file`` is an open HDF5 file with the layout that both have.
    """
    parents = Counter(
        id(inner) for layer in model._flatten_layers() for inner in getattr(layer, "_layers", ())
    )
    shared = {key for key, count in parents.items() if count > 1}
    signs = {
        sign for group, part in _own_models(file, model) for sign in _signs(group, part, shared)
    }
    # Two attributes with the same layer may contradict each other.
    return signs.pop() if len(signs) == 1 else None


def _signs(group: Any, model: Any, shared: Container[int]) -> Iterator[bool]:
    """Yield for each attribute of a model whether its group, or the lack of it, is of tf_keras.

    The weights of ``shared`` layers, given by their identity, may be stored in another model.
    """
    import keras

    others = _has_arrays(group, _LAYERS)
    for name, value in vars(model).items():
        layers = [item for item in in_attribute(value) if isinstance(item, keras.layers.Layer)]
        # Versions of Keras 3 visit private attributes first or last.
        if name.startswith("_") or not any(layer.weights for layer in layers):
            continue
        stored = _has_arrays(group, name)
        if (stored or others) and not any(id(layer) in shared for layer in layers):
            yield stored == (name > _LAYERS)


def _own_models(group: Any, layer: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the models of the user's classes in a layer, each after its group."""
    import keras

    if isinstance(layer, keras.Model) and not is_subclassed(layer):
        layers = group.get(_LAYERS, {})
        names = numbered(type(inner).__name__ for inner in layer.layers)
        for name, inner in zip(names, layer.layers, strict=True):
            if name in layers:
                yield from _own_models(layers[name], inner)
        return
    if is_subclassed(layer) and is_own_class(type(layer)):
        yield group, layer
    for name, value in vars(layer).items():
        if isinstance(value, keras.layers.Layer) and _has_arrays(group, name):
            yield from _own_models(group[name], value)


def _has_arrays(group: Any, name: str) -> bool:
    return name in group and any(True for _ in hdf5.datasets(group[name]))
