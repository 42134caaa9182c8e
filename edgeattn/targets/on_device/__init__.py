"""Code that runs on a device: called through a worker, or sent to its Python as a script."""
