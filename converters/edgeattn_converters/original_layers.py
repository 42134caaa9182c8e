"""Raw samples prepared by the original preprocessing layers of a model, in Keras."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import SampleError, UnsupportedModelError, UsageError
from edgeattn.frontend.description import FrontEnd, Step
from edgeattn.frontend.numeric import PadSequences
from edgeattn.frontend.values import as_strings
from edgeattn.inference.raw import RawModel
from edgeattn.inference.raw_samples import as_json_bytes, read_raw_samples
from edgeattn.printable import counted
from edgeattn.samples.files import read_samples
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Specs, Tensors, TensorSpec
from edgeattn_converters.front_end import naming
from edgeattn_converters.loading.loaded_model import LoadedModel
from edgeattn_converters.loading.migrate.context import safe_input_name, safe_name
from edgeattn_converters.loading.migrate.lookup_removal import LookupLayer
from edgeattn_converters.loading.removed_layers import RemovedLayers
from edgeattn_converters.options import ModelSource
from edgeattn_converters.reference import keras_outputs
from edgeattn_converters.tracing.keras_call import pack, values_by_name
from edgeattn_converters.tracing.trace import Interface

# Layers compute what their steps do up to the rounding of sums.
TOLERANCE = 1e-4
MAX_RAW_SAMPLES = 128


@dataclass(frozen=True)
class RawReference:
    """Raw samples as arrays that a reference stores, and the inputs that Keras makes of them."""

    raw: Tensors
    inputs: Tensors


def keras_inputs(
    loaded: LoadedModel, interface: Interface, front_end: FrontEnd, source: ModelSource
) -> RawReference:
    """The file ``--raw-samples``, prepared by the original layers of the model.

    Steps of ``--preprocess`` are those of the front end, unless ``--samples`` has what the original
    of these steps computed. Raises :class:`SampleError` if a sample does not fit, and
    :class:`UnsupportedModelError` if a layer has no step, or the whole stored model computes other
    outputs than the loaded one for prepared inputs.
    """
    specs, path = sample_inputs(interface.inputs), Path(str(source.raw_samples))
    if source.samples is not None and loaded.preprocessing:
        raise UsageError(
            "--samples and --raw-samples exclude each other: the layers of the model prepare the "
            "raw samples.",
            hint="Omit --samples.",
        )
    for removed in loaded.preprocessing.values():
        if removed.reason is not None:
            raise UnsupportedModelError(
                f"The front end cannot prepare raw samples: {removed.reason}",
                hint="Pass prepared inputs with --samples.",
            )
    samples = read_raw_samples(path, front_end, specs)
    if source.samples is not None:
        return _given_inputs(interface, source, samples)
    samples = samples[:MAX_RAW_SAMPLES]
    model = RawModel(front_end, interface.inputs, (), lambda inputs: inputs)
    originals = OriginalLayers(loaded)
    inputs: dict[str, list[Array]] = {spec.name: [] for spec in specs}
    before = replace(front_end, inputs=_without_layers(front_end, loaded))
    for number, sample in enumerate(samples, 1):
        with naming(path, number):
            prepared = model.prepare(sample)
        for spec in specs:
            array = prepared[spec.name]
            if loaded.preprocessing.get(spec.name) is not None:
                value = before.prepare(spec.name, sample[spec.name])
                array = originals.apply(spec, value).astype(array.dtype)
            inputs[spec.name].append(array)
    stacked = {name: np.concatenate(arrays) for name, arrays in inputs.items()}
    _check_whole_model(loaded, interface, originals, before, samples, stacked)
    return RawReference(_raw_arrays(samples, list(inputs)), stacked)


@dataclass(frozen=True)
class RenamedSamples:
    """Samples by the inputs of the loaded model: raw ones, or what its removed layers computed."""

    arrays: Tensors
    is_raw: bool


def by_loaded_inputs(loaded: LoadedModel, specs: Specs, arrays: Tensors) -> RenamedSamples | None:
    """``arrays`` under the names of the inputs of the stored model, by those of ``specs``.

    Text for an input that takes text is raw, and so are numbers for one that takes numbers.
    Integers for an input that takes text are the indices that its only lookup layer returns. None
    if the names are others, or if an array may be either.
    """
    types = {spec.name: spec.dtype for spec in specs}
    stored = {
        name: removed.input_layer["config"]
        for name, removed in loaded.preprocessing.items()
        if name in types
    }
    sources = {name: str(config["name"]) for name, config in stored.items()}
    if len(types) == len(sources) == 1 and "x" in arrays and arrays["x"].dtype.kind in "US":
        # Text is never prepared, so it is the raw form of the only input.
        (source,) = sources.values()
        arrays = {source if name == "x" else name: array for name, array in arrays.items()}
    if not stored or any(name in arrays for name in sources):
        return None
    if not all(name in arrays for name in (*sources.values(), *(types.keys() - sources.keys()))):
        return None
    kinds = {_is_raw(arrays[sources[name]], config, types[name]) for name, config in stored.items()}
    # 'x' is also the array of the only input, already prepared.
    is_alias = len(types) == 1 and "x" in sources.values() and arrays["x"].dtype.kind not in "US"
    is_shared = len({*sources.values(), *types}) < len(sources) + len(types)
    if len(kinds) != 1 or None in kinds or is_alias or (kinds == {False} and is_shared):
        return None
    unused = set(sources.values()) - types.keys()
    renamed = {name: array for name, array in arrays.items() if name not in unused}
    renamed |= {name: arrays[source] for name, source in sources.items()}
    return RenamedSamples(renamed, is_raw=kinds == {True})


def _is_raw(array: Array, stored: Mapping[str, Any], dtype: str) -> bool | None:
    """Whether an array has raw values of a stored input; None if that is not certain."""
    if stored.get("dtype") != "string":
        return True if array.dtype.kind in "iuf" else None
    if array.dtype.kind in "US":
        return True
    is_index = array.dtype.kind in "iu" and np.dtype(dtype).kind in "iu"
    return False if is_index else None


def _raw_arrays(samples: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Tensors:
    return as_json_bytes({name: [sample[name] for sample in samples] for name in names})


def _given_inputs(
    interface: Interface, source: ModelSource, samples: Sequence[Mapping[str, Any]]
) -> RawReference:
    """The raw samples with the inputs in ``--samples``, which belong to them row by row."""
    path = Path(str(source.samples))
    prepared = read_samples(path, interface.inputs, ignore=source.ignore)
    if len(prepared) != len(samples):
        raise SampleError(
            f"{path.name} has {counted(len(prepared), 'sample')}, and "
            f"{Path(str(source.raw_samples)).name} has {len(samples)}.",
            hint="Beside --raw-samples, pass with --samples what the original preprocessing made "
            "of the same samples, in the same order.",
        )
    names = [spec.name for spec in sample_inputs(interface.inputs)]
    return RawReference(
        _raw_arrays(samples[:MAX_RAW_SAMPLES], names),
        {name: prepared.inputs[name][:MAX_RAW_SAMPLES] for name in names},
    )


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
        self._rebuilt: dict[tuple[str, ...], Any] = {}

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
        if "int" in str(config.get("dtype")):
            # Numbers in text may be floats, which large integers would be rounded to.
            whole = np.rint(values) if values.dtype.kind == "f" else values
            if (whole != values).any():
                raise SampleError(
                    f"Input {name} takes integers, not {values[whole != values][0]}.",
                    hint="Round the values of the sample.",
                )
            values = whole.astype(config["dtype"])
        shape = [1, *(axis or -1 for axis in config["batch_shape"][1:])]
        return tf.constant(values.reshape(shape).tolist(), config.get("dtype"))

    def _layer(self, removed: RemovedLayers, index: int, layer: LookupLayer) -> Any:
        if self.model is not None:
            found = self.model
            for name in layer.path:
                # Names in the file may contain characters that the loaded model cannot have.
                found = next(item for item in found.layers if safe_name(item.name) == name)
            return found
        if layer.path not in self._rebuilt:
            import keras

            config = dict(layer.config["config"])
            for key in ("vocabulary", "idf_weights"):
                if removed.tables is not None and key in removed.tables[index]:
                    config[key] = removed.tables[index][key]
            layer_class = getattr(keras.layers, str(layer.config["class_name"]))
            self._rebuilt[layer.path] = layer_class.from_config(config)
        return self._rebuilt[layer.path]


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
    import tensorflow as tf

    names = [spec.name for spec in interface.outputs]
    taken = [spec.name for spec in interface.inputs]
    expected: list[list[Array]] = []
    for row, sample in enumerate(samples):
        tensors: dict[str, Any] = {}
        for name in inputs:
            if name not in loaded.preprocessing:
                tensors[name] = tf.constant(inputs[name][row : row + 1])
                continue
            source = loaded.preprocessing[name].input_layer["config"]["name"]
            value = originals.tensor(name, before.prepare(name, sample[name]))
            if source in tensors and not np.array_equal(tensors[source], value):
                raise SampleError(
                    f"Sample {row + 1} has several values of {source}, an input of the stored "
                    f"model: {name} differs from the others.",
                    hint="Layers of one input of the stored model get the same raw value.",
                )
            tensors[source] = value
        ordered = tuple(tensors[safe_input_name(item.name)] for item in originals.model.inputs)
        outputs = originals.model(pack(originals.model, ordered), training=False)
        stored = values_by_name(originals.model, outputs, names, taken)
        expected.append([np.asarray(stored[name]) for name in names])
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
