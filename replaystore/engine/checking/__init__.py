"""Is every promise of the disk format kept, and what to do where it is not. Tables are read as they lie there, not opened."""
