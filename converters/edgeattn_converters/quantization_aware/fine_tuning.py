"""The course of a fine-tuning."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn import progress
from edgeattn.errors import ConversionError, SampleError, UnsupportedModelError, UsageError
from edgeattn.metrics import pairwise
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.calibration import MAX_SAMPLES
from edgeattn_converters.loading.fixed_time_axis import Size
from edgeattn_converters.quantization_aware.data import (
    checked_inputs,
    checked_labels,
    named_arrays,
)
from edgeattn_converters.quantization_aware.labels import label_loss
from edgeattn_converters.quantization_aware.options import FineTuningOptions
from edgeattn_converters.quantization_aware.rebuilding import rebuilt
from edgeattn_converters.quantization_aware.student import Student, difference, training_step
from edgeattn_converters.quantization_aware.weights import float_layers, kernels
from edgeattn_converters.tracing import known_batch
from edgeattn_converters.tracing.attention_outputs import unique
from edgeattn_converters.tracing.keras_call import layer_name
from edgeattn_converters.tracing.trace import Interface, interface_of, trace

# Every so many samples, one is not trained on: on these the best epoch is chosen. Fewer samples
# serve both purposes.
HELD_OUT_STEP = 5
MIN_SPLIT = 40
CLIP_NORM = 1.0
# By output or attention map, the value of each metric.
Errors = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model, and how far int8 arithmetic is from the model that was given.

    Attributes:
        model: A new Keras model with the architecture of the given one. Rounding its weights to
            int8 does not change them.
        before: The errors of the given model in int8 arithmetic, on samples that are not trained
            on: ``max_abs_error`` and ``snr_db`` of outputs, ``max_abs_error`` and
            ``jensen_shannon`` of attention maps.
        after: The errors of ``model`` in int8 arithmetic on the same samples, compared with the
            model that was given.
        losses: The loss on these samples before training and after every epoch.
        best_epoch: The epoch whose weights ``model`` has, the one with the lowest loss; 0 if no
            epoch is better than rounding.
        float_layers: Layers with large weights whose rounding is not simulated, with their class.
    """

    model: Any
    before: Errors
    after: Errors
    losses: tuple[float, ...]
    best_epoch: int
    float_layers: tuple[str, ...]


def fine_tune(
    model: Any,
    x: Any,
    y: Any = None,
    options: FineTuningOptions = FineTuningOptions(),  # noqa: B008 - frozen
) -> FineTuned:
    """Continue the training of ``model`` in the int8 arithmetic of a scheme.

    Weights are rounded in every step, per output channel as in the files, and with ``int8`` also
    the values that layers compute; gradients pass as if they were not. Training is as in
    inference: dropout is off and the statistics of BatchNormalization stay. The differences from
    the outputs and attention maps of ``model`` are part of the loss, so that attention stays where
    it was.

    Args:
        model: A functional or Sequential Keras 3 model; it is not changed.
        x: The inputs: an array, a list in the order of the model's inputs or a dictionary by name,
            samples first. A hundred samples of the training set or more are recommended.
        y: The labels in one of these forms, or None to train without labels.
        options: How to fine-tune.

    Returns a :class:`FineTuned`. Raises :class:`SampleError` if samples or labels are invalid,
    :class:`UsageError` if labels have no loss, :class:`UnsupportedModelError` if the model has no
    weights that can be rounded or trained, or needs the number of samples of a batch, and
    :class:`ConversionError` if training diverges.
    """
    _check_backend()
    arrays = named_arrays(x, _input_names(model), "x")
    interface = interface_of(model, time_steps=_sizes(arrays))
    if interface.any_batch:
        raise UnsupportedModelError(
            "A layer needs the number of samples of a batch, and fine-tuning has batches of any "
            "number.",
            hint=f"{known_batch.ADVICE} Then give it the weights of this model; they fit.",
        )
    inputs = checked_inputs(arrays, interface)
    count = len(next(iter(inputs.values())))
    names = [spec.name for spec in interface.outputs]
    labels = {} if y is None else checked_labels(named_arrays(y, names, "y"), count)
    course = _Course(model, interface, options, label_loss(model, names, options, labels))
    return course.run(inputs, labels)


def _check_backend() -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"Keras runs on {keras.backend.backend()}, but fine-tuning needs TensorFlow.",
            hint="Set the environment variable KERAS_BACKEND=tensorflow.",
        )


def _input_names(model: Any) -> list[str]:
    if not getattr(model, "inputs", None):
        raise UnsupportedModelError(
            f"The model ({type(model).__name__}) does not define its inputs.",
            hint="Build it with the functional API: keras.Model(inputs, outputs).",
        )
    return unique([layer_name(tensor) for tensor in model.inputs])


def _sizes(arrays: Tensors) -> dict[str, Size]:
    """The sizes of the samples of each input, which free axes get."""
    return {name: tuple(array.shape[1:]) for name, array in arrays.items()}


@dataclass(frozen=True)
class _Epoch:
    """The weights at the end of an epoch, with the loss and the errors on held-out samples."""

    loss: float
    errors: Errors
    weights: list[Array]


class _Course:
    """The teacher, which is the given model, the student, and the loss between them."""

    def __init__(
        self,
        model: Any,
        interface: Interface,
        options: FineTuningOptions,
        loss_of_labels: Callable[[Mapping[str, Any], Mapping[str, Any]], Any] | None,
    ) -> None:
        rounded = kernels(model, static=options.static)
        self._float_layers = tuple(float_layers(model, rounded))
        if not rounded or not model.trainable_variables:
            found = ", ".join(self._float_layers) or "none"
            raise UnsupportedModelError(
                "The model has no weights that can be fine-tuned for int8. Layers with other large "
                f"weights: {found}.",
                hint="Supported are LSTM, GRU, SimpleRNN, attention, Dense, EinsumDense, Embedding "
                "and convolutions that are trainable.",
            )
        self._model, self._interface, self._options = model, interface, options
        self._kernels, self._label_loss = rounded, loss_of_labels
        self._maps = [spec.name for spec in interface.attention]
        self._teacher = trace(model, interface, batch=None, attention=True, freeze=False)
        self._student = Student(model, interface, rounded, options)

    def run(self, inputs: Tensors, labels: Tensors) -> FineTuned:
        """Train, and return the model of the best epoch."""
        options, student = self._options, self._student
        trained_on, held_out = _split(len(next(iter(inputs.values()))))
        measured = trained_on[:: -(-len(trained_on) // MAX_SAMPLES)]
        first = self._batch(inputs, labels, trained_on[:1])
        step = training_step(student, self._loss, self._optimizer(len(trained_on)), first)
        generator = np.random.default_rng(options.seed)

        def evaluate(epoch: int) -> _Epoch:
            student.measure_ranges(_rows(inputs, rows) for rows in self._batches(measured))
            return self._evaluate(inputs, labels, held_out, epoch)

        epochs = [evaluate(0)]
        for number in range(1, options.epochs + 1):
            for rows in self._batches(generator.permutation(trained_on)):
                loss = float(step(*self._batch(inputs, labels, rows)))
                _check_finite(loss, number)
            epochs.append(evaluate(number))
            progress.report(
                f"fine-tuning: epoch {number} of {options.epochs}, loss {epochs[-1].loss:.3g}"
            )
        best = min(epochs, key=lambda epoch: epoch.loss)
        sample = _rows(inputs, held_out[: options.batch_size])
        model = rebuilt(self._model, best.weights, self._kernels, tuple(sample.values()))
        return FineTuned(
            *(model, epochs[0].errors, best.errors, tuple(epoch.loss for epoch in epochs)),
            *(epochs.index(best), self._float_layers),
        )

    def _batches(self, rows: Array) -> Iterator[Array]:
        for start in range(0, len(rows), self._options.batch_size):
            yield rows[start : start + self._options.batch_size]

    def _batch(self, inputs: Tensors, labels: Tensors, rows: Array) -> tuple[Tensors, Any]:
        """The inputs of these samples; the results of the given model and the labels."""
        batch = _rows(inputs, rows)
        return batch, (self._expected(batch, rows), _rows(labels, rows))

    def _expected(self, batch: Tensors, rows: Array) -> dict[str, Any]:
        """What the given model computes."""
        import tensorflow as tf

        values = self._teacher.function(*[tf.constant(array) for array in batch.values()])
        names = [spec.name for spec in self._teacher.outputs]
        expected = dict(zip(names, values, strict=True))
        for name, value in expected.items():
            if value.dtype.is_floating and not np.isfinite(value.numpy()).all():
                row = rows[np.argwhere(~np.isfinite(value.numpy()))[0][0]]
                raise SampleError(
                    f"The model itself computes NaN or infinity for sample {row}: {name}.",
                    hint="Remove the sample, or check the model with: edgeattn inspect MODEL",
                )
        return expected

    def _loss(self, inputs: Tensors, outputs: Mapping[str, Any], targets: Any) -> Any:
        """The loss of int8 outputs, and of the outputs of Keras, which files are compared with."""
        expected, labels = targets
        in_keras = self._student.with_float_activations(*inputs.values())
        loss = difference(expected, outputs) + difference(expected, in_keras)
        loss *= self._options.distillation
        return loss if self._label_loss is None else loss + self._label_loss(outputs, labels)

    def _evaluate(self, inputs: Tensors, labels: Tensors, rows: Array, epoch: int) -> _Epoch:
        """The loss and the errors on these samples, with the current weights."""
        total, expected, actual = 0.0, [], []
        for part in self._batches(rows):
            batch, targets = self._batch(inputs, labels, part)
            expected.append(targets[0])
            actual.append(self._student.run(batch))
            loss = self._loss(batch, actual[-1], targets)
            total += float(loss) * len(part) / len(rows)
        _check_finite(total, epoch)
        errors = {
            name: self._errors(name, *(_joined(name, batches) for batches in (expected, actual)))
            for name in expected[0]
        }
        return _Epoch(total, errors, self._student.values())

    def _errors(self, name: str, expected: Array, actual: Array) -> dict[str, float]:
        errors = {"max_abs_error": pairwise.max_abs_error(expected, actual)}
        if name in self._maps:
            return errors | {"jensen_shannon": pairwise.jensen_shannon(expected, actual)}
        return errors | {"snr_db": pairwise.snr_db(expected, actual)}

    def _optimizer(self, count: int) -> Any:
        import keras

        steps = self._options.epochs * -(-count // self._options.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(self._options.learning_rate, steps)
        return keras.optimizers.Adam(rate, global_clipnorm=CLIP_NORM)


def _split(count: int) -> tuple[Array, Array]:
    """The samples to train on, and those to compare epochs on."""
    rows = np.arange(count)
    if count < MIN_SPLIT:
        return rows, rows
    held_out = rows % HELD_OUT_STEP == 0
    return rows[~held_out], rows[held_out]


def _rows(arrays: Tensors, rows: Array) -> Tensors:
    return {name: array[rows] for name, array in arrays.items()}


def _joined(name: str, batches: Sequence[Mapping[str, Any]]) -> Array:
    return np.concatenate([np.asarray(batch[name]) for batch in batches])


def _check_finite(loss: float, epoch: int) -> None:
    if not np.isfinite(loss):
        when = f"in epoch {epoch}" if epoch else "before training"
        raise ConversionError(
            f"The loss is {loss} {when}.",
            hint="Pass a smaller learning_rate and check the loss of the labels."
            if epoch
            else "Check the loss and the labels.",
        )
