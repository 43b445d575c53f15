from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import pytest

from tests.cluster.hosts import why_not


@cache
def _why_not() -> str:
    if not find_spec("aiohttp_cors"):  # part of ray[default], required by the dashboard
        return "the extra `cluster` is not installed: pip install -e '.[cluster]'"
    return why_not()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests on hosts if this machine cannot create them."""
    if item.get_closest_marker("cluster") and (reason := _why_not()):
        pytest.skip(reason)
