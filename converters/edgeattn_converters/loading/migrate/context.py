"""Facts about one file that the migration needs besides the configuration."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeattn.errors import EdgeattnError, UnsafeModelError, UnsupportedModelError
from edgeattn.printable import enumerated, join_lines
from edgeattn_converters.loading.eras.bilinear_positions import Positions

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Missing:
    """A class or function that the user has to define, and the message if it is the only one.

    ``definition`` is what to define, such as ``f(x)``; ``hint`` says what to do instead if it is
    part of a package. ``line`` is a line for the user's file that imports it from a package that
    can be imported. ``refused`` is whether it replaces code of the file, which is never run.
    """

    message: str
    definition: str
    hint: str = ""
    line: str = ""
    refused: bool = False


def missing_error(missing: Sequence[Missing]) -> EdgeattnError:
    """Return the error that names all classes and functions that the user has to define."""
    found = list({item.definition or item.hint: item for item in missing}.values())
    messages = [item.message for item in found]
    if len(found) > 1:
        title = f"The file needs {len(found)} classes and functions that it does not contain:"
        messages = [title, *(f"  {message}" for message in messages)]
    definitions = [item.definition for item in found if not item.hint]
    hints = list(dict.fromkeys(item.hint for item in found if item.hint))
    if definitions:
        pronoun = "it" if len(definitions) == 1 else "them"
        hints.append(
            f"Define {enumerated(definitions)} in a Python file and pass {pronoun}: "
            "--custom-objects FILE.py"
        )
        if lines := [item.line for item in found if item.line and not item.hint]:
            hints[-1] += f", or write in that file: {'; '.join(lines)}"
    kind = UnsafeModelError if any(item.refused for item in found) else UnsupportedModelError
    return kind(join_lines(messages), hint=" ".join(hints))


@dataclass(frozen=True)
class Context:
    """What is known about the file, and what the migration reports about it.

    Attributes:
        major: major version of the Keras that wrote the configuration: 1, 2 or 3.
        version: version of the Keras that saved the weights as numbers, ``(2, 1, 4)``; empty if the
            file does not contain it. It differs from that of a configuration in a separate file.
        accepted: returns the constructor arguments of a Keras 3 layer, None for an unknown class.
        custom_objects: the user's own classes and functions by name.
        shapes: returns path and shape of the arrays stored for a layer, in order; empty if unknown.
        masked: whether a layer of the model creates a mask.
        backend: the library that computed the model, ``"tensorflow"`` or ``"theano"``; None if
            the file does not contain it.
        of_tensorflow: whether tf.keras saved the weights: shapes of outputs are those of the calls
            of layers, not of ``compute_output_shape``, and weights are stored in the order of the
            attributes of a layer.
        of_program: whether a function of the user built the model, in which edgeattn may have put
            layers of its own.
        script: the user's file of classes; None if there is none.
        positions: where bilinear interpolation takes its values; None as in the current Keras.
        created: the weights of the model in the order in which its layers created them.
        notes: sentences for the user about what was migrated.
        stateful: names of the layers that kept their state from one batch to the next.
        removed: by the name of an input, the :class:`.lookup_removal.Chain` of layers that were
            removed in its place.
        missing: classes and functions that the user has to define.
        replaced: by the name of a function of the user, the Lambda layer that it replaces and the
            function that the layer stores.
        unnamed: names of layers of the user's classes whose stored arguments have no name.
    """

    major: int
    version: tuple[int, ...]
    accepted: Callable[[str], frozenset[str] | None]
    custom_objects: Mapping[str, Any]
    shapes: Callable[[str], Sequence[tuple[str, Shape]]]
    masked: bool
    backend: str | None = None
    of_tensorflow: bool = False
    of_program: bool = False
    script: Path | None = None
    positions: Positions | None = None
    created: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stateful: list[str] = field(default_factory=list)
    removed: dict[str, Any] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    replaced: dict[str, tuple[str, Any]] = field(default_factory=dict)
    unnamed: set[str] = field(default_factory=set)

    @property
    def era(self) -> int:
        """Major version of the Keras that saved the weights, which the layers must compute as."""
        return era_of(self.version) or self.major


def era_of(version: tuple[int, ...]) -> int | None:
    """Return the major version, 1, 2 or 3, of a Keras version; None if it is unknown."""
    return min(max(version[0], 1), 3) if version else None


def safe_name(name: str) -> str:
    """Return the name of a layer or model as TensorFlow allows it for a scope.

    ``"My LSTM>"`` -> ``"My_LSTM_"``. Letters of other scripts become their code points, so that
    different names stay different.
    """
    return re.sub(
        r"[^A-Za-z0-9_.\-]",
        lambda match: "_" if match[0].isascii() else f"u{ord(match[0]):x}",
        name,
    )


def safe_input_name(name: str) -> str:
    """Return the name of an input as Keras 3 allows it: without slashes."""
    return name.replace("/", "_").replace("\\", "_")


def keras_layer(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer of Keras in the form that Keras 3 stores."""
    return {"module": "keras.layers", "class_name": class_name, "config": config,
            "registered_name": None}  # fmt: skip


def placeholder(name: str) -> dict[str, Any]:
    """Return a layer in the place of one whose class or function is missing."""
    return keras_layer("Identity", {"name": name})


def registered_layer(registered: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer that Keras finds by its registered name, ``"package>ClassName"``."""
    return {"module": None, "class_name": registered.rsplit(">", 1)[-1], "config": config,
            "registered_name": registered}  # fmt: skip
