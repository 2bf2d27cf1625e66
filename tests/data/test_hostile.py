"""Hostile archives and files cost bounded memory and time, and each refusal is one clear line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile
import pytest

ROOT = Path(__file__).resolve().parents[2]
ONE_OF = {
    "header of": "a_header_of_pax a_header_of_all a_long_name a_long_link a_chain_of_headers "
    "a_map_of_holes_without_end",
    "more than 100 attributes": "attributes_of_all",
    "not a regular file": "holes_in_a_member holes_by_pax a_name_that_writes_on_the_terminal "
    "a_name_of_200_kb",
    "such a file has at most": "a_size_by_pax a_negative_size a_large_file a_review_of_holes "
    "a_file_of_holes an_image_of_holes metadata_of_holes a_zipped_image_of_zeros a_jpeg_of_holes",
    "unpacks to more than": "zeros_before_the_file zeros_of_bzip2",
    "more than 20,000 members": "many_empty_members",
    "at most 2,000 of": "many_reviews",
    "Memory usage limit": "a_dictionary_of_4_gb",
    "characters or more": "a_line_without_end",
    "rows or more": "many_rows",
    "has 900001 columns": "a_row_of_tabs",
    "has a row of ": "a_row_on_many_lines",
    "bytes or more": "papers_of_holes",
    "has 60000 x 60000 pixels": "an_image_of_3_600_megapixels a_jpeg_of_3_600_megapixels",
    "has 10000 x 10000 pixels": "an_image_that_pillow_warns_of",
    "not a whole PNG": "an_image_with_a_long_text a_folder_whose_name_writes",
    "has 31 x 32 pixels": "a_circle_of_links",
    "which is not there": "a_dangling_link",
    "Bad CRC-32": "a_zipped_image_that_lies",
    "encrypted, or packed by": "a_zipped_image_of_bzip2 an_encrypted_image",
    "patched data": "a_patched_image",
    "is there twice": "an_image_twice",
    "not a whole JPEG": "names_that_leave_and_write",
    "index of more than": "an_index_of_a_million",
    "more than 16,777,216 bytes": "a_partition_of_holes",
    "it begins with": "an_idx_of_4_gb",
    "holds more than 47,040,016 bytes": "an_idx_of_the_right_shape_and_4_gb",
    "remembers object": "a_pickle_that_remembers_much",
}
MESSAGES = {name: message for message, names in ONE_OF.items() for name in names.split()}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What became of each: the refusal, seconds, and MB of memory."""
    folder = tmp_path_factory.mktemp("hostile")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-W", "error", hostile.__file__, str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", [case.__name__ for case in hostile.CASES])
def test_it_is_refused_in_one_line_soon_and_in_little_memory(found, name):
    said, seconds, megabytes = found[name]
    assert MESSAGES[name] in said and "TRACEBACK" not in said
    assert said.isprintable() and len(said) < 1_000
    assert seconds < 10 and megabytes < 150
