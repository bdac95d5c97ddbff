"""Networks as data: architectures, where their weights come from, and the catalogue of both."""
