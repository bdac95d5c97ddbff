"""What a classifier knows, whether to trust it, and what to do next: NumPy on features."""
