"""Lambda layers, recognized by their bytecode, which is never executed."""
