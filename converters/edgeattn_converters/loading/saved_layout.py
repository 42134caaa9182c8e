"""Which Keras saved weights of a model of the user without a version, by the groups that fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading.architecture import load_weights
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.weights import attribute_order
from edgeattn_converters.loading.weights.weights_file import open_weights

KERAS_3 = (3,)
# The first version of tf_keras whose files of weights have the layout of Keras 3.
TF_KERAS = (2, 16)
# Versions of Keras 2 with other names of groups, the first ones of each kind but 2.12, which has
# those of 2.13, and 2.15, which has those of tf_keras.
_FORMER = ((2, 13), (2, 14))
# Groups of layers that only Keras 3 stores.
_OF_KERAS_3 = "seed_generator"
Version = tuple[int, ...]


@dataclass(frozen=True)
class SavedLayout:
    """What the groups of a file show of the Keras that saved it.

    Attributes:
        version: the first version of Keras with such groups; ``()`` if those of none fit.
        may_be_older: whether the groups of a Keras 2 fit as well as those of Keras 3.
        is_unclear: whether these would assign other weights.
        fits: whether the weights fit the model in any version.
    """

    version: Version
    may_be_older: bool = False
    is_unclear: bool = False
    fits: bool = True


def of_file(file: ModelFile, model: Any) -> SavedLayout:
    """Compare the groups of a file with a built model, whose weights are then those of a trial.

    Raises :class:`UnsupportedModelError` if several versions of Keras 2 would assign different
    weights, and Keras 3 none.
    """
    with open_weights(file) as opened:
        of_tf_keras = attribute_order.is_of_tf_keras(opened.source, model)
        of_keras_3 = any(_OF_KERAS_3 in path for path, _ in hdf5.datasets(opened.source))
    if of_tf_keras:
        return SavedLayout(TF_KERAS)
    former = () if of_keras_3 else _FORMER if of_tf_keras is False else (*_FORMER, TF_KERAS)
    weights = _fitting(file, model, (KERAS_3, *former))
    if not weights:
        return SavedLayout(KERAS_3 if of_tf_keras is False else (), fits=False)
    if KERAS_3 in weights:
        return SavedLayout(KERAS_3, len(weights) > 1, _is_unclear(weights))
    return SavedLayout(_one_version(file, weights))


def of_keras_2(file: ModelFile, model: Any) -> Version:
    """Return the first version of Keras 2 whose groups fit a model built as in Keras 2.

    ``()`` if those of none do. Raises :class:`UnsupportedModelError` as :func:`of_file`.
    """
    weights = _fitting(file, model, (*_FORMER, TF_KERAS))
    return _one_version(file, weights) if weights else ()


def _fitting(
    file: ModelFile, model: Any, versions: Sequence[Version]
) -> dict[Version, Sequence[Any]]:
    """Return the versions that can load the weights into a model, with these."""
    return {
        version: values
        for version in versions
        if (values := _assigned(file, model, version)) is not None
    }


def _is_unclear(weights: Mapping[Version, Sequence[Any]]) -> bool:
    """Return whether versions would assign different weights."""
    first, *others = weights.values()
    return any(not all(map(np.array_equal, first, other)) for other in others)


def _one_version(file: ModelFile, weights: Mapping[Version, Sequence[Any]]) -> Version:
    """Return the version of Keras 2 that loads the weights, the last one of those that do."""
    if _is_unclear(weights):
        listed = enumerated([".".join(map(str, version)) for version in weights])
        raise UnsupportedModelError(
            f"{file.path.name} does not contain its Keras version. Keras {listed} would assign its "
            "weights to the model in different ways.",
            hint="Save the weights as .h5: model.save_weights('model.h5')",
        )
    return max(weights)


def keras_name(version: Version) -> str:
    """Return what a note calls a Keras 2."""
    return "tf_keras" if version == TF_KERAS else f"Keras {'.'.join(map(str, version))}"


def _assigned(file: ModelFile, model: Any, version: Version) -> list[Any] | None:
    """Return the weights of a model that a version loads; None if it reports an error."""
    try:
        load_weights(file, model, version)
    except UnsupportedModelError:
        return None
    return [np.asarray(variable) for variable in model.weights]
