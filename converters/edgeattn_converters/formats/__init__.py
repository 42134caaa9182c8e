"""One module per output format, each with ``convert`` and ``runtimes``."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from edgeattn.tensors import Specs


class ConvertedFile(NamedTuple):
    """Specs of a written file, the names of its attention maps, and what it consists of."""

    inputs: Specs
    outputs: Specs
    attention: tuple[str, ...]
    achieved: Mapping[str, Any]
