"""One study from images to champion: run, resume, conclude, publish; the doctor; a single training run.

May import every package up to execution. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
