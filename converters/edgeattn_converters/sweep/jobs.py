"""The jobs of a plan: one for each bundle, with the keys of its results."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from edgeattn import progress
from edgeattn.api.input_sizes import sizes_of_inputs
from edgeattn.errors import MissingCalibrationError, UsageError
from edgeattn.schemes import FORMATS, MICRO
from edgeattn_converters.option_conflicts import Request, check_combination
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.recipes import TARGETS
from edgeattn_converters.sweep import remote
from edgeattn_converters.sweep.plan import FILES, ModelEntry, Plan
from edgeattn_converters.sweep.remote import RemoteFile

# Changes if results have other contents, so that earlier ones are not used again.
LAYOUT = 1


@dataclass(frozen=True)
class Job:
    """A conversion, and the validations of its bundle on datasets.

    Attributes:
        model: The name of the model in the plan.
        files: The model, and the files that convert reads, by option.
        data: The datasets.
        options: Arguments of :func:`edgeattn.convert` other than files.
        schemes: The schemes by name, and ``formats`` the formats: every pair is an artifact.
        max_drop: Largest accepted drop of the score on the datasets.
        versions: Versions of edgeattn and of the packages that results depend on.
        function: The function that builds the architecture, in the file ``architecture``.
    """

    model: str
    files: Mapping[str, RemoteFile]
    data: tuple[RemoteFile, ...]
    options: Mapping[str, Any]
    formats: tuple[str, ...]
    schemes: tuple[str, ...]
    max_drop: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    function: str | None = None

    @property
    def target(self) -> str | None:
        return next(iter(self.options["targets"]), None)

    @property
    def lowering(self) -> str:
        return str(self.options["lowering"])

    @property
    def label(self) -> str:
        """A name for messages."""
        parts = [self.model, self.target, None if self.lowering == "auto" else self.lowering]
        return " ".join(part for part in parts if part)

    @functools.cached_property
    def key(self) -> str:
        """The content address of the conversion."""
        return _address(
            {
                "kind": "bundle",
                "files": {role: file.identity for role, file in self.files.items()},
                "options": dict(self.options),
                "function": self.function,
                "formats": self.formats,
                "schemes": self.schemes,
                "versions": dict(self.versions),
            }
        )

    def evaluation_key(self, data: RemoteFile) -> str:
        """The content address of the validation on a dataset."""
        return _address(
            {
                "kind": "evaluation",
                "bundle": self.key,
                "data": data.identity,
                "max_drop": self.max_drop,
            }
        )

    @functools.cached_property
    def keys(self) -> list[str]:
        return [self.key, *map(self.evaluation_key, self.data)]

    def to_json(self, discarded: Collection[str] = ()) -> dict[str, Any]:
        """What a worker needs; results whose keys are ``discarded`` are computed again."""
        return {
            "key": self.key,
            "label": self.label,
            "files": {role: file.to_json() for role, file in self.files.items()},
            "options": {**self.options, "formats": self.formats, "schemes": self.schemes},
            "function": self.function,
            "data": [
                {"key": self.evaluation_key(item), "file": item.to_json()} for item in self.data
            ],
            "max_drop": self.max_drop,
            "discarded": [key for key in self.keys if key in discarded],
        }


def _address(parts: Mapping[str, Any]) -> str:
    text = json.dumps({"layout": LAYOUT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def jobs_of(plan: Plan, versions: Mapping[str, str]) -> list[Job]:
    """The jobs of a plan, in order.

    Reads every file once, for its hash. Raises :class:`UsageError` if a file is missing or if
    options exclude each other.
    """
    described: dict[str, RemoteFile] = {}

    def describe(url: str) -> RemoteFile:
        if url not in described:
            progress.report(f"hashing {remote.name_of(url)}")
            try:
                described[url] = remote.describe(url)
            except FileNotFoundError as error:
                raise UsageError(
                    f"No such file: {url}", hint="Correct the path in the plan."
                ) from error
        return described[url]

    return [
        _job(plan, model, bundle, versions, describe)
        for model in plan.models
        for bundle in _bundles(plan)
    ]


def jobs_where(jobs: Iterable[Job], where: Mapping[str, str]) -> list[Job]:
    """The jobs whose properties match the patterns ``where``."""
    selected = [
        job
        for job in jobs
        if fnmatchcase(job.model, where.get("model", "*"))
        and fnmatchcase(job.target or "", where.get("target", "*"))
        and fnmatchcase(job.lowering, where.get("lowering", "*"))
    ]
    if "data" not in where:
        return selected
    return [job for job in (_with_data(job, where["data"]) for job in selected) if job.data]


def _with_data(job: Job, pattern: str) -> Job:
    return replace(job, data=tuple(x for x in job.data if fnmatchcase(x.name, pattern)))


def _bundles(plan: Plan) -> Iterator[tuple[str | None, str, tuple[str, ...]]]:
    """Target, lowering and formats of each bundle of a model.

    The lowering changes TFLite files only, so the others are converted with the first one.
    """
    for target in plan.targets or (None,):
        formats = plan.formats or FORMATS
        if target is not None:
            formats = tuple(name for name in formats if name == TARGETS[target])
        for index, lowering in enumerate(plan.lowerings):
            kept = formats if index == 0 else tuple(x for x in formats if x == "tflite")
            if kept:
                yield target, lowering if "tflite" in kept else "auto", kept


def _job(
    plan: Plan,
    model: ModelEntry,
    bundle: tuple[str | None, str, tuple[str, ...]],
    versions: Mapping[str, str],
    describe: Callable[[str], RemoteFile],
) -> Job:
    target, lowering, formats = bundle
    targets = () if target is None else (target,)
    options = ConversionOptions(formats, plan.schemes, targets, lowering=lowering)
    chosen = options.with_defaults(calibrated=model.calibration is not None)
    sizes = model.sizes()
    # As convert checks them, but before any work starts.
    named = chosen.schemes if target == MICRO else plan.schemes
    request = Request(
        ModelSource(
            model.path,
            samples=model.samples,
            **sizes_of_inputs(sizes["time_steps"], sizes.get("input_shapes")),
        ),
        chosen,
        QuantizationOptions(calibration=model.calibration),
    )
    try:
        check_combination(request, named_schemes=named)
    except UsageError as error:
        missing = isinstance(error, MissingCalibrationError)
        hint = "Add calibration = URL to the model, or omit the scheme." if missing else error.hint
        raise UsageError(f"{model.name}: {error.message}", hint=hint) from error
    urls = {"model": model.path, **{name: model.file(name) for name in FILES}}
    return Job(
        str(model.name),
        {role: describe(url) for role, url in urls.items() if url is not None},
        tuple(map(describe, model.data)),
        {
            "targets": targets,
            "lowering": lowering,
            **sizes,
            "trust": model.trust,
            # Absent otherwise: the key of a job contains its options.
            **({"signature": model.signature} if model.signature else {}),
            "ignore": model.ignore,
        },
        tuple(chosen.formats),
        tuple(chosen.schemes),
        plan.max_drop,
        versions,
        model.function,
    )
