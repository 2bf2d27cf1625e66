"""Archives and files made to harm their reader; run as a script, it reads them all.

    python hostile.py FOLDER

prints {name: [refusal or null, seconds, MB of memory at the peak above those before]}. Each is made
in a moment and takes little room: what is large is holes, or zeros that are packed.
"""

import contextlib
import gzip
import io
import json
import re
import resource
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path

import hostile_tar
from hostile_readers import aan, celeba, cifar_batch, fashion, imdb, listops, pathfinder
from hostile_tar import ESCAPES, GB, NAME, holes, zeros

IMAGE = "pathfinder32/curv_contour_length_14/imgs/0/sample_0.png"
META = "pathfinder32/curv_contour_length_14/metadata/0.npy"


def png(width, height, *chunks):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(1 << 16))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def jpeg(width, height):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (178, 218)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


# Folders


def a_review_of_holes(p):
    return holes(p / NAME, b"good", 4 * GB).parents[3], imdb


def a_line_without_end(p):
    for split in ("train", "val", "test"):
        holes(p / f"listops-1000/basic_{split}.tsv", b"Source\tTarget\n1\t", GB // 2)
    return p, listops


def a_file_of_holes(p):
    for split in ("train", "val", "test"):
        holes(p / f"listops-1000/basic_{split}.tsv", b"Source\tTarget\n", 4 * GB)
    return p, listops


def many_rows(p):
    for split in ("train", "val", "test"):
        holes(p / f"listops-1000/basic_{split}.tsv", b"Source\tTarget\n", 20)
    (p / "listops-1000/basic_test.tsv").write_bytes(b"Source\tTarget\n" + b"1\t1\n" * 500_000)
    return p, listops


def tsv(p, text):
    for split in ("train", "eval", "test"):
        path = p / f"tsv_data/new_aan_pairs.{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return p, aan


def a_row_of_tabs(p):
    return tsv(p, b"\t" * 900_000 + b"\n")


def a_row_on_many_lines(p):
    return tsv(p, b'0.0\t"' + b'\n"\t"' * 300_000)


def papers_of_holes(p):
    for split in ("train", "eval", "test"):
        holes(p / f"tsv_data/new_aan_pairs.{split}.tsv", b"0.0\tA\tB\t", 2 * GB)
    return p, aan


def images(p, data, meta=b"imgs/0 sample_0.png 0 1\n"):
    for name, content in ((IMAGE, data), (META, meta)):
        (p / name).parent.mkdir(parents=True, exist_ok=True)
        (p / name).write_bytes(content)
    return p, pathfinder


def an_image_of_3_600_megapixels(p):
    return images(p, png(60_000, 60_000))


def an_image_that_pillow_warns_of(p):
    return images(p, png(10_000, 10_000))


def an_image_with_a_long_text(p):
    text = zlib.compress(bytes(1 << 26))
    return images(p, png(32, 32, (b"zTXt", b"x\0\0" + text), (b"iCCP", b"x\0\0" + text)))


def an_image_of_holes(p):
    images(p, b"")
    return holes(p / IMAGE, b"\x89PNG", 3 * GB).parents[4], pathfinder


def metadata_of_holes(p):
    images(p, b"")
    return holes(p / META, b"imgs/0", 3 * GB).parents[3], pathfinder


def a_circle_of_links(p):
    images(p, png(31, 32))
    for i in range(40):
        (p / f"pathfinder32/{i}").symlink_to(p, target_is_directory=True)
        (p / f"{i}").symlink_to(p, target_is_directory=True)
    return p, pathfinder


def a_dangling_link(p):
    images(p, b"")
    (p / IMAGE).unlink()
    (p / IMAGE).symlink_to(f"nowhere{ESCAPES}")
    return p, pathfinder


def a_folder_whose_name_writes(p):
    return images(p / f"{ESCAPES}", b"no image")


# Zip archives of CelebA


def zipped(p, names, data, method=zipfile.ZIP_DEFLATED, partition=None):
    p.mkdir(exist_ok=True)
    lines = (f"{i:06}.jpg {i % 3}" for i in range(3))
    (p / "list_eval_partition.txt").write_text(partition or "\n".join(lines))
    with zipfile.ZipFile(p / "img_align_celeba.zip", "w", method) as file:
        for name in names:
            file.writestr(name, data)
    return p / "img_align_celeba.zip", celeba


THREE = [f"img_align_celeba/{i:06}.jpg" for i in range(3)]


def lie(path, real, said):
    """Say another unpacked size in all headers of a zip archive."""
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", real), struct.pack("<I", said)))


def a_zipped_image_of_zeros(p):
    return zipped(p, THREE, bytes(1 << 26))


def a_zipped_image_that_lies(p):
    path, reader = zipped(p, THREE, bytes(1 << 26))
    lie(path, 1 << 26, 10_000)
    return path, reader


def a_zipped_image_of_bzip2(p):
    path, reader = zipped(p, THREE, bytes(1 << 24), zipfile.ZIP_BZIP2)
    lie(path, 1 << 24, 10_000)
    return path, reader


def flagged(p, flag):
    path, reader = zipped(p, THREE, b"x")
    data = bytearray(path.read_bytes())
    for at in (m.start() for m in re.finditer(b"PK\x01\x02", bytes(data))):
        data[at + 8] |= flag
    path.write_bytes(data)
    return path, reader


def an_encrypted_image(p):
    return flagged(p, 1)


def a_patched_image(p):
    return flagged(p, 32)


def a_jpeg_of_3_600_megapixels(p):
    return zipped(p, THREE, jpeg(60_000, 60_000))


def an_image_twice(p):
    return zipped(p, [*THREE, f"other/{Path(THREE[0]).name}"], jpeg(178, 218))


def names_that_leave_and_write(p):
    return zipped(p, [f"../../{ESCAPES}/000000.jpg", *THREE[1:]], b"x" * 9)


def an_index_of_a_million(p):
    path, reader = zipped(p, [], b"")
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
                        0, 0, 0) + b"x"  # fmt: skip
    n, size = 1_000_000, 1_000_000 * len(entry)
    path.write_bytes(entry * n + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, size, 0, 0))
    return path, reader


def a_partition_of_holes(p):
    path, reader = zipped(p, THREE, b"x")
    holes(p / "list_eval_partition.txt", b"000000.jpg 0\n", 4 * GB)
    return path, reader


def a_jpeg_of_holes(p):
    path, reader = zipped(p, THREE, b"x")
    path.unlink()
    for name in THREE:
        holes(p / name, b"\xff\xd8", 4 * GB)
    return p, reader


# Others


def idx(p, data):
    p.mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (p / f"{name}-ubyte.gz").write_bytes(data)
    return p, fashion


def an_idx_of_4_gb(p):
    return idx(p, gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12) + zeros(4 * GB))


def an_idx_of_the_right_shape_and_4_gb(p):
    axes = b"".join(n.to_bytes(4, "big") for n in (60_000, 28, 28))
    return idx(p, gzip.compress(bytes([0, 0, 8, 3]) + axes) + zeros(4 * GB))


def a_pickle_that_remembers_much(p):
    p.write_bytes(b"\x80\x02]r" + struct.pack("<I", 1 << 31) + b".")
    return p, cifar_batch


ALL = (*vars(hostile_tar).values(), *list(globals().values()))
CASES = [f for f in ALL if f.__class__ is type(zipped) and f.__code__.co_varnames[:1] == ("p",)
         and f.__code__.co_argcount == 1]  # fmt: skip


def peak():
    """MB that this process had at most since the last call, and what it has now."""
    status = Path("/proc/self/status").read_text()
    at_most, now = (
        int(re.search(rf"{key}:\s+(\d+)", status)[1]) >> 10 for key in ("VmHWM", "VmRSS")
    )
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return at_most, now


def main(folder):
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin  # noqa: F401

    made = []
    for case in CASES:
        path, reader = case(folder / case.__name__)
        made.append((case.__name__, path, reader))
    address = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (address + GB // 2, -1))
    found = {}
    for name, path, reader in made:
        peak()
        before, start, said = peak()[1], time.perf_counter(), None
        try:
            reader(path)
        except (ValueError, OSError) as error:
            said = str(error)
        except BaseException as error:
            said = f"TRACEBACK {error!r}"
        found[name] = said, time.perf_counter() - start, peak()[0] - before
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
