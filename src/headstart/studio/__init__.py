"""The studio: the whole flow in a browser, on this machine."""
