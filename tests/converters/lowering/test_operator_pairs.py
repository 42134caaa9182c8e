"""Some of the pairs of operators of ``make graphs``, all in one model."""

import operator_pairs

# A stride without common divisors with the numbers of alternatives: every one occurs.
STRIDE = 73


def test_every_alternative_is_tested() -> None:
    pairs = operator_pairs.PAIRS[::STRIDE]
    for field, alternatives in (
        ("first", operator_pairs.FIRST),
        ("move", operator_pairs.MOVES),
        ("second", operator_pairs.SECOND),
        ("other", operator_pairs.OTHERS),
    ):
        assert {getattr(pair, field) for pair in pairs} == set(alternatives)


def test_pairs_of_operators_as_in_keras() -> None:
    assert list(operator_pairs.compare(operator_pairs.PAIRS[::STRIDE])) == []
