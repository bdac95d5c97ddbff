"""Headstart: a folder of labelled photos becomes an image classifier you can trust, in seconds.

The public names stand in ``__init__.pyi``; each is imported when it is first asked for.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
