"""The four verdicts, and how the verdicts of parts combine into one."""

from collections.abc import Iterable

PASS, FAIL, INCONCLUSIVE, NOT_RUN = "pass", "fail", "inconclusive", "not run"
# Whether an artifact is converted right.
RIGHT, WRONG, UNKNOWN = "right", "wrong", "unknown"
# Why a limit that was missed on synthetic samples does not fail an artifact.
NOT_PROVEN = "not proven: no real samples"

# Why a limit that was missed through rounding alone does not fail an artifact.
PRECISION = "converted right, but the precision costs more than the usual limit"

# Why a share that was missed by a few samples does not fail an artifact.
FEW_SAMPLES = "not decided: too few samples"

# Why values that an artifact does not have do not fail it.
LOST = "not decided: only you know whether these values matter"


def combined(verdicts: Iterable[str]) -> str:
    """The verdict of a whole: the worst of its parts, ignoring parts that did not run."""
    present = set(verdicts)
    return next((v for v in (FAIL, INCONCLUSIVE, PASS) if v in present), NOT_RUN)
