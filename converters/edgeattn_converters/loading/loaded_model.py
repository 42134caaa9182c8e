"""The request to load a model, and its result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeattn_converters.keras_classes import is_signature
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.fixed_time_axis import TimeSteps
from edgeattn_converters.loading.removed_layers import RemovedLayers


@dataclass(frozen=True)
class LoadRequest:
    """How to load a model.

    ``undecided`` are the layers of the user's function whose defaults are not known; None if no
    function built the model, and its layers may all rely on defaults. ``assigning`` runs a function
    that assigns the weights of a file to a model, or replaces it, see
    :meth:`.weights_of_tf_keras.WeightsOfTfKeras.assign`. ``registered`` are the objects that the
    user's file of classes, ``script``, has registered with Keras, by registered name.
    """

    objects: Mapping[str, Any]
    time_steps: TimeSteps | None
    allow_free_time: bool
    undecided: frozenset[str] | None = None
    assigning: Callable[[Callable[[], None], ModelFile, Any, tuple[int, ...]], None] | None = None
    registered: Mapping[str, Any] = field(default_factory=dict)
    script: Path | None = None

    def assign(
        self, assign: Callable[[], None], file: ModelFile, model: Any, version: tuple[int, ...]
    ) -> None:
        """Assign the weights of a file of Keras ``version`` to a model by ``assign``."""
        if self.assigning is None:
            assign()
        else:
            self.assigning(assign, file, model, version)


@dataclass(frozen=True)
class LoadedModel:
    """A Keras 3 model ready to be converted, with notes for the user about what was migrated.

    ``stateful`` are the names of the layers that kept their state from one batch to the next.
    ``preprocessing`` are the layers that were removed, by the name of the input.
    ``may_be_of_tf_keras`` is whether tf_keras may have saved a file that is taken for one of Keras
    3. ``is_called_by_name`` is whether the inputs are several arguments of a subclassed model.
    """

    file: ModelFile
    model: Any
    notes: tuple[str, ...]
    stateful: tuple[str, ...] = ()
    preprocessing: Mapping[str, RemovedLayers] = field(default_factory=dict)
    may_be_of_tf_keras: bool = False
    is_called_by_name: bool = False

    @property
    def is_graph(self) -> bool:
        """Whether the model calls a signature of a SavedModel folder, instead of Keras layers."""
        return calls_signature(self.model)

    @property
    def stored_inputs(self) -> dict[str, str]:
        """By the name of an input in place of removed layers, the input ahead of these."""
        return {name: removed.stored_name for name, removed in self.preprocessing.items()}


def calls_signature(model: Any) -> bool:
    """Whether a model is the graph of a SavedModel, see :mod:`.signature_layer`."""
    return any(map(is_signature, getattr(model, "layers", ())))
