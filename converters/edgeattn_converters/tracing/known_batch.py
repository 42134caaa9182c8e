"""Models that Keras computes for a known number of samples only.

Code of the user may read it from a shape, as in ``keras.ops.zeros((x.shape[0], 4))``, which fails
while it is free. Files for devices compute one sample at a time.
"""

from collections.abc import Callable
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn_converters.loading.training_mode import layers_with_user_code
from edgeattn_converters.tracing.keras_call import NotComputedError

# Instead of one that was created for a number of samples.
ADVICE = (
    "Let the layers take the number of samples from keras.ops.shape(x)[0] instead of x.shape[0] "
    "or a constant, and create the model for any number: keras.Input(shape=...)."
)


def declared(model: Any) -> int | None:
    """The number of samples with which a model was created; None for any number."""
    sizes = [tensor.shape[0] for tensor in model.inputs if len(tensor.shape)]
    return next((int(size) for size in sizes if size is not None), None)


def _may_be_needed(model: Any) -> bool:
    """Whether a model may need the number of samples.

    It was created for one, or runs code of the user. Other models that fail without it, such as
    those with ``keras.ops.gcd``, fail in ``model.predict``, too.
    """
    return declared(model) is not None or bool(layers_with_user_code(model))


def traced(
    model: Any, batch: int | None, trace: Callable[..., Any]
) -> tuple[Any, int | None, bool]:
    """The result of ``trace(batch=batch)``, the batch, and whether any known one would do.

    A model that Keras does not compute for any number of samples, None, is traced for one sample.
    Raises :class:`UnsupportedModelError` if it computes the number for which it was created only,
    and :class:`NotComputedError` if Keras computes no number of samples.
    """
    try:
        return trace(batch=batch), batch, False
    except NotComputedError as failure:
        if batch is not None or not _may_be_needed(model):
            raise
        return _of_one_sample(model, trace, failure), 1, True


def _of_one_sample(model: Any, trace: Callable[..., Any], failure: NotComputedError) -> Any:
    try:
        return trace(batch=1)
    except UnsupportedModelError as of_one:
        count = declared(model)
        if count in (None, 1):
            raise failure from of_one
        try:
            trace(batch=count)
        except UnsupportedModelError:
            raise failure from of_one
        reason = of_one.message.partition(": ")[2] or of_one.message
        raise UnsupportedModelError(
            f"The model was created for batches of {counted(count, 'sample')} and does not "
            f"compute a single one, as files for devices do: {reason}",
            hint=f"{ADVICE} Then load its weights; they fit.",
        ) from of_one
