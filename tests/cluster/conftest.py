from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import pytest

from tests.cluster.hosts import why_not


@cache
def _why_not() -> str:
    if not find_spec("aiohttp_cors"):  # of ray[default]: without it there is no dashboard
        return "what a cluster needs is not installed: pip install -e '.[cluster]'"
    return why_not()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests on hosts are skipped where this machine cannot have any."""
    if item.get_closest_marker("cluster") and (reason := _why_not()):
        pytest.skip(reason)
