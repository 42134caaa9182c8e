"""What a caller of :func:`~edgeattn_converters.quantization_aware.fine_tune` can choose."""

from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UsageError

SCHEMES = ("int8", "dynamic_int8")
PRECISIONS = ("float32", "int8")


@dataclass(frozen=True)
class FineTuningOptions:
    """How a model is fine-tuned.

    Attributes:
        scheme: The scheme whose arithmetic is simulated: ``int8`` (int8 weights and activations)
            or ``dynamic_int8`` (int8 weights; the inputs of products are scaled to int8 at run
            time).
        attention_precision: The precision of softmaxes in ``int8`` files: ``float32``, or ``int8``
            for files that are converted with ``--attention-precision int8``.
        recurrence_precision: The precision in which recurrent steps of ``int8`` files compute with
            their int8 weights: ``float32``, or ``int8`` for files in which no value is float.
        epochs: Number of passes over the samples.
        batch_size: Samples per step.
        learning_rate: The initial rate of Adam, which decays to zero along a cosine.
        loss: The loss of the labels, as for ``model.compile``: one for all outputs, a list in
            their order, or a dictionary by output name. Default: the loss that the model was
            compiled with.
        distillation: Weight of the difference from the given model's outputs and attention maps,
            relative to the loss of the labels. Without labels it is the only loss.
        seed: Seed of the order of the samples.
    """

    scheme: str = "int8"
    attention_precision: str = "float32"
    recurrence_precision: str = "float32"
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    loss: Any = None
    distillation: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("scheme", SCHEMES),
            ("attention_precision", PRECISIONS),
            ("recurrence_precision", PRECISIONS),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name}={getattr(self, name)!r} cannot be fine-tuned.",
                    hint=f"Choose one of {', '.join(allowed)}.",
                )
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UsageError(
                    f"{name}={getattr(self, name)!r} is not positive.",
                    hint=f"Pass a positive {name}.",
                )
        if not self.distillation >= 0:
            raise UsageError(
                f"distillation={self.distillation!r} is negative.",
                hint="Pass 0 to train on the labels alone.",
            )

    @property
    def static(self) -> bool:
        """Whether activations have fixed ranges, which are measured on the samples."""
        return self.scheme == "int8"
