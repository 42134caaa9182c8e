"""What a model file contains, read from its bytes without a runtime and without its schema.

:func:`~edgeattn.file_structure.read.read_contents` reads a file of either format. Validation
compares the result with the manifest, and the converters write it there.
"""
