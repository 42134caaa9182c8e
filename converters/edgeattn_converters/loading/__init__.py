"""Loading Keras files of every version without running anything stored in them.

:mod:`.load` shows the whole path: audit the file, migrate its configuration to the current Keras,
build the model, assign its weights, cross-check its outputs.

========================  ===========================================================
``audit``                 static checks of a file, without Keras and TensorFlow
``formats``               readers of HDF5 files, ``.keras`` archives and SavedModel folders
``safety``                size limits and the classes that a configuration may name
``lambdas``               recognition of Lambda layers from their bytecode
``migrate``               configurations of Keras 1 and 2 as Keras 3 writes them
``stored_model``          the model of a stored configuration
``built_model``           the model that a program of the user builds
``build``                 the migrated configuration as a Keras model
``weights``               stored arrays assigned to the layers they belong to
``cross_check``           comparison with the outputs of a stock Keras loader
``output_differences``    how far outputs differ, and which are not known
``comparison_samples``    the seeded samples of that comparison
``configs_for_tf_keras``  the configs with which tf_keras builds the model for it
``custom_objects``        classes and functions from the user's own Python file
``own_functions``         its functions that are activations
``architecture``          the ``--architecture`` option, for files that contain weights only
========================  ===========================================================
"""
