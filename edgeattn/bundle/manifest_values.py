"""Checks of values in a manifest, which raise :class:`ValueError` if one is malformed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_CREATED = 253402300799  # the last second of the year 9999


def check_types(section: str, data: Mapping[str, Any], **types: type) -> None:
    for key, expected in types.items():
        if type(data[key]) is not expected:
            raise ValueError(f"{section}: {key} is {data[key]!r}, not {expected.__name__}")


def check_count(name: str, value: object) -> None:
    """Raise :class:`ValueError` if ``value`` is not an integer of at least 0."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is {value!r}, not a count")


def check_unique(what: str, values: Sequence[str]) -> None:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"the {what} {repeated[0]!r} occurs more than once")


def check_created(created: Any) -> int | None:
    """``created`` of a manifest; :class:`ValueError` if it is not such a time."""
    if created is None:
        return None
    check_count("created", created)
    if created > MAX_CREATED:
        raise ValueError(f"created is {created!r}, after the year 9999")
    return int(created)


def check_attended(attended: Mapping[str, Mapping[str, object]]) -> None:
    for name, inputs in attended.items():
        for axis in ("keys", "queries"):
            names = inputs[axis]
            if type(names) is not list or any(type(item) is not str for item in names):
                raise ValueError(f"attended: {axis} of {name} are {names!r}, not a list of names")


def check_achieved(achieved: Mapping[str, Any]) -> None:
    """Check the counts of what a file contains, and the digests of calibration samples."""
    digests = achieved.get("calibration", {}).get("digests", [])
    if type(digests) is not list or any(type(digest) is not str for digest in digests):
        raise ValueError("the calibration has malformed digests")
    numbers = ("variables", "arena_bytes", "flash_bytes", "exact_weights")
    counts = {key: achieved.get(key, 0) for key in numbers}
    for key in ("operators", "weights", "weight_bytes", "activations", "opset", "kept_weights"):
        counts.update({f"{key}: {name}": n for name, n in achieved.get(key, {}).items()})
    for how, kinds in achieved.get("computes_in", {}).items():
        counts.update({f"{how}: {name}": number for name, number in kinds.items()})
    for name, value in counts.items():
        check_count(name, value)
    for clip in list(achieved.get("cell_clips", ())):
        if type(clip) not in (int, float) or not 0 <= clip < math.inf:
            raise ValueError(f"cell_clips has {clip!r}")
