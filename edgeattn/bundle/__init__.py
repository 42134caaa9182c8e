"""Bundles: a folder or zip file with artifacts, the Keras reference and a manifest."""
