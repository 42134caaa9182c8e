"""Errors about models that Keras 3 cannot build, or whose weights do not fit what it builds.

tf_keras may load such a model, see :mod:`.graph_of_tf_keras`. No other error is one of these: a
file that is unsafe or damaged, a missing class and weights that are ambiguous or lost are refused
whatever loads the model.
"""

from edgeattn.errors import EdgeattnError, UnsupportedModelError, UsageError


class Keras3Error(EdgeattnError):
    """Base class: Keras 3 fails, or a change that edgeattn makes for it is missing or wrong."""


class Keras3ProgramError(UsageError, Keras3Error):
    """A program of the user that fails in Keras 3."""


class Keras3ModelError(UnsupportedModelError, Keras3Error):
    """A model that Keras 3 cannot build, whose weights do not fit, or that computes another result
    than in tf_keras."""
