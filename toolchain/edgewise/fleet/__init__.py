"""Sweeps: recipes times devices, scheduled on Dask, kept in a store that only grows."""
