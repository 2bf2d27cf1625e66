"""How this process asks the system for memory.

XLA's CPU backend allocates the temporary memory of a step when the step begins and frees it at its
end. glibc gives such large blocks back to the system, which clears them page by page when the next
step touches them: 160,000 page faults, and a fifth of the processor time of the official ListOps
step at batch 8.
"""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8

LARGEST_KEPT = 1 << 30  # bytes; larger blocks are given back as before


def keep_freed_memory() -> bool:
    """Let this process keep the blocks that it frees, up to 1 GiB each, for its next allocations.

    To be called before JAX starts its threads. Its resident memory then stays at its peak.

    Returns:
      Whether the allocator is glibc's and took the settings; others are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        _M_ARENA_MAX: 1,  # the other arenas are cut in pieces of 64 MiB
        _M_MMAP_THRESHOLD: LARGEST_KEPT,
        _M_TRIM_THRESHOLD: -1,  # never
        _M_TOP_PAD: 64 << 20,
    }
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
