"""How much a model file may claim before it is refused. ``--trust`` lifts the size caps."""

from __future__ import annotations

MIB = 1 << 20
GIB = 1 << 30

MAX_FILE_BYTES = 2 * GIB
MAX_CONFIG_BYTES = 16 * MIB  # constants, such as positions to add, are kept in it as text
MAX_CONFIG_DEPTH = 100
MAX_CONFIG_NODES = 2_000_000
MAX_LAYERS = 20_000

MAX_HDF5_OBJECTS = 200_000
MAX_HDF5_DEPTH = 50
MAX_DECLARED_BYTES = 4 * GIB
# An array may be compressed, or a little of it never written; it may not be made of nothing.
MAX_HDF5_RATIO = 200
SMALL_ARRAY_BYTES = 4 * MIB

MAX_ZIP_ENTRIES = 10_000
MAX_ZIP_RATIO = 200
# Zeros compress a thousandfold; below this size the ratio says nothing.
SMALL_ENTRY_BYTES = 16 * MIB

# A size in a config (units, filters, ...) beyond this is no edge model and no accident.
MAX_DIMENSION = 1 << 24

MAX_CODE_BYTES = 64 * 1024
MAX_CODE_OBJECTS = 5_000
MAX_CODE_DEPTH = 20
