"""What the tests of stores share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder that holds the tests, from where their scripts run as modules."""
    return Path(__file__).parents[2]
