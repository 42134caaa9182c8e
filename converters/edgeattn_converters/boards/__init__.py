"""Pools of boards that measure latencies, each reached over ssh by a Dask worker."""
