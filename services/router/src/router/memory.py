"""How the process keeps its memory: a proxy takes and gives back large pieces all the time."""

import ctypes
import gc

# glibc's <malloc.h>
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_large_pieces() -> None:
    """Have malloc keep what was used for bodies, up to 128 MiB, where it would return it to the kernel and fault it in
    again for the next one: a third of the CPU time of a 1 MiB body. A C library that has no such setting is left."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 128 << 20)
        mallopt(_TOP_PAD, 16 << 20)


def start_with_a_table() -> None:
    """What is made from here until `forget_the_start` stays, nearly all of it: nobody need look for garbage."""
    gc.disable()


def forget_the_start() -> None:
    """What lives now lives on, such as the table: the garbage collector need not go through it again and again. It does
    not now either: with a long table that takes a second, and requests are being answered."""
    gc.freeze()
    gc.enable()
