"""The computational graph as a picture: drawn from the blueprint, so it is the same for every engine."""
