"""A corpus of small Keras models, and how edgeattn and the stock routes convert each.

``python -m corpus.run`` converts all of them, and ``python -m corpus.page`` writes the table of
``docs/corpus.md``.
"""
