"""The child process that imports TensorFlow, and the tasks that run in it."""
