"""The same few operations in the formats, so that what surrounds a network is written once."""
