"""The front end of a bundle: from ``--preprocess``, ``--labels`` and the layers of the model."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeattn.errors import SampleError, UsageError
from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FrontEnd, Step, from_toml
from edgeattn.frontend.numeric import PadSequences
from edgeattn.frontend.text import TextVectorization
from edgeattn.frontend.text_files import read_labels
from edgeattn.inference.raw import RawModel
from edgeattn.inference.raw_samples import read_raw_samples
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Specs, Tensors, TensorSpec
from edgeattn_converters.loading.loaded_model import LoadedModel
from edgeattn_converters.loading.removed_layers import RemovedLayers
from edgeattn_converters.options import ModelSource
from edgeattn_converters.tracing.trace import Interface

Activation = Literal["none", "softmax", "sigmoid"]


def build(loaded: LoadedModel, interface: Interface, source: ModelSource) -> FrontEnd | None:
    """The front end of the bundle; None if nothing is described.

    The steps of ``--preprocess`` come before those of the layers of the model. Raises
    :class:`UsageError` if the description does not fit the model.
    """
    described = FrontEnd() if source.preprocess is None else from_toml(Path(source.preprocess))
    specs = {spec.name: spec for spec in sample_inputs(interface.inputs)}
    for name in described.inputs:
        if name not in specs:
            raise UsageError(
                f"{Path(str(source.preprocess)).name}: the model has no input {name!r}.",
                hint=f"Its inputs: {', '.join(specs)}.",
            )
    if described.window is not None and len(specs) != 1:
        raise UsageError("[window] requires a model with one input; use windows as samples.")
    inputs = {
        name: (*described.inputs.get(name, ()), *_layer_steps(loaded.preprocessing.get(name), spec))
        for name, spec in specs.items()
    }
    inputs = {name: steps for name, steps in inputs.items() if steps}
    answer = _answer(described.answer, loaded.model, interface, source)
    if not inputs and described.window is None and answer is None:
        return None
    return replace(described, inputs=inputs, answer=answer, stored_inputs=loaded.stored_inputs)


def _layer_steps(removed: RemovedLayers | None, spec: TensorSpec) -> tuple[Step, ...]:
    steps = () if removed is None else removed.steps()
    length = spec.shape[1] if len(spec.shape) == 2 else None
    last = steps[-1] if steps else None
    if (
        isinstance(last, TextVectorization)
        and (last.output_mode, last.output_sequence_length) == ("int", None)
        and length is not None
    ):
        # As Keras pads the shorter texts of a batch.
        return (*steps, PadSequences(length, padding="post", truncating="error"))
    return steps


def _answer(
    described: Answer | None, model: Any, interface: Interface, source: ModelSource
) -> Answer | None:
    outputs = interface.outputs
    labels = () if source.labels is None else read_labels(Path(source.labels))
    if described is None and not labels:
        return None
    if described is not None and described.labels and labels:
        raise UsageError(
            f"--labels excludes the labels in {Path(str(source.preprocess)).name}.",
            hint="Omit one of them.",
        )
    if described is None:
        described = Answer(kind="tagging" if len(outputs[0].shape) > 2 else "classification")
    answer = replace(described, labels=described.labels or labels)
    answer.check(outputs)
    if answer.activation == "auto":
        answer = replace(answer, activation=_missing_activation(answer, model, outputs))
    return answer


def _missing_activation(answer: Answer, model: Any, outputs: Specs) -> Activation:
    """The function that makes scores of the output: none if its layer has an activation."""
    index = next(i for i, spec in enumerate(outputs) if answer.output in (None, spec.name))
    layer = getattr(getattr(model.outputs[index], "_keras_history", None), "operation", None)
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    if answer.kind == "regression" or activation != "linear":
        return "none"
    single = answer.kind == "classification" and outputs[index].shape[-1] == 1
    return "sigmoid" if single or answer.kind == "multi_label" else "softmax"


def prepared_inputs(interface: Interface, front_end: FrontEnd, path: Path) -> Tensors:
    """The raw samples in a file as the front end prepares them; :class:`SampleError` as above."""
    samples = read_raw_samples(path, front_end, sample_inputs(interface.inputs))
    model = RawModel(front_end, interface.inputs, (), lambda inputs: inputs)
    rows = []
    for number, sample in enumerate(samples, 1):
        with naming(path, number):
            rows.append(model.prepare(sample))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


@contextlib.contextmanager
def naming(path: Path, number: int) -> Iterator[None]:
    """Add the position of the sample to an error."""
    try:
        yield
    except SampleError as error:
        raise SampleError(
            f"{path.name}, sample {number}: {error.message}", hint=error.hint
        ) from error
