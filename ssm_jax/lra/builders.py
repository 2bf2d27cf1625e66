"""The tasks as data sets of TensorFlow Datasets, ssm_jax_listops and so on.

    import ssm_jax.lra.builders
    tfds.data_source("ssm_jax_listops", split="train", data_dir="data/tfds")

They are prepared without TensorFlow, and a store is made of what is in DATA_DIR/tfds.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssm_jax.data.builder import SequenceBuilder, write
from ssm_jax.data.manifest import manifest_of
from ssm_jax.data.prepare import DataPaths, check_content, tfds_folder
from ssm_jax.data.store import hashes_of
from ssm_jax.lra.catalog import CATALOG, entry_of


class TaskBuilder(SequenceBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The data set of the task that the name of the class says, by default of its usual source.

    `options` are those of the task's dataclass in the catalog, `files` official files of the user,
    `data_dir` a folder of TensorFlow Datasets, by default the user's.
    """

    def __init__(
        self,
        *,
        source: str = "",
        options: Mapping[str, Any] | None = None,
        files: str | Path | None = None,
        data_dir: str | Path | None = None,
    ) -> None:
        root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
        task, root = self.name.removeprefix("ssm_jax_"), root.expanduser()
        source = source or CATALOG[task].sources[0]
        entry = entry_of(task, source)
        paths = DataPaths(root / "downloads", None if files is None else Path(files))
        self.recipe = entry.recipe(entry.options(**(options or {})), source, paths)
        if self.recipe.stamp is None:
            self.recipe.make(root)  # raises: there is nothing to make it of, and no name
        super().__init__(tfds_folder(root, self.recipe.folder(root)))

    def download_and_prepare(self) -> None:
        """Write the data set unless it is there."""
        if self.data_path.exists():
            return
        with tempfile.TemporaryDirectory() as work:
            content = self.recipe.make(Path(work))
            check_content(content, self.recipe)
            manifest = manifest_of(content, self.recipe.header, hashes_of(content))
            write(Path(self.data_dir), content, manifest)
        self.info.read_from_directory(self.data_dir)


for _task in CATALOG:  # a class of this name is what registers a data set
    type(f"SsmJax{_task.capitalize()}", (TaskBuilder,), {"__module__": __name__})
