"""Tar archives made to harm their reader; see hostile.py."""

import bz2
import functools
import gzip
import lzma
import struct
import tarfile
import zlib

from hostile_readers import few, imdb, listops

NAME = "aclImdb/train/neg/1_1.txt"
LIST = "listops-1000/basic_train.tsv"
GB = 1 << 30
ESCAPES = "\x1b[2J\n\u202e"


def head(name, size=0, kind=b"0", link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def whole(name, data, kind=b"0"):
    return head(name, len(data), kind) + data + bytes(-len(data) % 512)


@functools.cache
def zeros(n, pack=gzip.compress):
    """n zeros, packed in pieces of 16 MiB that are one file one after the other."""
    return pack(bytes(1 << 24)) * (n >> 24)


def packed(path, *parts, pack=gzip.compress):
    """An archive of parts: what is to be packed, or a number of zeros."""
    path.write_bytes(b"".join(zeros(p, pack) if isinstance(p, int) else pack(p) for p in parts))
    return path


def holes(path, start, size):
    """A file that begins with some bytes and goes on with holes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start)
    with open(path, "r+b") as file:
        file.truncate(size)
    return path


def pax(**entries):
    data = b""
    for key, value in entries.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        n = len(body) + 1
        while n != len(str(n)) + len(body):
            n = len(str(n)) + len(body)
        data += str(n).encode() + body
    return data


def a_header_of_pax(p):
    return packed(p, head("x", 2 * GB, b"x"), 2 * GB, head(NAME)), imdb


def a_header_of_all(p):
    return packed(p, head("x", 2 * GB, b"g"), 2 * GB, head(NAME)), imdb


def a_long_name(p):
    return holes(p, head("././@LongLink", 5 * GB, b"L"), 6 * GB), listops


def a_long_link(p):
    return packed(p, head("././@LongLink", 4 * GB, b"K"), 4 * GB, pack=bz2.compress), listops


def a_chain_of_headers(p):
    return packed(p, whole("x", pax(a="b"), b"x") * 20_000, head(LIST)), listops


def attributes_of_all(p):
    parts = (whole("x", pax(**{f"k{i}": "v" * 300}), b"g") + head("y") for i in range(1_000))
    return packed(p, b"".join(parts)), listops


def holes_in_a_member(p):
    """The old form of GNU: one piece of 0 bytes at the end of 4.2 GB."""
    block = bytearray(head(NAME, 0, b"S"))
    block[386:410] = tarfile.itn(4 * GB, 12) + tarfile.itn(0, 12)
    block[483:495] = tarfile.itn(4 * GB, 12)
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return packed(p, bytes(block)), imdb


def a_map_of_holes_without_end(p):
    block = bytearray(head(NAME, 0, b"S"))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    more = (tarfile.itn(1, 12) + tarfile.itn(1, 12)) * 21 + b"\1" + bytes(7)
    return packed(p, bytes(block), *[more * 4_000] * 10), imdb


def holes_by_pax(p):
    entries = {"GNU__sparse__major": 1, "GNU__sparse__minor": 0, "GNU__sparse__name": NAME}
    data = whole("x", pax(**entries, GNU__sparse__realsize=4 * GB), b"x")
    return packed(p, data + whole("y", b"0\n".ljust(512, b"\0"))), imdb


def a_size_by_pax(p):
    return packed(p, whole("x", pax(size=4 * GB), b"x") + head(NAME), 4 * GB), imdb


def a_negative_size(p):
    block = bytearray(head(NAME))
    block[124:136] = tarfile.itn(-1024, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return packed(p, head("a"), bytes(block)), imdb


def a_large_file(p):
    return holes(p, head(LIST, 5 * GB), 6 * GB), listops


def zeros_before_the_file(p):
    return packed(p, head("other", GB - 512), GB, whole(LIST, b"")), listops


def zeros_of_bzip2(p):
    return packed(p, head("other", GB - 512), GB, pack=bz2.compress), listops


def many_empty_members(p):
    p.write_bytes(gzip.compress(head("x") * 1_000) * 1_000)
    return p, few


def many_reviews(p):
    return packed(p, b"".join(head(f"aclImdb/train/neg/{i}_1.txt") for i in range(2_001))), few


def a_dictionary_of_4_gb(p):
    data = bytearray(lzma.compress(head(LIST)))
    start, end = 12, 12 + 4 * (data[12] + 1) - 4
    at = data.index(b"\x21\x01", start) + 2  # the filter LZMA2, one byte of properties
    data[at] = 40
    data[end : end + 4] = struct.pack("<I", zlib.crc32(data[start:end]))
    return packed(p, bytes(data), pack=lambda d: d), listops


def a_name_that_writes_on_the_terminal(p):
    return packed(p, head(f"{ESCAPES}/{LIST}", 0, b"2", "x")), listops


def a_name_of_200_kb(p):
    name = f"{'x' * 200_000}/{LIST}\0".encode()
    return packed(p, whole("././@LongLink", name, b"L"), head("y", 0, b"2")), listops
