"""The fast engine: OpenVINO on the processor, without a deep-learning framework."""

from headstart.engines.fast.graph import choose_precision, start_beside
from headstart.engines.fast.network import FastNetwork

__all__ = ["FastNetwork", "choose_precision", "start_beside"]
