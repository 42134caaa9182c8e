"""Size limits for model files; ``--trust`` lifts them for one file."""

from dataclasses import dataclass

from edgeattn.errors import UnsafeModelError

# Hint for content that Keras never writes; trust does not allow it.
DO_NOT_USE = "Do not use this file: Keras writes nothing like it. Ask its author for another one."

MIB = 1 << 20
GIB = 1 << 30

MAX_FILE_BYTES = 2 * GIB
MAX_CONFIG_BYTES = 16 * MIB  # constants, such as position encodings, are stored in it as text
MAX_CONFIG_DEPTH = 100
MAX_CONFIG_NODES = 2_000_000
MAX_LAYERS = 20_000
# Of --architecture and --custom-objects: JSON in JSON takes twice its size.
MAX_SOURCE_BYTES = 2 * MAX_CONFIG_BYTES

MAX_HDF5_OBJECTS = 200_000
MAX_HDF5_DEPTH = 50
MAX_DECLARED_BYTES = 4 * GIB
# Declared bytes per stored byte, of each array, and of all arrays per byte of the file. Arrays may
# be compressed or partly unwritten, not empty; Keras does not compress them.
MAX_HDF5_RATIO = 50
SMALL_ARRAY_BYTES = 4 * MIB
SMALL_ARRAYS_BYTES = 64 * MIB

MAX_ZIP_ENTRIES = 10_000
MAX_ZIP_RATIO = 50
# Zeros compress a thousandfold, so the ratio is only checked for larger entries.
SMALL_ENTRY_BYTES = 16 * MIB

# No model for an edge device has a larger size (units, filters, ...) in its config.
MAX_DIMENSION = 1 << 24
# Values in the output of a layer for one sample. Attention that is written out has scores for every
# pair of steps and every head, which may be more than MAX_VALUES.
MAX_VALUES = 1 << 24
MAX_VALUES_PER_PAIR = 16
MAX_SCORES = 1 << 28


def max_values(inputs: int) -> int:
    """The largest number of values of a layer's output, for a model of ``inputs`` input values."""
    return max(MAX_VALUES, min(MAX_VALUES_PER_PAIR * inputs**2, MAX_SCORES))


@dataclass(frozen=True)
class FileLimits:
    """Enforces the size limits for one file, called ``name``, unless the user trusts it.

    ``hint`` is that of the errors, usually the ``--trust`` option to pass.
    """

    name: str
    hint: str = DO_NOT_USE
    trusted: bool = False

    def require(self, within: bool, problem: str) -> None:
        """Raise :class:`UnsafeModelError` unless ``within`` is true or the file is trusted."""
        if not within and not self.trusted:
            raise self.refusal(problem, self.hint)

    def refusal(self, problem: str, hint: str = DO_NOT_USE) -> UnsafeModelError:
        """Return the error for content that is refused, trusted or not."""
        return UnsafeModelError(f"Refused {self.name}: {problem}.", hint=hint)
