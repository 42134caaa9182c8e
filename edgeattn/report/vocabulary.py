"""The words that the numbers of a text stand for, as people keep them."""

from __future__ import annotations

import json
from pathlib import Path

from edgeattn.errors import UsageError

HINT = "A word a line, the first being number 0; or JSON: a list of words, or {word: number}."
MOST = 10_000_000


def read_vocabulary(path: Path) -> list[str]:
    """Words by their number, numbers without a word as the number itself.

    Reads text, and ``.json`` of a list or of an object as Keras' tokenizers write it. Raises
    :class:`UsageError` for anything else.
    """
    try:
        if path.stat().st_size > MOST:
            raise UsageError(f"{path} is no vocabulary: it is over {MOST:,} bytes.", hint=HINT)
        text = path.read_text("utf-8-sig")
        told = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
        if isinstance(told, list) and told:
            return [str(word) for word in told]
        numbered = {int(number): str(word) for word, number in told.items()}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=HINT) from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{path} is no vocabulary.", hint=HINT) from error
    if not numbered or min(numbered) < 0 or max(numbered) > MOST:
        raise UsageError(f"{path} is no vocabulary.", hint=HINT)
    return [numbered.get(number, str(number)) for number in range(max(numbered) + 1)]
