"""Bundles on disk: manifest, artifacts, reference, archives and signatures."""
