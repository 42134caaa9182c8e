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
``architecture``          the ``--architecture`` option, for files that contain weights only
``build``                 the migrated configuration as a Keras model
``weights``               stored arrays assigned to the layers they belong to
``own_code``              classes and functions from the user's own Python files
``legacy``                what programs for Keras 1 and 2 import and call, with Keras 3
``eras``                  what layers compute in the Keras that saved a model
``signatures``            SavedModels without Keras layers
``cross_check``           comparison with the outputs of a stock Keras loader
``with_tf_keras``         models of the user's code, run with tf_keras in its own process
``comparison_samples``    the seeded samples of these comparisons
``output_differences``    how far outputs differ, and which are not known
========================  ===========================================================
"""
