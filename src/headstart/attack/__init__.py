"""Adversarial examples, and how robust a classifier is: NumPy over the gradients of a network, on any engine."""
