"""Vocabulary files: the tokens that the integers of a text input stand for."""

import json
from pathlib import Path

from edgeattn.errors import UsageError

HINT = "Write one token per line, starting with id 0, or JSON: a list of tokens or {token: id}."
MAX_BYTES = 10_000_000


def read_vocabulary(path: Path) -> list[str]:
    """Read tokens by id; an id without a token is its own text.

    Reads text with a token per line and, with the suffix ``.json``, a list or an object such as
    ``word_index`` of the Keras tokenizer. Raises :class:`UsageError` for anything else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than {MAX_BYTES:,} bytes.", hint=HINT)
        text = path.read_text("utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
        if isinstance(content, list) and content:
            return [str(token) for token in content]
        tokens = {int(token_id): str(token) for token, token_id in content.items()}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=HINT) from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{path} is not a vocabulary.", hint=HINT) from error
    if not tokens or min(tokens) < 0 or max(tokens) > MAX_BYTES:
        raise UsageError(f"{path} is not a vocabulary.", hint=HINT)
    return [tokens.get(token_id, str(token_id)) for token_id in range(max(tokens) + 1)]
