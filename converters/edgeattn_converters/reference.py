"""What Keras says: the inputs, outputs and attention maps that every artifact is held to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import EdgeattnError, OutputError, UnsupportedModelError
from edgeattn.samples import files as sample_files
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.lowering.replacement import all_layers
from edgeattn_converters.tracing import states
from edgeattn_converters.tracing.trace import Interface, pack, trace, vocabulary_of

SEED = 20240607
SEEDED = 16
# Of the samples in a file, how many go into the bundle: it travels to the device.
KEPT = 64
# Beyond what the samples hold: an artifact that clips or saturates shows it here.
EXTREME = 3.0
# Rows of them: see _edge_rows.
EXTREMES = 6
TARGETS = "target"
# At most so many rows for the lengths of sequences, and for the words of a vocabulary.
MOST_LENGTHS = 64
MOST_WORDS = 16
# And so many for sequences that go on.
MOST_PARTS = 16
# How often an extreme input is changed in its last digit, and how far the answer may move: half of
# what a float32 artifact may be off.
NUDGES = 4
ATOL, RTOL = 0.5e-5, 0.5e-4


def time_steps_of(path: Path) -> int | None:
    """The length of the sequences in a file of samples, where its arrays agree on one."""
    if path.suffix.lower() == ".npz":
        arrays = [a for name, a in sample_files.read_npz(path).items() if name != "y"]
    elif path.suffix.lower() == ".npy":
        try:
            arrays = [np.load(path, allow_pickle=False, mmap_mode="r")]
        except (OSError, ValueError, EOFError):
            return None  # read() will say what is wrong with it
    else:
        return None
    lengths = {array.shape[1] for array in arrays if array.ndim > 1}
    return int(lengths.pop()) if len(lengths) == 1 else None


def write(
    model: Any, interface: Interface, path: Path, *, samples: Path | None, attention: bool
) -> dict[str, Any]:
    """Write ``path``: the samples (seeded plausible ones where there are none) and edge cases.

    Rows ``[0, samples)`` are the samples, ``[samples, samples + edge_cases)`` the edge cases. The
    first ``ordinary_edge_cases`` of those are what real samples could be: samples that go on where
    others ended, where states are inputs, cut to every length where the model masks, and every word
    of a vocabulary. The rest is far beyond: zeros, constant and
    alternating extremes, a sample scaled up, one padded in front; without those rows where Keras
    itself is not sure of its answer.
    """
    vocabulary = vocabulary_of(model, interface)
    generator = np.random.default_rng(SEED)
    padding = _padding(model, interface)
    targets = None
    inputs: Tensors
    if samples is None:
        inputs = _plausible(interface, vocabulary, padding, generator)
    else:
        read = sample_files.read(samples, interface.inputs)[:KEPT]
        inputs, targets = read.inputs, read.targets
        _check_vocabulary(inputs, vocabulary, samples)
    count = len(next(iter(inputs.values())))
    edges, ordinary = _edge_cases(inputs, interface, vocabulary, padding)
    going_on = _going_on(model, interface, inputs)
    ordinary += len(next(iter(going_on.values())))
    everything = {
        name: np.concatenate([inputs[name], going_on[name], edges[name]]) for name in inputs
    }
    ask = _asker(model, interface, attention=attention)
    outputs, maps = ask(everything, True)
    told = _steady(ask, everything, {**outputs, **maps}, first=count + ordinary)
    arrays: dict[str, Array] = {f"input/{name}": value for name, value in everything.items()}
    arrays |= {f"output/{name}": value for name, value in outputs.items()}
    arrays |= maps  # named attention/LAYER
    arrays = {name: value[told] for name, value in arrays.items()}
    if targets is not None:
        arrays[TARGETS] = targets
    try:
        with path.open("wb") as file:
            sample_files.write_npz(file, arrays, compress=True)
    except OSError as error:
        raise OutputError(f"Cannot write {path.name}: {error.strerror or error}") from error
    edge_count = int(told.sum()) - count
    return {
        "samples": count,
        "edge_cases": edge_count,
        "ordinary_edge_cases": ordinary,
        "left_out": len(told) - int(told.sum()),
        "source": "seeded" if samples is None else samples.name,
        "seed": SEED if samples is None else None,
    }


def predict(model: Any, interface: Interface, inputs: Tensors) -> dict[str, Array]:
    """What ``model.predict`` gives for ``inputs``, by the names of the outputs."""
    import tensorflow as tf

    ordered = tuple(inputs[spec.name] for spec in interface.inputs)
    predicted = model.predict(pack(model, ordered), verbose=0, batch_size=32)
    names = [spec.name for spec in interface.outputs]
    # One for one by name, unless a name had to be changed.
    by_name = isinstance(predicted, dict) and set(names) == set(predicted)
    flat = [predicted[name] for name in names] if by_name else tf.nest.flatten(predicted)
    return {name: np.asarray(value) for name, value in zip(names, flat, strict=True)}


def trial_inputs(model: Any, interface: Interface, samples: Path | None) -> Tensors:
    """Inputs beside those of the reference: samples behind them in the file, or seeded others."""
    if samples is not None:
        more = sample_files.read(samples, interface.inputs)[KEPT : 2 * KEPT]
        if len(more):
            return in_a_row(model, interface, more.inputs)
    generator = np.random.default_rng(SEED + 1)
    padding = _padding(model, interface)
    seeded = _plausible(interface, vocabulary_of(model, interface), padding, generator)
    return in_a_row(model, interface, seeded)


def in_a_row(model: Any, interface: Interface, inputs: Tensors) -> Tensors:
    """``inputs`` with the states that Keras has after other sequences, where states are inputs."""
    return states.in_a_row(lambda asked: predict(model, interface, asked), interface, inputs)


def _going_on(model: Any, interface: Interface, inputs: Tensors) -> Tensors:
    """Samples that start from the states that others left, where states are inputs."""
    rows = len(next(iter(inputs.values())))
    most = (
        min(rows, MOST_PARTS) if len(sample_inputs(interface.inputs)) < len(interface.inputs) else 0
    )
    return in_a_row(model, interface, {name: array[:most] for name, array in inputs.items()})


# What Keras says to inputs, outputs and maps apart; whether they are to be what they must is asked.
_Ask = Callable[[Tensors, bool], tuple[dict[str, Array], dict[str, Array]]]


def _steady(ask: _Ask, inputs: Tensors, answers: Tensors, *, first: int) -> Array:
    """Which rows can tell anything: of those from ``first`` on, the ones that Keras is sure of.

    Far beyond the samples a recurrence with relu grows by powers, a softmax of scores in the
    hundreds tips over, and a normalization of one feature divides nothing by nothing: there Keras'
    own rounding is more than is allowed, and it answers otherwise when an input changes in its last
    digit.
    """
    steady = np.ones(len(next(iter(answers.values()))), bool)
    generator = np.random.default_rng(SEED)
    for _ in range(NUDGES):
        nudged = {name: value.copy() for name, value in inputs.items()}
        for value in nudged.values():
            if value.dtype.kind == "f":
                last_digit = generator.choice((-1, 1), value.shape) * np.finfo(value.dtype).eps
                value[first:] *= (1 + last_digit[first:]).astype(value.dtype)
        outputs, maps = ask({name: value[first:] for name, value in nudged.items()}, False)
        for name, value in {**outputs, **maps}.items():
            before = answers[name][first:]
            if before.dtype.kind == "f":
                # A map is held to an absolute limit alone.
                relative = 0.0 if name in maps else RTOL * np.abs(before)
                moved = np.abs(value - before) > ATOL + relative
                steady[first:] &= ~moved.reshape(len(moved), -1).any(axis=1)
    return steady


def _asker(model: Any, interface: Interface, *, attention: bool) -> _Ask:
    """Asks Keras for outputs and maps; the outputs are those of ``model.predict``, maps or not."""
    import tensorflow as tf

    # Not frozen: layers with dropout keep the state of their random numbers in variables.
    traced = trace(model, interface, batch=None, attention=attention, freeze=False)

    def ask(inputs: Tensors, check: bool) -> tuple[dict[str, Array], dict[str, Array]]:
        outputs = predict(model, interface, inputs)
        if check:
            _check_finite(interface, outputs)
        if not traced.attention:
            return outputs, {}
        results = traced.function(*[tf.constant(inputs[spec.name]) for spec in interface.inputs])
        names = [spec.name for spec in traced.outputs]
        told = {name: value.numpy() for name, value in zip(names, results, strict=True)}
        if check:
            _check_unmoved(interface, outputs, told)
        return outputs, {name: told[name] for name in traced.attention}

    return ask


def _check_finite(interface: Interface, outputs: Tensors) -> None:
    for spec in interface.outputs:
        if not np.isfinite(outputs[spec.name]).all():
            raise UnsupportedModelError(
                f"Keras itself gives NaN or infinity for output {spec.name!r}.",
                hint="Look for weights that are not finite, or give real samples: --samples FILE.",
            )


def _check_unmoved(interface: Interface, outputs: Tensors, told: Tensors) -> None:
    for spec in interface.outputs:
        if not np.allclose(told[spec.name], outputs[spec.name], atol=1e-5, rtol=1e-4):
            raise EdgeattnError(
                f"Telling the attention weights changes output {spec.name!r} of Keras itself.",
                hint="Convert without them: --no-attention. And please report this model.",
            )


def _plausible(
    interface: Interface,
    vocabulary: dict[str, int],
    padding: dict[str, float],
    generator: np.random.Generator,
) -> dict[str, Array]:
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
            # Every length from one step to all of them, padded at the end.
            for row, length in enumerate(np.linspace(1, shape[1], SEEDED // 2).astype(int)):
                values[row, length:] = padding[spec.name]
        inputs[spec.name] = values
    return inputs


def _edge_cases(
    inputs: Tensors, interface: Interface, vocabulary: dict[str, int], padding: dict[str, float]
) -> tuple[dict[str, Array], int]:
    """Rows that samples may lack, and how many of them, the first, are as ordinary as samples."""
    lengths = _lengths(inputs, padding)
    words = max(
        (
            -(-size // max(1, inputs[name][0].size))
            for name, size in vocabulary.items()
            if name in inputs
        ),
        default=0,
    )
    ordinary = len(lengths) + min(words, MOST_WORDS)
    rows = {}
    for spec in interface.inputs:
        values, size = inputs[spec.name], vocabulary.get(spec.name)
        if spec.state is not None:
            # Far beyond anything a recurrence leaves, a state says nothing: these start clean.
            rows[spec.name] = np.zeros((ordinary + EXTREMES, *values.shape[1:]), values.dtype)
            continue
        parts = [
            _shortened(values, lengths, padding.get(spec.name)),
            _every_word(values, ordinary - len(lengths), size),
            _edge_rows(values, spec, size, padding.get(spec.name)),
        ]
        rows[spec.name] = np.concatenate(parts).astype(values.dtype)
    return rows, ordinary


def _lengths(inputs: Tensors, padding: dict[str, float]) -> list[int]:
    """Every length of a sequence below the whole, or an even choice of them, where one masks."""
    steps = {inputs[name].shape[1] for name in padding if inputs[name].ndim > 1}
    if not steps or min(steps) < 2:
        return []
    whole = min(steps)
    return [int(n) for n in np.unique(np.linspace(1, whole - 1, min(whole - 1, MOST_LENGTHS)))]


def _shortened(values: Array, lengths: list[int], padding: float | None) -> Array:
    """Samples, cut to ``lengths`` and filled up where the input has padding."""
    rows = values[np.arange(len(lengths)) % len(values)].copy()
    if padding is not None:
        for row, length in zip(rows, lengths, strict=True):
            row[length:] = padding
    return rows


def _every_word(values: Array, count: int, vocabulary: int | None) -> Array:
    """Rows that walk through the vocabulary, so that no row of an embedding goes unread."""
    rows = values[np.arange(count) % len(values)].copy()
    if vocabulary is None:
        return rows
    return (np.arange(rows.size) % vocabulary).reshape(rows.shape)


def _edge_rows(
    values: Array, spec: TensorSpec, vocabulary: int | None, padding: float | None
) -> Array:
    """Six rows: zero, high, low, alternating, a sample scaled up, the last one padded in front."""
    row = values[0]
    dtype = np.dtype(spec.dtype)
    if vocabulary is not None:
        low, high = 0.0, vocabulary - 1.0
    elif dtype.kind == "f":
        high = EXTREME * float(np.abs(values).max(initial=1.0))
        low = -high
    else:
        low, high = float(values.min()), float(values.max())
    flat = np.where(np.arange(row.size) % 2 == 0, low, high).reshape(row.shape)
    scaled = row if vocabulary is not None or dtype.kind != "f" else row * EXTREME
    padded = values[-1].copy()
    if padding is not None and padded.ndim:
        padded[: len(padded) // 2] = padding
    rows = [np.zeros_like(row), np.full(row.shape, high), np.full(row.shape, low), flat]
    return np.stack([*rows, scaled, padded]).astype(dtype)


def _padding(model: Any, interface: Interface) -> dict[str, float]:
    """The value that means "no step here", for each input where a model with one mask has one."""
    values: dict[str, float] = {}
    brought = sample_inputs(interface.inputs)
    for layer in all_layers(model):
        kind = type(layer).__name__
        if kind == "Masking":
            value = float(layer.mask_value)
        elif kind == "Embedding" and layer.mask_zero:
            value = 0.0
        else:
            continue
        for spec in brought:
            values.setdefault(spec.name, value)
    return values


def _check_vocabulary(inputs: Tensors, vocabulary: dict[str, int], path: Path) -> None:
    from edgeattn.errors import SampleError

    for name, size in vocabulary.items():
        values = inputs[name]
        if values.min() < 0 or values.max() >= size:
            raise SampleError(
                f"Input {name!r} takes tokens from 0 to {size - 1}; "
                f"{path} holds {values.min()} to {values.max()}.",
                hint="Replace words outside the vocabulary by the token for unknown words.",
            )
