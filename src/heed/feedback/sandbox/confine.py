"""What the process of a solution may do. Each layer stands by itself; those in force are named.

    limits      memory, CPU seconds, size of files, open files, processes (setrlimit)
    namespaces  users, network and System V IPC of its own (Linux, where a user may make them)
    files       reads the Python installation and system libraries, writes its own folder, and
                nothing else (Landlock, Linux 5.13 and later)
    calls       no sockets, processes, signals to others, tracing, mounts (seccomp, Linux on x86-64
                and 64-bit ARM)
    audit       Python's own events of sockets and processes are refused; only where `calls` is not
                to be had, and no wall against a program that means harm

Source: Linux uapi headers landlock.h, seccomp.h, filter.h, audit.h and unistd.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import sys
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_CLONE_THREAD = 0x00010000
_SIGKILL = 9


def confine(folder: str, memory_bytes: int, cpu_seconds: int, file_bytes: int) -> list[str]:
    """Confine this process for good, and return the names of the layers in force.

    Args:
        folder: the only one that it may write to.
        memory_bytes: most address space.
        cpu_seconds: most CPU time; the kernel kills at its end.
        file_bytes: largest file.
    """
    layers = ["limits"]
    linux = sys.platform == "linux"
    libc = ctypes.CDLL(None, use_errno=True) if linux else None
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC) == 0:
            layers.append("namespaces")
    _limit(memory_bytes, cpu_seconds, file_bytes)
    if libc is not None:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if _restrict_files(libc, folder):
            layers.append("files")
        if _filter_calls(libc):
            layers.append("calls")
    if "calls" not in layers:
        sys.addaudithook(_refuse_events)
        layers.append("audit")
    return layers


def hide() -> None:
    """Make this process end with its parent, and unreadable to others of the same user."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit_memory(memory_bytes: int) -> None:
    """Bound the address space of this process."""
    _set("RLIMIT_AS", memory_bytes)


def _limit(memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    wanted = {
        "RLIMIT_AS": memory_bytes,
        "RLIMIT_CPU": cpu_seconds,
        "RLIMIT_FSIZE": file_bytes,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": 64,
        "RLIMIT_CORE": 0,
    }
    for name, value in wanted.items():
        _set(name, value)


def _set(name: str, value: int) -> None:
    which = getattr(resource, name, None)
    if which is None:
        return
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some of them
        resource.setrlimit(which, (value, value))


# Landlock: rights by bit; a newer kernel knows more of them.
_EXECUTE, _WRITE, _READ, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_RIGHTS_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _restrict_files(libc: Any, folder: str) -> bool:
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    rights = _RIGHTS_OF_ABI[max(known for known in _RIGHTS_OF_ABI if known <= abi)]
    # From ABI 4 on also TCP, from 6 on abstract sockets and signals to processes outside.
    fields = [rights, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0]
    attributes = (ctypes.c_uint64 * 3)(*fields)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if rules < 0:
        return False
    try:
        for path in _readable():
            _allow(libc, rules, path, _READ | _READ_DIR)
        for path in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
            _allow(libc, rules, path, _READ | _WRITE)
        _allow(libc, rules, folder, rights & ~_EXECUTE)
        return bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _readable() -> list[str]:
    places = {sys.base_prefix, sys.prefix, sys.exec_prefix, os.path.dirname(os.__file__)}
    places |= {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"}
    places |= {"/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache"}
    return sorted(places)


def _allow(libc: Any, rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _READ | _WRITE | _EXECUTE  # other rights are of folders, and refused on files
        rule = _PathBeneath(rights, fd)
        libc.syscall(_ADD_RULE, rules, 1, ctypes.byref(rule), 0)
    finally:
        os.close(fd)


_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_REFUSED: dict[str, tuple[int, int]] = {
    "socket": (41, 198), "socketpair": (53, 199), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "connect": (42, 203), "sendto": (44, 206),
    "sendmsg": (46, 211), "sendmmsg": (307, 269), "fork": (57, -1), "vfork": (58, -1),
    "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129), "tkill": (200, 130),
    "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "setsid": (112, 157), "setpgid": (109, 154),
    "setrlimit": (160, 164), "prlimit64": (302, 261), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsmount": (432, 432), "open_by_handle_at": (304, 265), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "memfd_create": (319, 279),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180), "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145),
    "setregid": (114, 143), "setresuid": (117, 147), "setresgid": (119, 149),
    "setgroups": (116, 159), "sethostname": (170, 161), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "syslog": (103, 116), "quotactl": (179, 60), "acct": (163, 89),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), (435, 435)
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_X32 = 0x40000000


class _Filter(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_uint16), ("filter", ctypes.POINTER(_Filter))]


def _filter_calls(libc: Any) -> bool:
    known = _ARCHITECTURES.get(platform.machine())
    if known is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    steps = _program(*known)
    filters = (_Filter * len(steps))(*(_Filter(*step) for step in steps))
    program = _Program(len(steps), filters)
    return bool(libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0) == 0)


def _program(architecture: int, column: int) -> list[tuple[int, int, int, int]]:
    """The filter: (code, jump where true, jump where false, k) each; see filter.h."""
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    steps = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, _X32),
        refuse,
        # glibc falls back from clone3, whose flags a filter cannot see, to clone.
        (_EQUAL, 0, 1, _CLONE3[column]),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, 16),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        refuse,
        (_RETURN, 0, 0, _ALLOW),
    ]
    for numbers in _REFUSED.values():
        if numbers[column] >= 0:
            steps += [(_EQUAL, 0, 1, numbers[column]), refuse]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


_REFUSED_EVENTS = (
    "socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system",
    "os.kill", "pty.", "ctypes.dlopen", "os.startfile",
)  # fmt: skip


def _refuse_events(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_REFUSED_EVENTS):
        raise PermissionError(errno.EPERM, f"{event} is not allowed here")
