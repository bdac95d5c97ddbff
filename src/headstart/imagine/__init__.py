"""Ideal images: what an image must look like for a class, or a channel of a layer, to be as large as it can be."""
