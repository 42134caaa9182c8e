"""What stands behind ``audit`` and ``source``: one file per kind of file, era or repair.

Looking (``limits``, ``hdf5``, ``archive``, ``saved_model``, ``classes``, ``screening``,
``marshalled``, ``bytecode``, ``lambdas``) needs neither Keras nor TensorFlow and runs nothing.
Repairing (``keras1``, ``keras2``, ``graph``) is configuration in, configuration out. Only
``objects``, ``weights`` and ``building`` touch Keras.
"""
