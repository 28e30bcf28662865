"""Stage 0 of an instance: takes its place, drops everything, and becomes the instance's Python.

Run as `python -I -S launch.py FD`; FD gives its instructions, marshalled by the same Python, so nothing of them is in
argv, and what user code's environment holds (LD_PRELOAD, say) takes effect only in the instance, which has no rights
any more. As few imports as can be: each costs every start (json would cost as much as all the rest).

In this order: it joins its control groups; in a mount namespace of its own it covers folders by empty ones and binds
back what the instance needs, at the same paths; it gives up groups, user, capabilities (the bounding set too) and the
right to gain any; it execs.
"""

import ctypes
import marshal
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_FIRST_TO_GO = "1000"
"""oom_score_adj: when the machine's memory is used up, instances end before services."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [None if each is None else os.fsencode(each) for each in (source, target, kind, options)]
    _checked(_libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def _prctl(option: int, *values: int) -> None:
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(option, *arguments), f"prctl {option}")


def _hide(covers: list[tuple[str, str]], binds: list[tuple[str, bool]]) -> None:
    """`covers`: [path, tmpfs options]; `binds`: [path, writable], from the outermost inwards."""
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # Only what was opened in this namespace can be bound in it.
    sources = [os.open(path, os.O_PATH) for path, _ in binds]
    for path, options in covers:
        _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    for source, (path, writable) in zip(sources, binds, strict=True):
        os.makedirs(path, exist_ok=True)
        _mount(f"/proc/self/fd/{source}", path, None, _MS_BIND)
        flags = _MS_NOSUID | _MS_NODEV | (0 if writable else _MS_RDONLY)
        _mount(None, path, None, _MS_REMOUNT | _MS_BIND | flags)
        os.close(source)
    # Of other users' processes it then sees nothing.
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "hidepid=2")


def _become(user: int) -> None:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # Effective and permitted ones went with the user; the inheritable ones did not.
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def _limit(kind: int, number: int) -> None:
    """The soft limit, and the hard one where that is allowed (it can't be raised back)."""
    hard = resource.getrlimit(kind)[1]
    number = number if hard == resource.RLIM_INFINITY else min(number, hard)
    resource.setrlimit(kind, (number, number))


def launch(told: "dict[str, Any]") -> None:
    """Does not return, unless there is nothing to become (it was tried only)."""
    os.umask(0o022)
    for path in told["joins"]:
        with open(path, "w") as file:
            file.write("0")
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(_FIRST_TO_GO)
    if told["hide"] is not None:
        _hide(**told["hide"])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, told["files"])
    if told["user"] is not None:
        # Counted by user: this one's alone.
        _limit(resource.RLIMIT_NPROC, told["processes"])
        _become(told["user"])
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o077)
    if told["argv"]:
        os.chdir(told["folder"])
        os.execve(told["argv"][0], told["argv"], told["environment"])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    try:
        with os.fdopen(int(sys.argv[1]), "rb") as instructions:
            told = marshal.load(instructions)  # noqa: S302 - the provisioner wrote them
        launch(told)
    except OSError as error:
        sys.exit(f"this machine does not let an instance start: {error}")
