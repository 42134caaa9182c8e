"""Names that code of the user does not define, as of a class that was copied without its imports.

Keras raises other errors from the :class:`NameError`, and then the class seems to need changes.
"""

import re
import traceback

from edgeattn_converters.loading.own_code import own_files

_NAME = re.compile(r"name '(\w+)' is not defined")
# The lines that define the names which programs for Keras use.
_IMPORTS = {
    "tf": "import tensorflow as tf",
    "tensorflow": "import tensorflow",
    "np": "import numpy as np",
    "keras": "import keras",
    "K": "from keras import backend as K",
    "ops": "from keras import ops",
    "layers": "from keras import layers",
    "math": "import math",
}


def hint(error: BaseException) -> str:
    """What to add to a file of the user if an error is from an undefined name; else empty."""
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and not any(cause is item for item in seen):
        seen.append(cause)  # Keras raises errors again, whose contexts may be a cycle
        if isinstance(cause, NameError) and not isinstance(cause, UnboundLocalError):
            *_, (last, _) = traceback.walk_tb(cause.__traceback__)
            place = own_files.last_line(cause)
            # Keras raises the error again, without its name.
            name = _NAME.search(str(cause))
            if name is not None and place is not None and own_files.is_own(last):
                what = _IMPORTS.get(name[1], "its import or definition")
                return f"{place[0]} does not define {name[1]!r}. Add to it: {what}"
        cause = cause.__cause__ or cause.__context__
    return ""
