"""The reference: inputs with Keras' outputs and attention maps, to compare artifacts with."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import SYNTHETIC
from edgeattn.errors import OutputError
from edgeattn.inference.raw_samples import RAW
from edgeattn.printable import counted
from edgeattn.samples.npz import write_npz
from edgeattn.tensors import Array, Tensors
from edgeattn.validation.lengths import by_length
from edgeattn_converters.reference.edge_cases import (
    SEED,
    InputProperties,
    constant_numbers,
    edge_cases,
)
from edgeattn_converters.reference.equal_numbers import uses_averages
from edgeattn_converters.reference.free_batches import require_equal_alone
from edgeattn_converters.reference.keras_outputs import (
    KerasFunction,
    check_unchanged,
    keras_function,
)
from edgeattn_converters.reference.other_lengths import other_lengths
from edgeattn_converters.reference.plausible_inputs import padding_values
from edgeattn_converters.reference.reference_samples import (
    Source,
    continued_sequences,
    reference_source,
)
from edgeattn_converters.reference.rounded_weights import rounded_weights
from edgeattn_converters.reference.saturated_comparisons import changed_ends, compares_bounded
from edgeattn_converters.reference.saturation import (
    computes_hues,
    orders_bounded,
    shifted_function,
)
from edgeattn_converters.reference.shifted_means import shifted_means
from edgeattn_converters.reference.singular_matrices import changed_matrices, uses_matrices
from edgeattn_converters.reference.size_limit import (
    bytes_of_row,
    rows_to_compute,
    within_limit,
)
from edgeattn_converters.reference.traced_values import changes_by_neighbors
from edgeattn_converters.reference.unmoved_rows import Changes
from edgeattn_converters.reference.usable_rows import UsableRows, usable_rows
from edgeattn_converters.rounding import rounding_costs
from edgeattn_converters.tracing.free_time import FreeModel
from edgeattn_converters.tracing.trace import Interface

TARGETS = "target"
# The arrays of a reference by the first part of their names.
_PARTS = {"input/": "inputs", "output/": "outputs", "attention/": "attention maps"}


@dataclass(frozen=True)
class Extras:
    """Further arrays of a reference.

    ``raw`` are the raw inputs of its samples, by input. ``free`` is the same model with a free time
    axis, whose arrays of other lengths are added, see
    :mod:`~edgeattn_converters.reference.other_lengths`.
    """

    raw: Tensors | None = None
    free: FreeModel | None = None


def write(
    model: Any,
    interface: Interface,
    path: Path,
    *,
    samples: Path | None,
    attention: bool,
    schemes: Sequence[str] = (),
    calibration_file: Path | None = None,
    extras: Extras = Extras(),
) -> dict[str, Any]:
    """Write the reference to ``path``; returns its entry in the manifest, and ``notes``.

    The first rows are ``samples``, or else samples that are set aside from ``calibration_file``, or
    else plausible inputs from a fixed seed. The edge cases follow. The first
    ``ordinary_edge_cases`` of them could be samples: sequences that continue others (if states are
    inputs), sequences of every length (if the model masks), and every token of a vocabulary. The
    rest are extremes, round and random ones; the first ``float16_edge_cases`` of these are stable
    enough for a float16 artifact.

    Rows for which Keras' outputs are not finite are left out, and so are rows that are not from a
    file if Keras' outputs for them are unstable. If the rows are large, fewer are written, see
    :func:`~edgeattn_converters.reference.size_limit.within_limit`.

    The entry contains what rounding of the weights costs for each of ``schemes``.

    Raises :class:`SampleError` if the samples do not fit the model,
    :class:`UnsupportedModelError` if Keras' outputs are not finite for any sample, and
    :class:`OutputError` if the file cannot be written.
    """
    source = reference_source(model, interface, samples, calibration_file)
    properties = InputProperties(interface.vocabulary, padding_values(model, interface))
    if source.kind != SYNTHETIC:
        constant = constant_numbers(source.inputs, interface.vocabulary)
        properties = replace(properties, constant=constant)
    edges, ordinary = edge_cases(source.inputs, interface.inputs, properties)
    continued = continued_sequences(model, interface, source.inputs)
    inputs = {
        name: np.concatenate([source.inputs[name], continued[name], edges[name]])
        for name in source.inputs
    }
    counts = (len(source), len(source) + len(next(iter(continued.values()))) + ordinary)
    specs = interface.all_outputs if attention else interface.outputs
    row_bytes = bytes_of_row(inputs, specs)
    total = len(next(iter(inputs.values())))
    taken, edge_rows = rows_to_compute(counts, total, row_bytes)
    inputs = {name: array[np.concatenate([taken, edge_rows])] for name, array in inputs.items()}
    counts = (len(taken), len(taken) + int((edge_rows < counts[1]).sum()))
    run = keras_function(model, interface, attention=attention)
    if interface.any_batch:
        require_equal_alone(model, interface, inputs)
    changes = changes_by_neighbors(run.traced, inputs)
    run = replace(run, alone=bool(changes))
    values = run(inputs)
    real = source.kind != SYNTHETIC
    usable = usable_rows(
        run,
        inputs,
        values,
        counts,
        properties,
        real=real,
        changes=_changes(run),
    )
    rows = within_limit(usable, (*inputs.values(), *values.all.values()))
    selected = {name: array[rows.all] for name, array in inputs.items()}
    check_unchanged(values, rows.all, lambda: run(selected))
    arrays: dict[str, Array] = {f"input/{name}": array for name, array in inputs.items()}
    arrays |= {f"output/{name}": array for name, array in values.outputs.items()}
    arrays |= values.maps  # named attention/LAYER
    arrays = {name: array[rows.all] for name, array in arrays.items()}
    costs = rounding_costs(
        model,
        interface,
        lambda batch: run(batch).all,
        selected,
        {name: array[rows.all] for name, array in values.all.items()},
        ordinary=len(rows.samples) + len(rows.ordinary),
        float16=len(rows.all) - len(rows.others),
        schemes=schemes,
    )
    free = extras.free
    samples_used = {name: array[: len(rows.samples)] for name, array in selected.items()}
    others = (
        {}
        if free is None
        else other_lengths(
            free, samples_used, attention=attention, row_bytes=row_bytes, alone=run.alone
        )
    )
    arrays |= others
    # What the limits on the size leave of what there is.
    available = (len(usable.samples), len(usable.all) - len(usable.samples))
    if len(taken) + len(edge_rows) < total:
        available = (len(source), total - len(source))
    size_notes = _size_notes(available, rows, arrays)
    if source.targets is not None:
        arrays[TARGETS] = source.targets[taken[rows.samples]]
    for name, array in (extras.raw or {}).items():
        arrays[f"{RAW}{name}"] = array[taken[rows.samples]]
    try:
        with path.open("wb") as file:
            write_npz(file, arrays, compress=True)
    except OSError as error:
        raise OutputError(f"Cannot write {path.name}: {error.strerror or error}") from error
    return rows.to_json() | {
        "kind": source.kind,
        "source": source.name,
        "seed": SEED if source.kind == SYNTHETIC else None,
        "rounding": costs,
        **({"lengths": list(by_length(others))} if others else {}),
        **({"mixes_samples": True} if run.alone else {}),
        "notes": [
            *source.notes,
            *_mixing_notes(changes),
            *_row_notes(source, len(taken), usable),
            *size_notes,
        ],
    }


def _changes(run: KerasFunction) -> Changes:
    """What is changed in the model to find unstable rows.

    Averages are traced only if there are rows to compute.
    """
    model, interface, alone = run.model, run.interface, run.alone
    attention = bool(run.traced.attention)
    traced_averages = functools.cache(
        lambda: shifted_means(model, interface, attention=attention, alone=alone)
    )

    def averages(inputs: Tensors, share: float, direction: int = 0) -> Tensors:
        return traced_averages()(inputs, share, direction)

    matrices = None
    if uses_matrices(run.traced.function):
        matrices = changed_matrices(model, interface, attention=attention, alone=alone)
    hues, ordered = computes_hues(run.traced.function), orders_bounded(run.traced.function)
    shifted = [
        shifted_function(model, interface, alone=alone, hues=hues, ordered=ordered, last=last)
        for last in ((False, True) if ordered else (False,))
    ]
    if compares_bounded(run.traced.function):
        shifted += [
            changed_ends(model, interface, outwards=outwards, alone=alone)
            for outwards in (True, False)
        ]
    return Changes(
        activations=[changed for changed in shifted if changed is not None],
        weights=lambda precisions, seed: rounded_weights(model, precisions, seed),
        averages=averages if uses_averages(run.traced.function) else None,
        matrices=matrices,
    )


def _mixing_notes(changes: Mapping[str, float]) -> list[str]:
    """``changes`` of outputs and maps by the other samples of a batch."""
    if not changes:
        return []
    name = max(changes, key=lambda item: changes[item])
    single = (
        "the files compute one sample at a time, and are compared with Keras for single samples"
    )
    if changes[name] == float("inf"):
        return [
            "Keras computes some edge cases only beside other samples of their batch, because an "
            f"operation combines them; {single}"
        ]
    return [
        f"in Keras, {name!r} of a sample depends on the other samples of its batch (by up to "
        f"{changes[name]:.2g}), because an operation combines them; {single}"
    ]


def _row_notes(source: Source, computed: int, rows: UsableRows) -> list[str]:
    """``computed`` is the number of samples of which Keras computed the outputs."""
    notes = []
    missing = computed - len(rows.samples)
    if source.kind != SYNTHETIC and missing:
        notes.append(
            f"Keras itself has no finite outputs for {missing} of "
            f"{counted(computed, 'sample')} in {source.name}, which are not compared"
        )
    if not rows.stable:
        notes.append(
            "Keras' own outputs change when a synthetic sample changes in its last digit; to "
            "compare with real samples, pass --samples FILE"
        )
    if rows.unstable_ordinary:
        notes.append(
            f"Keras' own outputs for {counted(rows.unstable_ordinary, 'sequence')} of edge cases "
            "with every token or length change when a value or weight changes in its last digit; "
            "these are not compared"
        )
    if rows.unstable_averages:
        notes.append(
            f"Keras' own outputs for {counted(rows.unstable_averages, 'edge case')} with zeros or "
            "equal numbers change with rounding, such as that of an average; these are not compared"
        )
    if rows.unstable_matrices:
        notes.append(
            f"Keras' own outputs for {counted(rows.unstable_matrices, 'edge case')} change when a "
            "matrix that is inverted or factored changes in its last digit; these are not compared"
        )
    return notes


def _size_notes(
    available: tuple[int, int], rows: UsableRows, arrays: Mapping[str, Array]
) -> list[str]:
    """``available`` are the numbers of samples and edge cases without a limit on the size."""
    if len(rows.all) == sum(available):
        return []
    largest = max(_PARTS, key=lambda part: _row_bytes(arrays, part))
    return [
        f"The reference has {counted(len(rows.samples), 'sample')} and "
        f"{counted(len(rows.all) - len(rows.samples), 'edge case')}, of {available[0]} and "
        f"{available[1]}, because the {_PARTS[largest]} of a sample are large: "
        f"{_row_bytes(arrays, largest) / 1e6:.1f} MB"
    ]


def _row_bytes(arrays: Mapping[str, Array], part: str) -> int:
    return sum(array[:1].nbytes for name, array in arrays.items() if name.startswith(part))
