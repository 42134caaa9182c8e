"""Errors of Keras in one line."""

from __future__ import annotations

import pytest

from edgeattn_converters.loading.build import root_cause


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("In call().\n\n\x1b[1mresource:0\x1b[0m"), "KeyError: In call(). resource:0"),
        (KeyError(), "KeyError:"),
        (KeyError(3), "KeyError: 3"),
        (ValueError("Exception encountered: \x1b[1mbad\n shape\x1b[0m"), "ValueError: bad shape"),
    ],
)
def test_messages_have_no_formatting(error: Exception, expected: str) -> None:
    """A KeyError is formatted as the representation of its key, with escapes."""
    assert root_cause(error).strip() == expected
