"""MLflow: the ledger of a study, the model registry, the packaged model, the store, the UI and the report.

May import every package up to inference. Names are loaded on first use; `__init__.pyi` lists them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
