"""Stored weights, assigned by the names in the file and never by position alone.

Keras assigns weights by position, but its versions order layers differently. Here a layer gets the
arrays stored under its name, every shape must match, and every variable must get a value.
"""
