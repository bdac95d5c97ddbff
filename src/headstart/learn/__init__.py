"""Everything after the network, on matrices of features: NumPy only."""
