"""The Keras engine, and models of Keras as backbones."""
