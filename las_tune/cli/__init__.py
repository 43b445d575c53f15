"""The command line: commands and flags. Nothing is computed here.

May import every other package. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
