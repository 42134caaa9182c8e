"""Static readers of model files: HDF5, ``.keras`` archives and SavedModel folders."""
