"""Networks on OpenVINO, PyTorch and Keras behind one interface in NumPy."""
