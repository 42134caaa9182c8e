"""The parsers of foreign bytes with 300 seeded inputs; ``make fuzz-parsers`` is the long run."""

from __future__ import annotations

import random
import resource
import time

import pytest

pytest.importorskip("edgeattn_converters", reason="half of the parsers are the converters'")

from parsers import PARSERS

COUNT = 300
# Generous limits, for busy machines: the longest input takes 0.1 s.
SECONDS, MEMORY_KIB = 20.0, 300 * 1024


@pytest.mark.parametrize("name", PARSERS)
def test_inputs_are_read_or_refused(name: str) -> None:
    parser = PARSERS[name]
    seeds = list(parser.seeds())
    assert all(map(parser.parse, seeds))
    results = set()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(COUNT):
        generator = random.Random(number)
        data = parser.mutate(generator.choice(seeds), generator)
        start = time.process_time()
        try:
            results.add(parser.parse(data))
        except Exception as error:
            raise AssertionError(f"seed {number}: {error!r}") from error
        assert time.process_time() - start < SECONDS, number
    assert results == {True, False}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY_KIB
