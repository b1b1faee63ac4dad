"""Numbers for people and for machines: what integers cost against floats, and tables of it."""
