"""The numerical core: LAS (GLASS, arXiv:2407.09359) on torch. It returns values: it never prints, logs or tracks.

May import errors and config. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
