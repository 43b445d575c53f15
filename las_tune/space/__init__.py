"""Search spaces: TOML files, hyperparameter ranges, the grid, and the sensitivity check.

May import errors, config, las and data. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
