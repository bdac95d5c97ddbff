"""Everything after the backbone, on matrices of features: NumPy only."""
