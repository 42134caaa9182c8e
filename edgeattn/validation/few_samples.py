"""What a comparison on few samples says about others.

Integers are clipped to ranges that were measured on calibration samples. Values beyond them are in
few samples, which can have most of the error, so no interval of a signal-to-noise ratio can be
estimated from those that have none. The share of such samples has an exact limit.
"""

from collections.abc import Iterable, Iterator

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics.statistics import share_limits
from edgeattn.printable import counted

# Schemes whose activations are clipped to measured ranges.
CLIPPED = ("int8", "int16x8")
# A warning is given if a larger share of other samples may have larger errors.
LARGEST_SHARE = 0.1


def uncertain_share(artifact: Artifact, samples: int | None) -> float | None:
    """The share of other samples that may have larger errors than any of ``samples``.

    None if it is at most :data:`LARGEST_SHARE`, if values of the artifact are not clipped, or if
    ``samples``, the number of real ones, is None because they are synthetic.

    The largest error of n independent samples is exceeded in a share p of all samples, and no
    sample of that share is among them with a probability of ``(1 - p)^n``. The limit of p is the
    one of 0 in n (Clopper and Pearson 1934), for 97.5% confidence.
    """
    if not samples or artifact.scheme not in CLIPPED:
        return None
    share = share_limits(0, samples)[1]
    return share if share > LARGEST_SHARE else None


def few_samples(compared: Iterable[tuple[Artifact, int | None]]) -> Iterator[str]:
    """A warning if integer artifacts were compared on few real samples.

    ``compared`` are artifacts with their numbers of real samples; None for synthetic samples, of
    which other warnings say that they prove little.
    """
    shares = [
        (count, share)
        for artifact, count in compared
        if count and (share := uncertain_share(artifact, count)) is not None
    ]
    if shares:
        fewest, share = min(shares)
        yield (
            f"integer artifacts were compared on {counted(fewest, 'sample')}: up to {share:.0%} of "
            "other samples may have larger errors than any of these (97.5% confidence). Compare "
            "more: edgeattn validate BUNDLE --data FILE"
        )
