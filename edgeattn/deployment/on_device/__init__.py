"""Code that runs on a device during a deployment: called through a worker, or sent as a script."""
