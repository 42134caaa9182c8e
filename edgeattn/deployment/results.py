"""Results of a deployment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeattn.errors import EdgeattnError
from edgeattn.metrics.verdict import NOT_RUN, PASS

if TYPE_CHECKING:
    from edgeattn.device.info import Device
    from edgeattn.validation.recommendation import Recommendation
    from edgeattn.validation.report import Report

SWITCHED, UNCHANGED, REFUSED = "serves now", "served already", "refused"
ROLLED_BACK, FAILED = "rolled back", "failed"


@dataclass(frozen=True)
class DeploymentResult:
    """The result on one device; ``error`` is set if the deployment did not complete.

    ``previous`` is the version that served before, ``sent`` the number of bytes copied, ``bench``
    the measurement as JSON, ``recommendation`` the artifact to use on the device, ``removed`` the
    versions that were deleted.
    """

    host: str
    state: str
    folder: str | None = None
    version: str | None = None
    previous: str | None = None
    sent: int = 0
    device: Device | None = None
    report: Report | None = None
    bench: dict[str, Any] | None = None
    recommendation: Recommendation | None = None
    removed: tuple[str, ...] = ()
    error: EdgeattnError | None = field(default=None, compare=False)

    @property
    def verdict(self) -> str:
        """That of the report, but no pass unless every selected artifact ran."""
        if self.report is None:
            return NOT_RUN
        verdict = self.report.verdict
        complete = all(item.verdict != NOT_RUN for item in self.report.artifacts)
        return verdict if complete or verdict != PASS else NOT_RUN

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        if self.report is None:
            return 0
        return 5 if self.verdict == NOT_RUN else self.report.exit_code

    def to_json(self) -> dict[str, Any]:
        error = self.error and {"message": self.error.message, "hint": self.error.hint}
        return {
            "host": self.host,
            "state": self.state,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "folder": self.folder,
            "version": self.version,
            "previous": self.previous,
            "bytes_sent": self.sent,
            "removed": list(self.removed),
            "device": None if self.device is None else self.device.to_json(),
            "artifacts": [] if self.report is None else self.report.to_json()["artifacts"],
            "bench": self.bench,
            "recommended": self.recommendation and self.recommendation.to_json(),
            "error": error,
        }


def worst_exit_code(results: Sequence[DeploymentResult]) -> int:
    """The most severe exit code: an internal error, then a failed check, then other errors."""
    codes = {result.exit_code for result in results}
    return next((code for code in (70, 1, 4, 2, 3, 5, 6) if code in codes), 0)
