"""Reports: what run folders say, as plots, tables and CSV."""
