"""The body of a request for answers, read strictly."""

import json
from collections.abc import Sequence
from typing import Any

from edgeattn.serving.http_error import HttpError

# Exceptions that parsing malformed JSON can raise.
MALFORMED = (ValueError, RecursionError, MemoryError)
_FORM = 'Send {"sample": ...}, or {"samples": [...]} for several samples.'


def parse_body(body: bytes) -> tuple[list[Any], bool]:
    """The samples of a request, and whether it has several. Raises :class:`HttpError` (400)."""
    try:
        document = json.loads(
            body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except MALFORMED as error:
        raise HttpError(400, f"The body is not JSON: {error}", hint=_FORM) from error
    if not isinstance(document, dict) or document.keys() not in ({"sample"}, {"samples"}):
        raise HttpError(
            400, 'The body is not an object with "sample" or "samples" only.', hint=_FORM
        )
    if "sample" in document:
        return [document["sample"]], False
    samples = document["samples"]
    if not isinstance(samples, list) or not samples:
        raise HttpError(400, '"samples" is not a list of one or more samples.', hint=_FORM)
    return samples, True


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("an object has a key twice")
    return document
