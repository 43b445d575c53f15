"""User settings: training and study specs, objectives, paths, and the record of a trial.

May import errors. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
