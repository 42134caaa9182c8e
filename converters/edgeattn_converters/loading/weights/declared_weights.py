"""Weights that an architecture declares, more than those of a file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.migrate.context import Shape
from edgeattn_converters.loading.weights.assignment import OTHER_ARCHITECTURE


@dataclass(frozen=True)
class DeclaredWeight:
    """A weight that a layer declares, before it is allocated: names of the two, and its shape."""

    layer: str
    name: str
    shape: Shape


class MoreWeightsError(UnsafeModelError):
    """A model that declares more weights than its file contains.

    ``declared`` are its weights in order, up to the one that exceeds the limit.
    """

    def __init__(self, declared: Sequence[DeclaredWeight]) -> None:
        super().__init__(
            f"Refused: the model declares weights of shape {tuple(declared[-1].shape)}, more than "
            "the file contains.",
            hint="Do not use this file: it is damaged or was made to exhaust memory.",
        )
        self.declared = tuple(declared)


def other_architecture(
    declared: Sequence[DeclaredWeight],
    stored: Mapping[str, Sequence[tuple[str, Shape]]],
    size: int,
) -> UnsupportedModelError:
    """Return the error about an architecture of its own file that declares more weights.

    ``stored`` are paths and shapes of the arrays in the file by layer, which are ``size`` values.
    """
    weight, found = _first_difference(declared, stored) or (declared[-1], None)
    if found is not None:
        end = f"the file contains {tuple(found)}."
    else:
        end = f"with which the model has more values than the {size} in the file."
    return UnsupportedModelError(
        f"Layer {weight.layer!r} has weights of shape {tuple(weight.shape)}, {end}",
        hint=OTHER_ARCHITECTURE,
    )


def _first_difference(
    declared: Sequence[DeclaredWeight], stored: Mapping[str, Sequence[tuple[str, Shape]]]
) -> tuple[DeclaredWeight, Shape] | None:
    """Return the first weight of another size than in the file, with its shape there.

    Of layers with other names than those in the file, the order counts. None if there is no array
    of the same name in a layer of the file.
    """
    layers = list(dict.fromkeys(weight.layer for weight in declared))
    names = [name for name, arrays in stored.items() if arrays]
    named = dict(zip(layers, layers, strict=True))
    if not set(layers) & set(names):
        named = dict(zip(layers, names, strict=False))
    places: dict[str, int] = {}
    for weight in declared:
        # Archives store the weights of a layer by their places.
        place = places[weight.layer] = places.get(weight.layer, -1) + 1
        for path, shape in stored.get(named.get(weight.layer, ""), ()):
            key = path.rpartition("/")[2].partition(":")[0]
            if key in (weight.name, str(place)) and math.prod(shape) != math.prod(weight.shape):
                return weight, shape
    return None
