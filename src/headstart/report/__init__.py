"""A report of a classifier: one HTML page that stands alone, and the same content as JSON."""
