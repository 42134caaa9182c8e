"""A program for an older Keras that builds a model: its version, and what its calls show of it."""

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.eras import image_order

# The Keras that changed the default of recurrent_activation from hard_sigmoid.
SIGMOID_BY_DEFAULT = {
    **dict.fromkeys(("LSTM", "GRU", "LSTMCell", "GRUCell"), (2, 3)),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), (3,)),
}
# Both TensorFlow 1.15 and 2.1 call their Keras 2.2.4-tf; only the latter has other defaults.
_OF_TWO_TENSORFLOWS = (2, 2, 4)
# Until then, Conv2D(32, 3, 3) had a kernel of 3x3, as in Keras 1; now its strides are 3.
_STRIDES_IN_PLACE = (2, 4)
_EPSILON_OF_TODAY = (1, 2)
# The end of a note on what differs in Keras 2, for files of Keras 3 or tf_keras.
OF_TF_KERAS = (
    "The file does not contain its version. If tf_keras saved it, the outputs are wrong: save the "
    "weights as .h5, model.save_weights('model.h5')."
)


@dataclass
class Program:
    """What is known about a program, and what its calls show while it runs.

    Attributes:
        version: version of the Keras that saved its weights; ``()`` if the file does not contain
            it, which files of Keras 1 do not always.
        of_tensorflow: whether that Keras was part of TensorFlow.
        may_be_older: whether the file could also be one of tf_keras 2.16 or later.
        is_keras_1: whether a call was one of Keras 1, which early versions of Keras 2 understand.
        undecided: names of layers whose gates have a default that the version does not show.
        notes: sentences for the user about defaults that cannot be known.
        stateful: names of layers that kept their state from one batch to the next.
        failure: why a call of its model failed, whose layers then lack weights.
    """

    version: tuple[int, ...] = (3,)
    of_tensorflow: bool = False
    may_be_older: bool = False
    is_keras_1: bool = False
    undecided: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    stateful: list[str] = field(default_factory=list)
    failure: UnsupportedModelError | None = None

    def has_kernels_in_place(self) -> bool:
        """Whether the second and third argument of ``Conv2D`` are the sizes of the kernel."""
        return not self.of_tensorflow and self.version < _STRIDES_IN_PLACE

    def defaults(self, class_name: str) -> dict[str, Any]:
        """Return arguments of a layer whose defaults are others in the current Keras."""
        changed = SIGMOID_BY_DEFAULT.get(class_name)
        if not self.version:
            return {}
        if not changed or self.version >= changed:
            order = image_order.other_default(class_name, self.version, self.of_tensorflow)
            return {} if order is None else {"data_format": order}
        if self._may_be_either(changed):
            return {}
        before = {"reset_after": False} if class_name in ("GRU", "GRUCell") else {}
        return {"recurrent_activation": "hard_sigmoid", **before}

    def record(self, class_name: str, name: str, given: Container[str]) -> None:
        """Note the defaults of a layer; ``given`` are the arguments of its call."""
        changed = SIGMOID_BY_DEFAULT.get(class_name)
        if changed and self._may_be_either(changed) and "recurrent_activation" not in given:
            self.undecided.add(name)
        for argument, value in self.defaults(class_name).items():
            if argument not in given:
                self.notes.append(
                    f"{name}: {argument} is {value!r}, the default of the Keras that saved the "
                    "weights."
                )
        old = self.version and self.version < _EPSILON_OF_TODAY
        if class_name == "BatchNormalization" and old and "epsilon" not in given:
            self.notes.append(
                f"{name}: epsilon is 0.001, but its default was smaller before Keras 1.2. If the "
                "model was trained with the default, set it in the function."
            )

    def _may_be_either(self, changed: tuple[int, ...]) -> bool:
        return self.of_tensorflow and _OF_TWO_TENSORFLOWS <= self.version < changed < (3,)


def generated_name(kind: str) -> str:
    """Return the next name that Keras gives to a layer of a kind, such as ``merge_1``."""
    from keras.src.utils.naming import auto_name

    return str(auto_name(kind))
