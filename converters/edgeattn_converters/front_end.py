"""The front end of a bundle: from ``--preprocess``, ``--labels`` and the layers of the model."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeattn.errors import SampleError, UnsupportedModelError, UsageError
from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FrontEnd, Step, from_toml, read_labels
from edgeattn.frontend.numeric import PadSequences
from edgeattn.frontend.text import TextVectorization
from edgeattn.frontend.values import as_strings
from edgeattn.inference.raw import RawModel
from edgeattn.inference.raw_samples import as_json_bytes, read_raw_samples
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Specs, Tensors, TensorSpec
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.load import LoadedModel
from edgeattn_converters.loading.removed_layers import RemovedLayers
from edgeattn_converters.options import ModelSource
from edgeattn_converters.reference import keras_outputs
from edgeattn_converters.tracing.trace import Interface

Activation = Literal["none", "softmax", "sigmoid"]
# Layers compute what their steps do up to the rounding of sums.
TOLERANCE = 1e-4
MAX_RAW_SAMPLES = 128


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
    return replace(described, inputs=inputs, answer=answer)


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


@dataclass(frozen=True)
class RawReference:
    """Raw samples as arrays that a reference stores, and the inputs that Keras makes of them."""

    raw: Tensors
    inputs: Tensors


def keras_inputs(
    loaded: LoadedModel, interface: Interface, front_end: FrontEnd, path: Path
) -> RawReference:
    """The raw samples in a file, prepared by the original layers of the model.

    Steps of ``--preprocess`` are those of the front end. Raises :class:`SampleError` if a sample
    does not fit, and :class:`UnsupportedModelError` if a layer has no step, or the whole stored
    model computes other outputs than the loaded one for prepared inputs.
    """
    specs = sample_inputs(interface.inputs)
    for removed in loaded.preprocessing.values():
        if removed.reason is not None:
            raise UnsupportedModelError(
                f"The front end cannot prepare raw samples: {removed.reason}",
                hint="Pass prepared inputs with --samples.",
            )
    samples = read_raw_samples(path, front_end, specs)[:MAX_RAW_SAMPLES]
    model = RawModel(front_end, interface.inputs, (), lambda inputs: inputs)
    originals = OriginalLayers(loaded)
    inputs: dict[str, list[Array]] = {spec.name: [] for spec in specs}
    before = replace(front_end, inputs=_without_layers(front_end, loaded))
    for number, sample in enumerate(samples, 1):
        with _naming(path, number):
            prepared = model.prepare(sample)
        for spec in specs:
            array = prepared[spec.name]
            if loaded.preprocessing.get(spec.name) is not None:
                value = before.prepare(spec.name, sample[spec.name])
                array = originals.apply(spec, value).astype(array.dtype)
            inputs[spec.name].append(array)
    stacked = {name: np.concatenate(arrays) for name, arrays in inputs.items()}
    _check_whole_model(loaded, interface, originals, before, samples, stacked)
    raw = {name: [sample[name] for sample in samples] for name in inputs}
    return RawReference(as_json_bytes(raw), stacked)


def prepared_inputs(interface: Interface, front_end: FrontEnd, path: Path) -> Tensors:
    """The raw samples in a file as the front end prepares them; :class:`SampleError` as above."""
    samples = read_raw_samples(path, front_end, sample_inputs(interface.inputs))
    model = RawModel(front_end, interface.inputs, (), lambda inputs: inputs)
    rows = []
    for number, sample in enumerate(samples, 1):
        with _naming(path, number):
            rows.append(model.prepare(sample))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


@contextlib.contextmanager
def _naming(path: Path, number: int) -> Iterator[None]:
    """Add the position of the sample to an error."""
    try:
        yield
    except SampleError as error:
        raise SampleError(
            f"{path.name}, sample {number}: {error.message}", hint=error.hint
        ) from error


def _without_layers(front_end: FrontEnd, loaded: LoadedModel) -> dict[str, tuple[Step, ...]]:
    """The steps of ``--preprocess`` alone."""
    result = {}
    for name, steps in front_end.inputs.items():
        removed = loaded.preprocessing.get(name)
        count = 0 if removed is None else len(removed.layers)
        if count and isinstance(steps[-1], PadSequences) and steps[-1].truncating == "error":
            count += 1
        result[name] = steps[: len(steps) - count]
    return result


class OriginalLayers:
    """The preprocessing layers of a file, as Keras loads them."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._removed = loaded.preprocessing
        self.model = _stock_model(loaded) if loaded.preprocessing else None
        self._rebuilt: dict[str, Any] = {}

    def apply(self, spec: TensorSpec, value: Any) -> Array:
        """The input ``spec`` for one raw value, with a batch axis of 1."""
        removed = self._removed[spec.name]
        tensor = self.tensor(spec.name, value)
        for index, layer in enumerate(removed.layers):
            tensor = self._layer(removed, index, layer)(tensor)
        array = np.asarray(tensor)
        length = spec.shape[1] if len(spec.shape) == 2 else None
        if length is not None and array.shape[1] < length and array.dtype.kind == "i":
            array = np.pad(array, [(0, 0), (0, length - array.shape[1])])
        return array

    def tensor(self, name: str, value: Any) -> Any:
        """One raw value as the input of the stored model takes it."""
        import tensorflow as tf

        config = self._removed[name].input_layer["config"]
        values = as_strings(value) if config.get("dtype") == "string" else np.asarray(value)
        shape = [1, *(axis or -1 for axis in config["batch_shape"][1:])]
        return tf.constant(values.reshape(shape).tolist(), config.get("dtype"))

    def _layer(self, removed: RemovedLayers, index: int, layer: Config) -> Any:
        name = layer["config"]["name"]
        if self.model is not None:
            return self.model.get_layer(name)
        if name not in self._rebuilt:
            import keras

            config = dict(layer["config"])
            for key in ("vocabulary", "idf_weights"):
                if removed.tables is not None and key in removed.tables[index]:
                    config[key] = removed.tables[index][key]
            layer_class = getattr(keras.layers, str(layer["class_name"]))
            self._rebuilt[name] = layer_class.from_config(config)
        return self._rebuilt[name]


def _stock_model(loaded: LoadedModel) -> Any:
    """The model as Keras loads its file; None if it does not."""
    import keras

    if loaded.file.kind != "keras-zip":
        return None
    try:
        return keras.saving.load_model(loaded.file.path, compile=False, safe_mode=True)
    except Exception:  # files that need a migration fail in many ways
        return None


def _check_whole_model(
    loaded: LoadedModel,
    interface: Interface,
    originals: OriginalLayers,
    before: FrontEnd,
    samples: Sequence[Mapping[str, Any]],
    inputs: Tensors,
) -> None:
    """Compare the stored model on raw samples with the loaded one on ``inputs``."""
    if originals.model is None:
        return
    expected: list[list[Array]] = []
    for row, sample in enumerate(samples):
        tensors = {}
        for name in inputs:
            if name in loaded.preprocessing:
                source = loaded.preprocessing[name].input_layer["config"]["name"]
                tensors[source] = originals.tensor(name, before.prepare(name, sample[name]))
            else:
                tensors[name] = inputs[name][row : row + 1]
        ordered = [tensors[tensor.name] for tensor in originals.model.inputs]
        outputs = originals.model(ordered if len(ordered) > 1 else ordered[0], training=False)
        outputs = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        expected.append([np.asarray(output) for output in outputs])
    actual = keras_outputs.predict(loaded.model, interface, inputs)
    for spec, arrays in zip(interface.outputs, zip(*expected, strict=True), strict=True):
        values = np.concatenate(arrays)
        difference = np.abs(values - actual[spec.name]).max(initial=0)
        if not difference <= TOLERANCE * max(1.0, float(np.abs(values).max(initial=0))):
            raise UnsupportedModelError(
                f"{loaded.file.path.name} would be loaded wrongly: with the preprocessing layers "
                f"removed, the output {spec.name} differs by {difference:.1e} from that of the "
                "whole model in Keras.",
                hint="Please report this model.",
            )
