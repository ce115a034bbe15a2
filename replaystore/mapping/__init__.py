"""Chunk files in memory: address ranges, columns mapped for reading, buffers used again. NumPy and system calls, nothing else."""
