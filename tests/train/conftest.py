"""What the tests of the loop share."""

import pytest


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder for prepared data, shared by the tests of a process."""
    return tmp_path_factory.mktemp("data")
