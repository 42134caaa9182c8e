"""Operator-by-operator runs that need the host's packages."""
