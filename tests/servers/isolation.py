"""A separate ``/dev/shm`` for a test process.

Commands look there for the servers of this host. In a shared one, they would also find the servers
of other test processes and other programs.
"""

from __future__ import annotations

import os
from pathlib import Path

try:
    import ctypes
except ImportError:  # a Python that was built without libffi
    ctypes = None  # type: ignore[assignment]

SHM = Path("/dev/shm")

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 0x40000


def isolate() -> bool:
    """Mount an empty ``/dev/shm`` that only this process and its children see.

    Returns False and changes nothing if this process may not do so, or has no ctypes.
    """
    if ctypes is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or not SHM.is_dir() or libc.unshare(CLONE_NEWNS) != 0:
        return False
    if libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return False
    return bool(libc.mount(b"tmpfs", bytes(SHM), b"tmpfs", 0, b"mode=1777") == 0)
