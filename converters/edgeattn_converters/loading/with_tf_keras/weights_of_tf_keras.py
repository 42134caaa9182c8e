"""Weights of a model of the user's program or classes, in the places where tf_keras loads them.

The order of the weights in files of Keras 2 follows from what a class does with its attributes.
If the weights do not fit the model in Keras 3, tf_keras loads the file into the same program, and
each variable gets the value of the one to which the same attributes lead there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeattn.errors import EdgeattnError, UnsupportedModelError
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.fixed_time_axis import TimeSteps
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.loaded_model import LoadedModel
from edgeattn_converters.loading.own_code import subclassed
from edgeattn_converters.loading.own_code.classes_of_keras_2 import is_of_tensorflow
from edgeattn_converters.loading.weights.assignment import Array, Assignment, own_layer
from edgeattn_converters.loading.weights.attribute_graph import (
    Edges,
    Framework,
    counterparts,
    graph_of,
)
from edgeattn_converters.loading.weights.weights_file import open_weights
from edgeattn_converters.loading.with_tf_keras.tf_keras_check import NotComparedError, in_worker
from edgeattn_converters.loading.with_tf_keras.tf_keras_process import UserProgram
from edgeattn_converters.loading.with_tf_keras.tf_keras_samples import sample_groups

_TASK = "edgeattn_converters.loading.with_tf_keras.tf_keras_variables:variables"
# The first Keras that visits attributes in the order of tf_keras to save groups of objects.
_GROUPS_AS_TF_KERAS = (2, 15)


@dataclass(frozen=True)
class _Answer:
    """What tf_keras has loaded: see :func:`.tf_keras_variables.variables`."""

    version: str
    edges: list[Edges]
    weights: frozenset[int]
    values: Mapping[int, Array]

    @property
    def without_value(self) -> int:
        """The number of weights that tf_keras leaves as they were initialized, silently."""
        return len(self.weights - self.values.keys())


@dataclass
class WeightsOfTfKeras:
    """Assigns the weights of a file as tf_keras does, if edgeattn cannot or does so wrongly.

    Attributes:
        program: returns the files of the user; None if there are none.
        samples: arrays of the user, by name.
        time_steps: the length of a free time axis.
        allow_free_time: whether the length may be missing.
        error: why the weights were assigned as tf_keras does; None if they were not.
        is_required: whether to do so also if edgeattn can assign them.
        version: that of tf_keras.
    """

    program: Callable[[], UserProgram | None]
    samples: Mapping[str, Any]
    time_steps: TimeSteps | None
    allow_free_time: bool
    error: UnsupportedModelError | None = None
    is_required: bool = False
    version: str = ""
    _answers: list[_Answer | None] = field(default_factory=list)
    _failure: NotComparedError | None = None

    def assign(
        self, assign: Callable[[], None], file: ModelFile, model: Any, version: tuple[int, ...]
    ) -> None:
        """Assign the weights of a file of Keras ``version`` to a model: by ``assign``, if it can.

        Raises its :class:`Keras3ModelError` if tf_keras does not load the file either.
        """
        try:
            assign()
        except Keras3ModelError as error:  # no other: some weights are lost or ambiguous
            if not self._assign(file, model, version):
                raise self._explained(error) from error
            self.error = self.error or error
            return
        if self.is_required:
            before = [np.asarray(variable) for variable in model.weights]
            if self._assign(file, model, version) and not _equal(before, model):
                self.error = self.error or UnsupportedModelError(_OTHERWISE)

    def notes(self) -> tuple[str, ...]:
        """Return a note if the weights were assigned as tf_keras does."""
        if self.error is None:
            return ()
        return (
            f"The weights were assigned as tf_keras {self.version} loads them: each variable has "
            "the value of the one to which the same attributes lead in tf_keras. In their order, "
            f"they do not fit the model in Keras 3: {' '.join(self.error.message.split())}",
        )

    def _explained(self, error: Keras3ModelError) -> Keras3ModelError:
        """Return an error of weights with what tf_keras has done with them."""
        if not self._answers:
            return error
        if self._failure is not None:
            text, hint = (
                f"{self._failure.name} cannot load them: {self._failure.reason}.",
                error.hint,
            )
        elif (answer := self._answers[0]) is None:
            return error
        elif answer.without_value:
            text = (
                f"tf_keras {answer.version} loads none for {answer.without_value} of "
                f"{len(answer.weights)} variables either and keeps their initial values, without "
                "an error."
            )
            hint = _NOT_STORED
        else:
            text = (
                f"tf_keras {answer.version} loads them, but the attributes that lead to "
                "them do not show where they belong in Keras 3."
            )
            hint = _EXPORT
        return type(error)(f"{error.message} {text}", hint=hint)

    def _assign(self, file: ModelFile, model: Any, version: tuple[int, ...]) -> bool:
        """Assign what tf_keras has loaded; return whether it is all that the model needs."""
        if not is_of_tensorflow(file.keras_version, version):
            return False  # other versions list the weights in another order
        if not self._answers:
            self._answers.append(self._answer(file, model, version))
        answer = self._answers[0]
        if answer is None:
            return False
        pairs = _pairs(model, answer)
        if pairs is None:
            return False
        self.version = answer.version
        assignment = Assignment(model)
        for variable, value in pairs:
            assignment.assign(variable, value, variable.path)
        assignment.require_complete()
        return True

    def _answer(self, file: ModelFile, model: Any, version: tuple[int, ...]) -> _Answer | None:
        program = self.program()
        if program is None or file.kind == "saved-model":
            return None
        with open_weights(file) as weights:
            if weights.has_objects and version < _GROUPS_AS_TF_KERAS:
                return None
        try:
            built = subclassed.as_functional(
                model, self.samples, self.time_steps, allow_free_time=self.allow_free_time
            )
            groups = sample_groups(built, self.samples, self.time_steps)
            if not groups:
                return None  # Keras 3 does not compute what it has built
            by_name = subclassed.is_called_by_name(model, built)
            loaded = LoadedModel(file, built, (), is_called_by_name=by_name)
            inputs = [inputs for inputs, _ in groups[:1]]
            result, arrays = in_worker(_TASK, loaded, program, inputs)
        except NotComparedError as failure:
            self._failure = failure
            return None
        except EdgeattnError:  # the error of the weights is the reason
            return None
        values = {int(number): value for number, value in arrays.items()}
        return _Answer(result["version"], result["edges"], frozenset(result["weights"]), values)


_EXPORT = (
    "Load the weights into the program with tf_keras, and convert the folder that "
    "model.export('folder') writes."
)
_NOT_STORED = (
    "The trained values of these variables are not in the file. Keras 2 does not save layers in a "
    "list of lists, for example, to .keras and .weights.h5 files. Save the trained model again "
    "with model.save_weights('model.h5'), which contains all its weights."
)
_OTHERWISE = "Their shapes fit in both orders, and the outputs differ."


def _equal(before: list[Array], model: Any) -> bool:
    pairs = zip(before, model.weights, strict=True)
    return all(np.array_equal(value, np.asarray(weight), equal_nan=True) for value, weight in pairs)


def _pairs(model: Any, answer: _Answer) -> list[tuple[Any, Array]] | None:
    """Return each variable of a model with its value; None if one has none, or not one only."""
    import keras

    graph = graph_of(model, Framework(keras.layers.Layer, keras.Variable, own_layer))
    numbers = {id(variable): number for number, variable in enumerate(graph.variables)}
    found = counterparts(graph.edges, answer.edges)
    pairs, used = [], set[int]()
    for variable in model.weights:
        others = found.get(numbers.get(id(variable), -1), set())
        if len(others) != 1 or not others <= answer.values.keys():
            return None
        used |= others
        value = answer.values[next(iter(others))]
        if tuple(value.shape) != tuple(variable.shape):
            return None
        pairs.append((variable, value))
    return pairs if answer.weights <= used else None
