"""What a table is made of: columns, selectors, limiters, retention, views; each to and from JSON. NumPy only."""
