"""A folder to launch from."""

import pytest
from launched import CONFIG


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with e.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.py").write_text(CONFIG)
    return tmp_path
