"""Bytes: Zarr arrays as raw chunk files, mapped and written in place; journal and recovery. Knows nothing of replay."""
