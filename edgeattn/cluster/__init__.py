"""Work on the workers of a Dask scheduler. Nothing of Dask is imported before it is requested."""
