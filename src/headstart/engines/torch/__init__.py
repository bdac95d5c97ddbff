"""The PyTorch engine, and modules of PyTorch as backbones."""
