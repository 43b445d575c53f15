"""Images: index a category, split and decode it, synthesize defects, download data sets, render the demo.

May import errors, config and las. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
