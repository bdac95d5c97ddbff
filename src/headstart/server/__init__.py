"""An HTTP server for fitted models: its own address and two protocols that clients of other servers speak."""
