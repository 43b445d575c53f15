"""Optuna and early stopping: the searcher, samplers, schedulers, warm start, and the storage of the Optuna study.

May import every package up to tracking. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
