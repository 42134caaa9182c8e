"""Results of a search, for tests of how they are measured."""

from __future__ import annotations

from dataclasses import replace

from edgeattn.bundle.bundle import Bundle
from edgeattn_converters.tuning.latency import Candidates
from edgeattn_converters.tuning.search import Candidate, Result


def candidates_of(bundle: Bundle) -> Candidates:
    """The artifacts of a bundle as the results of a search."""
    results = tuple(
        Result(
            Candidate(item.format, item.scheme), "pass", bytes=item.bytes, artifact=item.to_json()
        )
        for item in bundle.manifest.artifacts
    )
    manifest = replace(bundle.manifest, artifacts=())
    return Candidates(results, "latency", bundle.path, manifest, None, ())
