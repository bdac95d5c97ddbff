"""The narrow doors between NumPy and whatever runs a network."""
