"""Compare a model of the user's program or classes with the same program in tf_keras.

edgeattn runs programs for Keras 2 in Keras 3, with many adaptions. tf_keras runs them in a worker
process of its own, with the same weights and on the same samples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeattn.errors import EdgeattnError, UnsupportedModelError, first_line
from edgeattn.printable import keras_name
from edgeattn.process.worker import WorkerDiedError
from edgeattn_converters.loading import config_inspection, error_text
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.eras import original_keras
from edgeattn_converters.loading.fixed_time_axis import TimeSteps
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.legacy.legacy_program import OF_TF_KERAS
from edgeattn_converters.loading.loaded_model import LoadedModel
from edgeattn_converters.loading.output_differences import (
    TOLERANCE,
    WRONG,
    Difference,
    difference,
    unknown_note,
)
from edgeattn_converters.loading.training_mode import is_in_training_mode
from edgeattn_converters.loading.with_tf_keras import tf_keras_process
from edgeattn_converters.loading.with_tf_keras.tf_keras_process import (
    UserProgram,
    source_of,
    version_of,
)
from edgeattn_converters.loading.with_tf_keras.tf_keras_samples import (
    predict,
    sample_groups,
    structure_of,
)

_KERAS_2 = (2,)
_UNVERIFIED = (
    "The file does not contain its version: the outputs are those of Keras 3, and may be wrong if "
    "Keras 2 or tf_keras saved it."
)


class DifferentOutputsError(UnsupportedModelError):
    """A model for which tf_keras computes other outputs, and nothing explains that."""


class WronglyLoadedError(DifferentOutputsError, Keras3ModelError):
    """One of Keras 2: what tf_keras computes is right."""


class NotComparedError(Exception):
    """A model that tf_keras cannot load or run, for a ``reason``."""

    def __init__(self, reason: str, version: str = "") -> None:
        self.reason, self.name = reason.rstrip("."), f"tf_keras {version}".strip()
        super().__init__(f"The model was not compared with {self.name}: {self.reason}.")


@dataclass(frozen=True)
class _Answer:
    """What tf_keras computed: its version, and the outputs for each group, None if it failed."""

    version: str
    groups: tuple[tuple[Any, ...] | None, ...]


def with_comparison(
    loaded: LoadedModel,
    program: UserProgram,
    samples: Mapping[str, Any],
    time_steps: TimeSteps | None,
    as_saved_by: Callable[[str], Any],
    required: UnsupportedModelError | None = None,
) -> LoadedModel:
    """Add a note to a model of Keras 2 if tf_keras computes other outputs for it, or none.

    ``samples`` are those of the user, by name. ``as_saved_by`` loads the model as if another
    version had saved its file. Raises :class:`DifferentOutputsError` if nothing explains the
    difference, and for a file without a version, if its outputs depend on that. ``required`` is
    the error to raise if the model was not compared; None if that is no error.
    """
    version = version_of(loaded.file, program)
    if version[:1] != _KERAS_2 and not loaded.may_be_of_tf_keras:
        if required is not None:
            raise required
        return loaded
    try:
        groups = _groups(loaded, samples, time_steps)
        answer = _answer(loaded, program, [inputs for inputs, _ in groups])
    except NotComparedError as failure:
        if required is not None:
            raise required from failure
        note = f"{failure} {_UNVERIFIED}" if loaded.may_be_of_tf_keras else str(failure)
        return replace(loaded, notes=(*loaded.notes, note))
    found = _difference(answer, [outputs for _, outputs in groups])
    if found.unknown:
        note = unknown_note(loaded.model, found.unknown, f"tf_keras {answer.version}")
        if loaded.may_be_of_tf_keras:
            note = f"{note} {_UNVERIFIED}"
        loaded = replace(loaded, notes=(*loaded.notes, note))
    error = found.error
    if error <= TOLERANCE:
        return loaded
    if required is None and not all(map(_has_batch_axes, groups)):
        reason = "the first axis of an output is not that of the samples"
        note = str(NotComparedError(reason, answer.version))
        return replace(loaded, notes=(*loaded.notes, note))
    text = (
        f"tf_keras {answer.version} {program.action} and computes different outputs (max error "
        f"{error:.1e} of the largest value on generated samples)"
    )
    if loaded.may_be_of_tf_keras:
        if error > WRONG:
            raise DifferentOutputsError(
                f"{loaded.file.path.name} does not contain its Keras version, on which its outputs "
                f"depend: {text}.",
                hint="Save the weights again with the Keras that trained the model: "
                "model.save_weights('model.h5') in Keras 2, model.save('model.keras') in Keras 3.",
            )
        return replace(loaded, notes=_with_sentence(loaded.notes, f"{text}."))
    note = f"{text}."
    if error > WRONG:
        note = _explained(loaded.file, version, text, groups, answer, as_saved_by)
    return replace(loaded, notes=(*loaded.notes, note))


def _with_sentence(notes: Sequence[str], sentence: str) -> tuple[str, ...]:
    """Return notes with a sentence added to one about a file without a version, or a new one."""
    for index, note in enumerate(notes):
        if "does not contain its" in note:
            return (*notes[:index], f"{note} {sentence}", *notes[index + 1 :])
    return (*notes, f"{sentence} {OF_TF_KERAS}")


def _groups(
    loaded: LoadedModel, samples: Mapping[str, Any], time_steps: TimeSteps | None
) -> list[tuple[list[Any], list[Any]]]:
    """Return groups of samples with the outputs of a model, if it can be compared."""
    if loaded.preprocessing:
        raise NotComparedError("layers ahead of the inputs were removed")
    if loaded.file.kind == "saved-model":
        raise NotComparedError("it is a SavedModel folder")
    if is_in_training_mode(loaded.model):
        raise NotComparedError("a layer is called in training mode, in which tf_keras computes")
    try:
        groups = sample_groups(loaded.model, samples, time_steps)
    except Exception as error:  # such as inputs that are texts
        raise NotComparedError(error_text.beginning(first_line(error), 160)) from error
    if not groups:
        raise NotComparedError("it fails for generated samples")
    return groups


def _has_batch_axes(group: tuple[Sequence[Any], Sequence[Any]]) -> bool:
    """Whether outputs have a row for each sample, as is necessary for ``predict`` to join them."""
    inputs, outputs = group
    return all(np.shape(value)[:1] == np.shape(inputs[0])[:1] for value in outputs)


def _explained(
    file: ModelFile,
    version: tuple[int, ...],
    text: str,
    groups: Sequence[tuple[Any, Any]],
    answer: _Answer,
    as_saved_by: Callable[[str], Any],
) -> str:
    """Return a note that the version of the file explains a difference.

    Raises :class:`UnsupportedModelError` if it does not: the model as tf_keras would have saved it
    computes the same as the loaded one.
    """
    same = version[:2] == config_inspection.version_numbers(answer.version)[:2]
    others = None if same else _outputs_of(as_saved_by, answer.version, groups)
    if others is not None and _difference(answer, others).error <= TOLERANCE:
        saved_by = keras_name(".".join(map(str, version)))
        return (
            f"{text}, only because it does not make the changes listed here, which are those of "
            f"{saved_by}."
        )
    ours = [outputs for _, outputs in groups]
    unchanged = others is not None and difference(others, ours).error <= TOLERANCE
    if same or unchanged:
        why = ", and saved the file" if same else ", and no change of edgeattn explains that"
        raise WronglyLoadedError(
            f"{file.path.name} would be loaded wrongly: {text}{why}.",
            hint="Save the model in the current Keras 3 and convert that file.",
        )
    return f"{text}. Whether only the changes listed here cause this was not verified."


def _outputs_of(
    as_saved_by: Callable[[str], Any], version: str, groups: Sequence[tuple[Any, Any]]
) -> list[Any] | None:
    try:
        with original_keras.restored():
            model = as_saved_by(version)
            return [predict(model, inputs) for inputs, _ in groups]
    except Exception:  # a file may not load as one of another version
        return None


def _answer(loaded: LoadedModel, program: UserProgram, groups: Sequence[Sequence[Any]]) -> _Answer:
    """Return what tf_keras computes for groups of inputs."""
    task = "edgeattn_converters.loading.with_tf_keras.tf_keras_worker:outputs"
    result, arrays = in_worker(task, loaded, program, groups)
    reasons = [count for count in result["groups"] if not isinstance(count, int)]
    values = [
        tuple(arrays[f"{group}/{k}"] for k in range(count)) if isinstance(count, int) else ()
        for group, count in enumerate(result["groups"])
    ]
    if not any(values):
        raise NotComparedError(next(iter(reasons), "it has no outputs"), result["version"])
    return _Answer(result["version"], tuple(outputs or None for outputs in values))


def in_worker(
    task: str, loaded: LoadedModel, program: UserProgram, groups: Sequence[Sequence[Any]]
) -> tuple[Any, Mapping[str, Any]]:
    """Return result and arrays of a task for a model and groups of inputs, run with tf_keras.

    Raises :class:`NotComparedError` if tf_keras cannot load the model.
    """
    tensors = {
        f"{group}/{number}": np.asarray(array)
        for group, inputs in enumerate(groups)
        for number, array in enumerate(inputs)
    }
    source = _source(loaded, program, len(groups))
    try:
        result, arrays = tf_keras_process.call(task, source, tensors)
    except WorkerDiedError as error:
        raise NotComparedError(f"its process {error.message}") from error
    except EdgeattnError as error:
        raise NotComparedError(error_text.beginning(first_line(error), 200)) from error
    if result["failure"] is not None:
        raise NotComparedError(result["failure"], result["version"])
    return result, arrays


def _source(loaded: LoadedModel, program: UserProgram, groups: int) -> dict[str, Any]:
    import keras

    count = len(loaded.model.inputs)
    numbers = keras.tree.pack_sequence_as(structure_of(loaded.model), list(range(count)))
    return {
        **source_of(loaded.file, program),
        "structure": _listed(numbers),
        "numbers": list(range(count)),
        "by_name": loaded.is_called_by_name,
        "groups": groups,
    }


def _listed(value: Any) -> Any:
    """Return a structure of lists and dictionaries, which JSON can represent."""
    if isinstance(value, Mapping):
        return {str(key): _listed(item) for key, item in value.items()}
    return list(map(_listed, value)) if isinstance(value, list | tuple) else value


def _difference(answer: _Answer, ours: Sequence[Sequence[Any]]) -> Difference:
    """Return the difference from what tf_keras computes for the groups for which it works."""
    pairs = [(x, theirs) for x, theirs in zip(ours, answer.groups, strict=True) if theirs]
    return difference([x for x, _ in pairs], [theirs for _, theirs in pairs])
