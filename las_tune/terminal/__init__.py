"""Output in the terminal: progress, tables, the story of the demo, the log file.

May import every package up to study. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
