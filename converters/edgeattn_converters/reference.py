"""The reference: inputs with Keras' outputs and attention maps, to compare artifacts with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import EdgeattnError, OutputError, SampleError, UnsupportedModelError
from edgeattn.samples import files as sample_files
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.rounding import rounding_costs
from edgeattn_converters.tracing import states
from edgeattn_converters.tracing.trace import Interface, pack, trace, vocabulary_of

SEED = 20240607
SEEDED = 16
# The number of samples from a file; the bundle is copied to the device.
MAX_SAMPLES = 64
# Extreme inputs are this many times the samples' range, to reveal clipping and saturation.
EXTREME_FACTOR = 3.0
# The number of extreme rows: see _extreme_rows.
EXTREMES = 6
TARGETS = "target"
# The largest number of rows for sequence lengths, vocabularies and continued sequences.
MAX_LENGTHS = 64
MAX_TOKEN_ROWS = 16
MAX_CONTINUED = 16
# How often extreme inputs are changed in their last digit, and how far the outputs may move: half
# of the tolerance of a float32 artifact.
PERTURBATIONS = 4
ATOL, RTOL = 0.5e-5, 0.5e-4


def time_steps_of(path: Path) -> int | None:
    """The sequence length in a file of samples, if all its arrays have the same."""
    if path.suffix.lower() == ".npz":
        arrays = [a for name, a in read_npz(path).items() if name != "y"]
    elif path.suffix.lower() == ".npy":
        try:
            arrays = [np.load(path, allow_pickle=False, mmap_mode="r")]
        except (OSError, ValueError, EOFError):
            return None  # read() reports what is wrong with the file
    else:
        return None
    lengths = {array.shape[1] for array in arrays if array.ndim > 1}
    return int(lengths.pop()) if len(lengths) == 1 else None


def write(
    model: Any,
    interface: Interface,
    path: Path,
    *,
    samples: Path | None,
    attention: bool,
    schemes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the reference to ``path``; returns its entry in the manifest.

    Rows ``[0, samples)`` are the samples, or plausible inputs from a fixed seed. The edge cases
    follow. The first ``ordinary_edge_cases`` of them could be samples: sequences that continue
    others (if states are inputs), sequences of every length (if the model masks), and every token
    of a vocabulary. The rest are extremes: zeros, constant and alternating extremes, a scaled
    sample, and one padded at the front, except those for which Keras' outputs are unstable.

    The entry contains what rounding of the weights costs for each of ``schemes``.

    Raises :class:`SampleError` if the samples do not fit the model,
    :class:`UnsupportedModelError` if Keras' outputs are not finite, and :class:`OutputError` if
    the file cannot be written.
    """
    vocabulary = vocabulary_of(model, interface)
    generator = np.random.default_rng(SEED)
    padding = _padding_values(model, interface)
    targets = None
    inputs: Tensors
    if samples is None:
        inputs = _plausible_inputs(interface, vocabulary, padding, generator)
    else:
        data = sample_files.read_samples(samples, interface.inputs)[:MAX_SAMPLES]
        inputs, targets = data.inputs, data.targets
        _check_tokens(inputs, vocabulary, samples)
    count = len(next(iter(inputs.values())))
    edges, ordinary = _edge_cases(inputs, interface, vocabulary, padding)
    continued = _continued_sequences(model, interface, inputs)
    ordinary += len(next(iter(continued.values())))
    inputs = {name: np.concatenate([inputs[name], continued[name], edges[name]]) for name in inputs}
    run = _keras_runner(model, interface, attention=attention)
    outputs, maps = run(inputs, True)
    stable = _stable_rows(run, inputs, {**outputs, **maps}, first=count + ordinary)
    arrays: dict[str, Array] = {f"input/{name}": value for name, value in inputs.items()}
    arrays |= {f"output/{name}": value for name, value in outputs.items()}
    arrays |= maps  # named attention/LAYER
    arrays = {name: value[stable] for name, value in arrays.items()}
    costs = rounding_costs(
        model,
        interface,
        lambda batch: {name: value for part in run(batch, False) for name, value in part.items()},
        {name: value[stable] for name, value in inputs.items()},
        {name: value[stable] for name, value in {**outputs, **maps}.items()},
        ordinary=count + ordinary,
        schemes=schemes,
    )
    if targets is not None:
        arrays[TARGETS] = targets
    try:
        with path.open("wb") as file:
            write_npz(file, arrays, compress=True)
    except OSError as error:
        raise OutputError(f"Cannot write {path.name}: {error.strerror or error}") from error
    return {
        "samples": count,
        "edge_cases": int(stable.sum()) - count,
        "ordinary_edge_cases": ordinary,
        "left_out": len(stable) - int(stable.sum()),
        "source": "seeded" if samples is None else samples.name,
        "seed": SEED if samples is None else None,
        "rounding": costs,
    }


def predict(model: Any, interface: Interface, inputs: Tensors) -> dict[str, Array]:
    """The outputs of ``model.predict`` by name."""
    import tensorflow as tf

    ordered = tuple(inputs[spec.name] for spec in interface.inputs)
    predicted = model.predict(pack(model, ordered), verbose=0, batch_size=32)
    names = [spec.name for spec in interface.outputs]
    # Matched by name, unless a name had to be changed.
    by_name = isinstance(predicted, dict) and set(names) == set(predicted)
    flat = [predicted[name] for name in names] if by_name else tf.nest.flatten(predicted)
    return {name: np.asarray(value) for name, value in zip(names, flat, strict=True)}


def selection_inputs(model: Any, interface: Interface, samples: Path | None) -> Tensors:
    """Inputs that are not in the reference: the next samples of the file, or other seeded ones."""
    if samples is not None:
        more = sample_files.read_samples(samples, interface.inputs)[MAX_SAMPLES : 2 * MAX_SAMPLES]
        if len(more):
            return with_running_states(model, interface, more.inputs)
    generator = np.random.default_rng(SEED + 1)
    padding = _padding_values(model, interface)
    vocabulary = vocabulary_of(model, interface)
    seeded = _plausible_inputs(interface, vocabulary, padding, generator)
    return with_running_states(model, interface, seeded)


def with_running_states(model: Any, interface: Interface, inputs: Tensors) -> Tensors:
    """``inputs`` with the states that Keras computes after other sequences."""
    return states.with_running_states(
        lambda batch: predict(model, interface, batch), interface, inputs
    )


def _continued_sequences(model: Any, interface: Interface, inputs: Tensors) -> Tensors:
    """Samples that start from the final states of others; no rows if no states are inputs."""
    has_states = len(sample_inputs(interface.inputs)) < len(interface.inputs)
    rows = MAX_CONTINUED if has_states else 0
    return with_running_states(
        model, interface, {name: array[:rows] for name, array in inputs.items()}
    )


# Keras' outputs and maps for inputs; the flag says whether to check that they are valid.
_KerasRunner = Callable[[Tensors, bool], tuple[dict[str, Array], dict[str, Array]]]


def _stable_rows(run: _KerasRunner, inputs: Tensors, outputs: Tensors, *, first: int) -> Array:
    """Which rows are usable: all before ``first``, and those whose outputs are numerically stable.

    Far beyond the samples, a recurrence with relu grows exponentially, a softmax of scores in the
    hundreds switches abruptly, and a normalization of one feature divides zero by zero. There, a
    change in the last digit of an input changes the outputs of Keras itself by more than the limit.
    """
    stable = np.ones(len(next(iter(outputs.values()))), bool)
    generator = np.random.default_rng(SEED)
    for _ in range(PERTURBATIONS):
        perturbed = {name: value.copy() for name, value in inputs.items()}
        for value in perturbed.values():
            if value.dtype.kind == "f":
                last_digit = generator.choice((-1, 1), value.shape) * np.finfo(value.dtype).eps
                value[first:] *= (1 + last_digit[first:]).astype(value.dtype)
        changed, maps = run({name: value[first:] for name, value in perturbed.items()}, False)
        for name, value in {**changed, **maps}.items():
            before = outputs[name][first:]
            if before.dtype.kind == "f":
                # Maps have an absolute limit only.
                relative = 0.0 if name in maps else RTOL * np.abs(before)
                moved = np.abs(value - before) > ATOL + relative
                stable[first:] &= ~moved.reshape(len(moved), -1).any(axis=1)
    return stable


def _keras_runner(model: Any, interface: Interface, *, attention: bool) -> _KerasRunner:
    """Outputs from ``model.predict``, with or without maps; maps from the traced model."""
    import tensorflow as tf

    # Not frozen, because dropout layers keep the state of their random numbers in variables.
    traced = trace(model, interface, batch=None, attention=attention, freeze=False)

    def run(inputs: Tensors, check: bool) -> tuple[dict[str, Array], dict[str, Array]]:
        outputs = predict(model, interface, inputs)
        if check:
            _check_finite(interface, outputs)
        if not traced.attention:
            return outputs, {}
        results = traced.function(*[tf.constant(inputs[spec.name]) for spec in interface.inputs])
        names = [spec.name for spec in traced.outputs]
        values = {name: value.numpy() for name, value in zip(names, results, strict=True)}
        if check:
            _check_unchanged(interface, outputs, values)
        return outputs, {name: values[name] for name in traced.attention}

    return run


def _check_finite(interface: Interface, outputs: Tensors) -> None:
    for spec in interface.outputs:
        if not np.isfinite(outputs[spec.name]).all():
            raise UnsupportedModelError(
                f"Output {spec.name!r} of the Keras model is NaN or infinite.",
                hint="Check the weights for values that are not finite, or pass real samples: "
                "--samples FILE.",
            )


def _check_unchanged(interface: Interface, outputs: Tensors, with_maps: Tensors) -> None:
    for spec in interface.outputs:
        if not np.allclose(with_maps[spec.name], outputs[spec.name], atol=1e-5, rtol=1e-4):
            raise EdgeattnError(
                f"Exporting attention maps changes output {spec.name!r} in Keras.",
                hint="Convert with --no-attention, and please report this model.",
            )


def _plausible_inputs(
    interface: Interface,
    vocabulary: dict[str, int],
    padding: dict[str, float],
    generator: np.random.Generator,
) -> dict[str, Array]:
    """Tokens, bits or normally distributed values, half of them padded to various lengths."""
    inputs = {}
    for spec in interface.inputs:
        shape = (SEEDED, *(axis or 1 for axis in spec.shape[1:]))
        values: Array
        if spec.state is not None:
            values = np.zeros(shape)
        elif spec.name in vocabulary:
            first = 1 if spec.name in padding and vocabulary[spec.name] > 1 else 0
            values = generator.integers(first, vocabulary[spec.name], size=shape)
        elif np.issubdtype(np.dtype(spec.dtype), np.integer):
            values = generator.integers(0, 2, size=shape)
        else:
            values = generator.standard_normal(shape)
        values = np.asarray(values, spec.dtype)
        if spec.name in padding and len(shape) > 1:
            # Lengths from one step to all, padded at the end.
            for row, length in enumerate(np.linspace(1, shape[1], SEEDED // 2).astype(int)):
                values[row, length:] = padding[spec.name]
        inputs[spec.name] = values
    return inputs


def _edge_cases(
    inputs: Tensors, interface: Interface, vocabulary: dict[str, int], padding: dict[str, float]
) -> tuple[dict[str, Array], int]:
    """Rows that samples may lack, and how many of them, from the first, could be samples."""
    lengths = _lengths(inputs, padding)
    token_rows = max(
        (
            -(-size // max(1, inputs[name][0].size))
            for name, size in vocabulary.items()
            if name in inputs
        ),
        default=0,
    )
    ordinary = len(lengths) + min(token_rows, MAX_TOKEN_ROWS)
    rows = {}
    for spec in interface.inputs:
        values, size = inputs[spec.name], vocabulary.get(spec.name)
        if spec.state is not None:
            # Extreme states cannot result from a recurrence, so edge cases start from zeros.
            rows[spec.name] = np.zeros((ordinary + EXTREMES, *values.shape[1:]), values.dtype)
            continue
        parts = [
            _shortened(values, lengths, padding.get(spec.name)),
            _all_tokens(values, ordinary - len(lengths), size),
            _extreme_rows(values, spec, size, padding.get(spec.name)),
        ]
        rows[spec.name] = np.concatenate(parts).astype(values.dtype)
    return rows, ordinary


def _lengths(inputs: Tensors, padding: dict[str, float]) -> list[int]:
    """Sequence lengths below the full one, evenly spaced if there are many, if the model masks."""
    steps = {inputs[name].shape[1] for name in padding if inputs[name].ndim > 1}
    if not steps or min(steps) < 2:
        return []
    full = min(steps)
    return [int(n) for n in np.unique(np.linspace(1, full - 1, min(full - 1, MAX_LENGTHS)))]


def _shortened(values: Array, lengths: list[int], padding: float | None) -> Array:
    """Samples, padded from each of ``lengths`` on if the input has padding."""
    rows = values[np.arange(len(lengths)) % len(values)].copy()
    if padding is not None:
        for row, length in zip(rows, lengths, strict=True):
            row[length:] = padding
    return rows


def _all_tokens(values: Array, count: int, vocabulary: int | None) -> Array:
    """Rows that contain every token of the vocabulary, so that the whole embedding is read."""
    rows = values[np.arange(count) % len(values)].copy()
    if vocabulary is None:
        return rows
    return (np.arange(rows.size) % vocabulary).reshape(rows.shape)


def _extreme_rows(
    values: Array, spec: TensorSpec, vocabulary: int | None, padding: float | None
) -> Array:
    """Six rows: zeros, high, low, alternating, a scaled sample, and one padded at the front."""
    row = values[0]
    dtype = np.dtype(spec.dtype)
    if vocabulary is not None:
        low, high = 0.0, vocabulary - 1.0
    elif dtype.kind == "f":
        high = EXTREME_FACTOR * float(np.abs(values).max(initial=1.0))
        low = -high
    else:
        low, high = float(values.min()), float(values.max())
    alternating = np.where(np.arange(row.size) % 2 == 0, low, high).reshape(row.shape)
    scaled = row if vocabulary is not None or dtype.kind != "f" else row * EXTREME_FACTOR
    padded = values[-1].copy()
    if padding is not None and padded.ndim:
        padded[: len(padded) // 2] = padding
    rows = [np.zeros_like(row), np.full(row.shape, high), np.full(row.shape, low), alternating]
    return np.stack([*rows, scaled, padded]).astype(dtype)


def _padding_values(model: Any, interface: Interface) -> dict[str, float]:
    """The value of masked steps by input; the first mask of a model holds for all inputs."""
    values: dict[str, float] = {}
    for layer in all_layers(model):
        kind = type(layer).__name__
        if kind == "Masking":
            value = float(layer.mask_value)
        elif kind == "Embedding" and layer.mask_zero:
            value = 0.0
        else:
            continue
        for spec in sample_inputs(interface.inputs):
            values.setdefault(spec.name, value)
    return values


def _check_tokens(inputs: Tensors, vocabulary: dict[str, int], path: Path) -> None:
    for name, size in vocabulary.items():
        values = inputs[name]
        if values.min() < 0 or values.max() >= size:
            raise SampleError(
                f"Input {name!r} takes tokens from 0 to {size - 1}; "
                f"{path} contains {values.min()} to {values.max()}.",
                hint="Replace words outside the vocabulary by the token for unknown words.",
            )
