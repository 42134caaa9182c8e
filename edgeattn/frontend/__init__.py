"""The front end of a bundle: from raw input to the model's input, and from outputs to an answer.

A front end is a closed description without code (``frontend.json``), which NumPy executes on the
device. Each step computes what the Keras layer or function of the same name computes for one
sample; :mod:`edgeattn.frontend.description` reads and writes the description.
"""
