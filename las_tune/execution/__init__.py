"""Ray: the cluster, its nodes and jobs, the trainable, the tuner and its observer, checkpoints and the plan.

May import every package up to search. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
