"""The plan of a sweep: a TOML file, read strictly."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeattn.api.arguments import ALL, checked_names
from edgeattn.api.convert import LOWERINGS
from edgeattn.api.input_sizes import parse_lengths, parse_shape
from edgeattn.errors import UsageError
from edgeattn.frontend.fields import parse_table
from edgeattn.schemes import EXPERIMENTAL, FORMATS, SCHEMES
from edgeattn_converters.recipes import TARGETS
from edgeattn_converters.sweep import remote

# Keys of a model whose values are URLs, and are passed to convert.
FILES = ("samples", "calibration", "custom_objects", "architecture", "preprocess", "labels")
# The function in the value of architecture: FILE.py:FUNCTION.
_FUNCTION = re.compile(r"(?<=\.py):(\w+)$")


@dataclass(frozen=True)
class ModelEntry:
    """A table ``[[models]]``: a model, or all that match a pattern, with their files.

    The names are the options of ``edgeattn convert``; ``path`` is the model, ``data`` are the
    datasets. ``{folder}`` and ``{stem}`` in a URL stand for the folder of the model and for its
    file name without the suffix. ``time_steps`` may be text such as ``text=20,chars=8``, and
    ``input_shapes`` such as ``image=64x64x3``.
    """

    path: str
    name: str | None = None
    samples: str | None = None
    calibration: str | None = None
    data: tuple[str, ...] = ()
    custom_objects: str | None = None
    architecture: str | None = None
    signature: str | None = None
    preprocess: str | None = None
    labels: str | None = None
    time_steps: int | str | None = None
    input_shapes: tuple[str, ...] = ()
    trust: str | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            self.sizes()
        except UsageError as error:
            raise ValueError(error.message) from error

    def sizes(self) -> dict[str, Any]:
        """``time_steps`` and ``input_shapes`` as :func:`edgeattn.convert` has them."""
        steps = None if self.time_steps is None else parse_lengths(str(self.time_steps))
        shapes = dict(map(parse_shape, self.input_shapes))
        return {"time_steps": steps, **({"input_shapes": shapes} if shapes else {})}

    @property
    def function(self) -> str | None:
        """The function that ``architecture`` names: ``FILE.py:FUNCTION``."""
        found = _FUNCTION.search(self.architecture or "")
        return found and found[1]

    def file(self, key: str) -> str | None:
        """The URL of a file in :data:`FILES`."""
        url: str | None = getattr(self, key)
        return _FUNCTION.sub("", url) if url and key == "architecture" else url


@dataclass(frozen=True)
class Plan:
    """What a sweep converts and validates, and where the results are stored.

    Attributes:
        results: The URL of the results.
        models: One entry for each model file, with absolute URLs and unique names.
        schemes: Names of schemes; default: those of ``edgeattn convert``.
        formats: ``tflite`` and ``onnx``; default: every format.
        lowerings: Forms of recurrences; each gives a bundle of its own.
        targets: Runtimes; each gives a bundle of its own. Default: one bundle for no target.
        max_drop: The largest accepted drop of the score on the datasets.
    """

    results: str
    models: tuple[ModelEntry, ...]
    schemes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    lowerings: tuple[str, ...] = ("auto",)
    targets: tuple[str, ...] = ()
    max_drop: float | None = None

    def __post_init__(self) -> None:
        checked_names("schemes", self.schemes, (*SCHEMES, *EXPERIMENTAL, ALL))
        checked_names("formats", self.formats, FORMATS)
        checked_names("lowerings", self.lowerings, LOWERINGS)
        checked_names("targets", self.targets, tuple(TARGETS))
        if not self.lowerings or not self.models:
            raise ValueError("models and lowerings must not be empty")
        for name in ("schemes", "formats", "lowerings", "targets"):
            repeated = [n for n, count in Counter(getattr(self, name)).items() if count > 1]
            if repeated:
                raise ValueError(f"{name}: {repeated[0]!r} occurs more than once")
        if self.max_drop is not None and not 0 < self.max_drop < 1:
            raise ValueError(f"max_drop is {self.max_drop}, not between 0 and 1")
        for target in self.targets:
            if self.formats and TARGETS[target] not in self.formats:
                raise ValueError(f"the target {target} needs the format {TARGETS[target]}")


def read_plan(url: str) -> Plan:
    """The plan at a URL, with patterns expanded.

    Raises :class:`UsageError` if it is missing or invalid; unknown keys are errors.
    """
    url = remote.resolve(url, ".")
    name = remote.name_of(url)
    try:
        document = tomllib.loads(remote.read(url).decode())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"No such plan: {url}", hint="Pass a TOML file.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"{name} is not a TOML file: {error}",
            hint="Pass a plan: a TOML file with a table [[models]] for each model.",
        ) from error
    tables = document.get("models", [])
    if not isinstance(tables, list):
        raise UsageError(f"{name}: models is no list of tables.", hint="Write [[models]].")
    entries = [
        parse_table(ModelEntry, table, f"{name}: models[{index}]")
        for index, table in enumerate(tables)
    ]
    base = remote.folder_of(url)
    models = [model for entry in entries for model in _expanded(entry, base)]
    plan = parse_table(Plan, {**document, "models": tuple(_with_names(models))}, name)
    return replace(plan, results=remote.resolve(plan.results, base))


def _expanded(entry: ModelEntry, base: str) -> list[ModelEntry]:
    """An entry for each model that the path matches, with absolute URLs."""
    pattern = remote.resolve(entry.path, base)
    paths = remote.expand(pattern)
    if not paths:
        raise UsageError(f"No model matches {pattern}", hint="Correct the path in the plan.")
    if entry.name is not None and len(paths) > 1:
        raise UsageError(
            f"{pattern} matches {len(paths)} models, which cannot all be named {entry.name!r}.",
            hint="Omit name.",
        )
    return [_at(entry, path, base) for path in paths]


def _at(entry: ModelEntry, path: str, base: str) -> ModelEntry:
    folder, stem = remote.folder_of(path), _stem(path)

    def absolute(url: str) -> str:
        filled = url.replace("{folder}", folder).replace("{stem}", stem)
        return remote.resolve(filled, base)

    urls: dict[str, Any] = {
        name: absolute(value) for name in FILES if (value := getattr(entry, name)) is not None
    }
    return replace(entry, path=path, data=tuple(map(absolute, entry.data)), **urls)


def _stem(path: str) -> str:
    return remote.name_of(path).rpartition(".")[0] or remote.name_of(path)


def _with_names(models: Sequence[ModelEntry]) -> list[ModelEntry]:
    """The models with unique names: the stem of the file, or that of its folder.

    Raises :class:`UsageError` if two have the same name.
    """
    stems = Counter(_stem(model.path) for model in models if model.name is None)
    named = [
        model
        if model.name is not None
        else replace(model, name=_default_name(model.path, unique=stems[_stem(model.path)] == 1))
        for model in models
    ]
    for first, second in itertools.combinations(named, 2):
        if first.name == second.name:
            raise UsageError(
                f"Two models are named {first.name!r}: {first.path} and {second.path}.",
                hint='Name them in their tables: name = "..."',
            )
    return named


def _default_name(path: str, *, unique: bool) -> str:
    # Many trainings write a file of this name.
    return (
        _stem(path) if unique and _stem(path) != "model" else remote.name_of(remote.folder_of(path))
    )
