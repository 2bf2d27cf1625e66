"""What the tests of prepared data share."""

from tests.data.conftest import run_script, small_data_dir, start_script

__all__ = ["run_script", "small_data_dir", "start_script"]
