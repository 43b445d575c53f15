"""Inference with a trained detector: the predictor, files and overlays, and the export to other runtimes.

May import every package up to reporting. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
