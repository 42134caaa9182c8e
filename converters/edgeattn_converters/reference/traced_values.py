"""Values of a traced model, and whether those of a sample depend on the others of its batch."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgeattn.metrics.limits import LIMITS
from edgeattn.printable import counted
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.graphs.operation_creation import LaterChanges
from edgeattn_converters.lowering.call_replacement import replaced_calls
from edgeattn_converters.lowering.plain_layers import lower_signature
from edgeattn_converters.tracing.batch_axis import NotOfSamplesError
from edgeattn_converters.tracing.graph_form import sorted_top_k
from edgeattn_converters.tracing.trace import Interface, Traced, trace

# Samples of a batch in ``model.predict``, that of Keras itself.
BATCH_SIZE = 32
# Rows in the first batch, and how many of them are computed alone too.
_ROWS, _ALONE = 16, 4
# The largest number of rows that are all computed alone, which takes a call for each.
_MAX_ROWS = 256
# The largest number of changed rows in a batch that are computed with copies of themselves.
_MAX_COPIED = 16
# Copies of a sample that differ by this many times the limit of float32 files do not by rounding.
_AMPLIFIED = 100.0


def traced_values(traced: Traced, inputs: Tensors, batch_size: int | None = None) -> Tensors:
    """Outputs and maps by name, computed in batches of ``batch_size``; None for a single one.

    A function for one batch size is called with batches of that. Raises
    :class:`UnsupportedModelError` if one of them has not one row for each sample.
    """
    count = len(next(iter(inputs.values())))
    batch_size = traced.inputs[0].shape[0] or batch_size or max(count, 1)
    parts = list(_parts(traced, inputs, batch_size))
    names = [spec.name for spec in traced.outputs]
    if len(parts) == 1:
        return dict(zip(names, parts[0], strict=True))
    return {name: np.concatenate([part[k] for part in parts]) for k, name in enumerate(names)}


def changed_function(
    model: Any,
    interface: Interface,
    change: Any,
    changed: Callable[[Any, LaterChanges], contextlib.AbstractContextManager[None]],
    *,
    attention: bool,
    alone: bool,
) -> Callable[[Tensors, Any], Tensors]:
    """Outputs and maps of a model from inputs and a value of the variable ``change``.

    Within the context ``changed(change, later)``, changes of operations that depend on the variable
    are added to ``later``. If ``alone``, no sample is in a batch with others.
    """
    later = LaterChanges()

    @contextlib.contextmanager
    def lowering() -> Iterator[None]:
        # The operations of a SavedModel are otherwise in a function, and not created again.
        with replaced_calls(model, lower_signature), changed(change, later):
            yield

    with sorted_top_k():  # as in the reference
        traced = trace(
            model,
            interface,
            batch=None,
            attention=attention,
            freeze=False,
            lowering=lowering,
            change=later.apply,
        )

    def run(inputs: Tensors, value: Any) -> Tensors:
        change.assign(value)
        return traced_values(traced, inputs, 1 if alone else None)

    return run


def _parts(traced: Traced, inputs: Tensors, batch_size: int) -> Iterator[list[Array]]:
    import tensorflow as tf

    count = len(next(iter(inputs.values())))
    for start in range(0, max(count, 1), batch_size):
        rows = slice(start, start + batch_size)
        tensors = [tf.constant(inputs[spec.name][rows]) for spec in traced.inputs]
        values = [value.numpy() for value in traced.function(*tensors)]
        for spec, value in zip(traced.outputs, values, strict=True):
            if len(value) != len(tensors[0]):
                # The shape does not show it if the first axis is free, as after a reshape.
                raise NotOfSamplesError(
                    f"Output {spec.name!r} has {counted(len(value), 'row')} for "
                    f"{counted(len(tensors[0]), 'sample')}: "
                    "its first axis is not that of the samples.",
                    hint="Return one result for each sample: rebuild the model with outputs whose "
                    "first axis is the batch axis, and load its weights; they fit.",
                )
        yield values


def check_rows(traced: Traced, inputs: Tensors) -> None:
    """Raise :class:`UnsupportedModelError` unless all values have one row for each sample."""
    import tensorflow as tf

    with contextlib.suppress(tf.errors.OpError):  # Keras cannot compute some rows
        traced_values(traced, {name: array[:_ALONE] for name, array in inputs.items()})


def changes_by_neighbors(traced: Traced, inputs: Tensors) -> dict[str, float]:
    """How far outputs of a sample in a batch differ from those alone, by name; empty if in none.

    Rounding in another order and random numbers at inference are no such difference. A condition on
    values of the batch, as in ``cond`` and ``where``, changes only rows for which it has another
    result alone, so all rows are computed alone if a few show no difference.
    """
    first = {name: array[:_ROWS] for name, array in inputs.items()}
    return _changes_of_some(traced, first) or _changes_of_all(traced, inputs)


def _changes_of_some(traced: Traced, batch: Tensors) -> dict[str, float]:
    import tensorflow as tf

    count = len(next(iter(batch.values())))
    rows = sorted({int(row) for row in np.linspace(0, count - 1, _ALONE)}) if count > 1 else []
    try:
        together = traced_values(traced, batch)
        changes = _largest([_changes_of_row(traced, batch, together, row) for row in rows])
        if not changes or not _are_equal(together, traced_values(traced, batch)):
            return {}
        return changes if _is_mixed(traced, batch, rows) else {}
    except tf.errors.OpError:
        return {}  # Keras cannot compute some rows, which is reported for them


def _changes_of_all(traced: Traced, inputs: Tensors) -> dict[str, float]:
    """The changes in the batches of ``model.predict``."""
    import tensorflow as tf

    count = min(len(next(iter(inputs.values()))), _MAX_ROWS)
    changes = []
    for start in range(0, count, BATCH_SIZE):
        rows = slice(start, min(start + BATCH_SIZE, count))
        batch = {name: array[rows] for name, array in inputs.items()}
        with contextlib.suppress(tf.errors.OpError):  # as above
            changes.append(_changes_of_batch(traced, batch))
    return _largest(changes)


def _changes_of_batch(traced: Traced, batch: Tensors) -> dict[str, float]:
    """The changes of rows that copies of themselves instead of the other samples change, too.

    At the same position of a batch of the same size, rounding is the same.
    """
    import tensorflow as tf

    count = len(next(iter(batch.values())))
    together = traced_values(traced, batch)
    by_row = {row: _changes_of_row(traced, batch, together, row) for row in range(count)}
    changed = [row for row, changes in by_row.items() if changes][:_MAX_COPIED]
    if not changed or not _are_equal(together, traced_values(traced, batch)):
        return {}
    mixed = []
    for row in changed:
        beside = {name: value[row] for name, value in together.items()}
        try:
            depends = not _are_equal(beside, _values(traced, batch, [row] * count)[row])
        except tf.errors.OpError:
            depends = True
        if depends:
            mixed.append(by_row[row])
    return _largest(mixed)


def _changes_of_row(
    traced: Traced, batch: Tensors, together: Tensors, row: int
) -> dict[str, float]:
    """The changes of those values of ``row`` that differ alone; infinite if Keras computes it only
    beside the others, as with a mask that is as long as the longest of them."""
    import tensorflow as tf

    try:
        [alone] = _values(traced, batch, [row])
    except tf.errors.OpError:
        return dict.fromkeys(together, float("inf"))
    changes = {name: largest_change(value, together[name][row]) for name, value in alone.items()}
    return {name: change for name, change in changes.items() if change}


def _largest(changes: Sequence[dict[str, float]]) -> dict[str, float]:
    """The largest change of each name."""
    names = dict.fromkeys(name for each in changes for name in each)
    return {name: max(each.get(name, 0.0) for each in changes) for name in names}


def _is_mixed(traced: Traced, batch: Tensors, rows: Sequence[int]) -> bool:
    """Whether more than rounding differs, which a model without stable numbers amplifies.

    At the same position of a batch of the same size, a sample is rounded in the same way whatever
    the other samples are. Copies of it in one batch differ by no more than that.
    """
    import tensorflow as tf

    count = len(next(iter(batch.values())))
    for row in rows:
        try:
            copies = _values(traced, batch, [row] * count)
        except tf.errors.OpError:  # which the batch was not
            return True
        last = copies[-1]
        for other in rows:
            beside = _values(traced, batch, [*[other] * (count - 1), row])[-1]
            if not _are_equal(last, beside):
                return True
        if any(largest_change(value, last[name], _AMPLIFIED) for name, value in copies[0].items()):
            return True
    return False


def _values(traced: Traced, batch: Tensors, rows: Sequence[int]) -> list[Tensors]:
    """The values of each of ``rows``, computed as one batch."""
    chosen = list(rows)
    values = traced_values(traced, {name: array[chosen] for name, array in batch.items()})
    return [{name: value[k] for name, value in values.items()} for k in range(len(chosen))]


def _are_equal(first: Tensors, second: Tensors) -> bool:
    return all(np.array_equal(value, second[name], equal_nan=True) for name, value in first.items())


def largest_change(first: Array, second: Array, factor: float = 1.0) -> float:
    """The largest difference, 0 if it is at most ``factor`` times the limit of float32 files.

    Infinite for arrays of different shapes.
    """
    if np.shape(first) != np.shape(second):
        return float("inf")
    finite = np.isfinite(first) & np.isfinite(second)
    if not finite.any():
        return 0.0
    limits = LIMITS["float32"]
    one, other = (np.asarray(value, np.float64)[finite] for value in (first, second))
    change = float(np.abs(one - other).max())
    limit = limits.atol + limits.rtol * float(np.abs(one).max())
    return change if change > factor * limit else 0.0
