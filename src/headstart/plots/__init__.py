"""Plots of results, drawn off screen."""
