"""The arrays of each layer of a nested model, whose weights are one list in ``.h5`` files."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import (
    Config,
    all_names,
    is_model,
    layer_name,
    stored_layers,
    wrapped_model,
)
from edgeattn_converters.loading.migrate.preprocessing import REMOVED
from edgeattn_converters.loading.migrate.pruned_layers import INSIDE
from edgeattn_converters.loading.weights.assignment import MISMATCH, Array, find_layer

# Paths and arrays of a file, in its order.
NamedArrays = Sequence[tuple[str, Array]]
# Variables that got no name, such as the document frequencies of layers that look up words.
_UNNAMED = re.compile(r"(.*/)?Variable(_\d+)?:0$")


def by_leaf(
    item: Config, layer: Any, arrays: NamedArrays
) -> Iterator[tuple[Config, Any, NamedArrays]]:
    """Yield config, layer and arrays of a layer, or of each layer of a nested or wrapped model."""
    if (wrapped := wrapped_model(item)) is not None:
        item, layer = wrapped, layer.layer
    if not is_model(item):
        yield item, layer, arrays
        return
    leaves = list(leaves_of(item, layer))
    arrays = _of_present(list(all_names(item)), set(_absent(item, layer)), arrays)
    if _has_frequencies(item):
        arrays = [(path, array) for path, array in arrays if not _UNNAMED.match(path)]
    parts = split_by_name(leaves, arrays)
    if parts is None:
        parts, groups = _split_by_order(leaves, arrays), _by_stored_layer(arrays)
        if len(groups) == len(leaves) and not all(part in groups for part in parts):
            # Other layers were trainable when the file was saved, so its order is another one.
            _require_order(leaves, groups, arrays)
            parts = groups
    for (leaf, inner), part in zip(leaves, parts, strict=True):
        yield leaf, inner, part


def leaves_of(item: Config, model: Any) -> Iterator[tuple[Config, Any]]:
    """Yield the layers of a model that have weights, in stored order."""
    for nested in stored_layers(item):
        layer = find_layer(model, nested)
        if layer is None:
            continue
        if is_model(nested):
            yield from leaves_of(nested, layer)
        elif (wrapped := wrapped_model(nested)) is not None:
            yield from leaves_of(wrapped, layer.layer)
        elif layer.weights:
            yield nested, layer


def _absent(item: Config, model: Any) -> Iterator[str]:
    """Yield the names of the layers that a model lacks, because only a loss depends on them."""
    for nested in stored_layers(item):
        layer = find_layer(model, nested)
        if layer is None:
            yield layer_name(nested)
        elif is_model(nested):
            yield from _absent(nested, layer)


def _has_frequencies(item: Config) -> bool:
    """Return whether a model has a layer with inverse document frequencies, at any depth."""
    return any(
        _has_frequencies(nested)
        if is_model(nested)
        else nested.get("class_name") in REMOVED
        and nested["config"].get("output_mode") in ("tf_idf", "tf-idf")
        for nested in stored_layers(item)
    )


def _of_present(names: Sequence[str], absent: Set[str], arrays: NamedArrays) -> NamedArrays:
    """Return the arrays without those of absent layers, which have their names in the paths."""
    kept = []
    for path, array in arrays:
        steps = path.split("/")
        owners = [name for name in names if name in steps]
        if not owners or max(owners, key=steps.index) not in absent:
            kept.append((path, array))
    return kept


def split_by_name(
    leaves: Sequence[tuple[Config, Any]], arrays: NamedArrays
) -> list[NamedArrays] | None:
    """Return the arrays of each leaf by the layer name in their paths, None if ambiguous.

    Programs number their layers from another one on, so that ``dense`` and ``dense_1`` may be
    ``dense_1`` and ``dense_2`` in the file.
    """
    names = [layer_name(item) for item, _ in leaves]
    if len(set(names)) != len(names):
        return None
    # A layer inside a wrapper may have its own name in the paths.
    inside = {item[INSIDE]: layer_name(item) for item, _ in leaves if INSIDE in item}
    parts = _split({**inside, **{name: name for name in names}}, names, arrays)
    if parts is None and (shifted := _renumbered(names, list(_by_stored_name(arrays)))):
        parts = _split(shifted, names, arrays)
    return parts


def _split(
    owner_of: Mapping[str, str], names: Sequence[str], arrays: NamedArrays
) -> list[NamedArrays] | None:
    """Return the arrays of each name; ``owner_of`` are the names for those in the paths."""
    parts: dict[str, list[tuple[str, Array]]] = {name: [] for name in names}
    for path, array in arrays:
        steps = path.split("/")
        owners = [name for name in owner_of if name in steps or _starts_with(path, name)]
        if not owners:
            return None
        parts[owner_of[max(owners, key=len)]].append((path, array))
    return list(parts.values()) if all(parts.values()) else None


def _starts_with(path: str, name: str) -> bool:
    """Return whether a path is that of a weight of a layer, as ``dense_W`` of Keras 1 is.

    ``dense_3`` is another layer than ``dense``.
    """
    return re.match(rf"{re.escape(name)}(/|_(?!\d+(/|_|:|$)))", path) is not None


def _renumbered(names: Sequence[str], stored: Sequence[str]) -> dict[str, str]:
    """Return the names of layers for those in the file if only their numbers differ, else none."""
    if len(names) != len(stored):
        return {}
    ours, theirs = sorted(map(_numbered, names)), sorted(map(_numbered, stored))
    if [kind for kind, _, _ in ours] != [kind for kind, _, _ in theirs]:
        return {}
    return {theirs[k][2]: ours[k][2] for k in range(len(names))}


def _numbered(name: str) -> tuple[str, int, str]:
    """Return the kind and the number of a generated name, and the name: dense_2 is the third."""
    kind, _, number = name.rpartition("_")
    return (kind, int(number), name) if kind and number.isdecimal() else (name, 0, name)


def _split_by_order(leaves: Sequence[tuple[Config, Any]], arrays: NamedArrays) -> list[NamedArrays]:
    """Return the arrays of each leaf by position: first all trainable ones, then all others."""
    remaining = list(arrays)
    parts: list[list[tuple[str, Array]]] = [[] for _ in leaves]
    for kind in ("trainable_weights", "non_trainable_weights"):
        for part, (_, layer) in zip(parts, leaves, strict=True):
            count = len(getattr(layer, kind))
            part += remaining[:count]
            remaining = remaining[count:]
    if remaining:
        parts[-1] += remaining  # assign_all reports too many arrays
    return list(parts)


def _by_stored_layer(arrays: NamedArrays) -> list[NamedArrays]:
    """Return the arrays of each layer by its name in the file."""
    return list(_by_stored_name(arrays).values())


def _by_stored_name(arrays: NamedArrays) -> dict[str, list[tuple[str, Array]]]:
    """Return the arrays of each layer by its name in the file, the first in their paths to differ.

    Without common steps: model/dense/kernel:0 and model/norm/gamma:0 are of dense and norm.
    """
    paths = [path.split("/") for path, _ in arrays]
    equal = itertools.takewhile(lambda steps: len(set(steps)) == 1, zip(*paths, strict=False))
    common = len(list(equal))
    groups: dict[str, list[tuple[str, Array]]] = {}
    for steps, item in zip(paths, arrays, strict=True):
        groups.setdefault("/".join(steps[common : common + 1]), []).append(item)
    return groups


def _require_order(
    leaves: Sequence[tuple[Config, Any]], groups: Sequence[NamedArrays], arrays: NamedArrays
) -> None:
    """Raise :class:`UnsupportedModelError` if the groups are not in the order of the leaves.

    They are if no layer was frozen when the file was saved, or all from one on. If others were,
    their groups are behind those of later layers: an error if these have the same shapes.
    """
    positions = {path: position for position, (path, _) in enumerate(arrays)}
    heads: list[list[int]] = []
    tails: list[list[int]] = []
    for group, (_, layer) in zip(groups, leaves, strict=True):
        indices = [positions[path] for path, _ in group]
        adjacent = sum(index - indices[0] == k for k, index in enumerate(indices))
        # For a layer that the architecture freezes, the number of trainable weights is unknown.
        count = len(layer.trainable_weights) or adjacent
        heads.append(indices[:count])
        tails.append(indices[count:])
    shapes = [tuple(tuple(array.shape) for _, array in group) for group in groups]
    for first_frozen in range(len(groups) + 1):
        frozen = zip(heads[first_frozen:], tails[first_frozen:], strict=True)
        order = itertools.chain(
            *heads[:first_frozen], *tails[:first_frozen], *(head + tail for head, tail in frozen)
        )
        if list(order) == list(range(len(arrays))):
            mixed = 0 < first_frozen < len(groups)
            if not mixed or set(shapes[:first_frozen]).isdisjoint(shapes[first_frozen:]):
                return
            break
    raise UnsupportedModelError(
        "Some layers of a nested model were frozen when the file was saved, and the names of its "
        "weights do not show to which layers they belong.",
        hint=MISMATCH,
    )
