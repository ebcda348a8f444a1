"""The Hypothesis profiles of the suite, and the marker ``needs_data``.

There are no deadlines, because machines are shared. HYPOTHESIS_PROFILE=thorough
tries more examples. ``needs_data(NAME)`` skips a test unless MINIMETA_DATA
names a folder that holds NAME. A test that takes the fixture ``cupy`` is
skipped where no GPU computes.

Compiled twins may differ from the plain kernels in the last digits. A test that
claims the bits of the plain ones uses the fixture ``plain_kernels``. A test of
bits that hold on either path uses ``either_kernels``, and runs on both.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from minimeta.arrays.backend import device_module
from minimeta.arrays.compiled import twins
from minimeta.errors import DeviceError

settings.register_profile(
    "default", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    needs = item.get_closest_marker("needs_data")
    if needs and not (Path(os.environ.get("MINIMETA_DATA", "nowhere")) / needs.args[0]).exists():
        pytest.skip(f"MINIMETA_DATA names no folder that holds {needs.args[0]}")


@pytest.fixture(scope="session")
def cupy():
    """CuPy, on a GPU."""
    try:
        return device_module("gpu")
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def plain_kernels():
    """Kernels as they are defined, without compiled twins."""
    with twins(False):
        yield


@pytest.fixture(params=["plain", "compiled"])
def either_kernels(request):
    """First the plain kernels, then their compiled twins."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    with twins(request.param == "compiled"):
        yield request.param
