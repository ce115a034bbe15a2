"""Copies of a table in use: snapshots, forks, plain datasets."""
