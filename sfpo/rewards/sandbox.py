"""Runs untrusted Python programs sequentially, each in its own sandbox. A script that imports only the standard library,
started by code_tests. choice.py and driver.py in the same folder select the program and run it.

    python -s -S -B -P -X utf8 sandbox.py      (environment: only PYTHONHASHSEED=0, which fixes the iteration order of sets)

Protocol: JSON messages arrive on stdin, each preceded by a line with its length. The first message of a program is {"blocks",
"function", "reads", "preamble", "cpu_seconds", "clock_seconds", "memory_mb", "output_bytes"}; the answer is the line "ready",
or, if this machine cannot isolate programs, a reason on stderr and exit. Each further message is a run: {"stdin": text},
{"arguments": [[...], ...]} (one call of the function per element) or {"call": arguments} (one call, encoded by driver.pack).
The answer is a line "<outcome> <bytes>", followed by that many bytes of output: what the program printed, or the function's
results as JSON. An empty message ends the sandbox; the answer, when all its processes are gone, is the line "over".

Checking code is run like a program: its first message has "check" instead of "blocks". While it runs, each of its calls is an
answer "call <bytes>" with the arguments; the next message is the result, or empty if the program failed.

What a program can access:
- No network, other processes or shared memory: it has its own namespaces, entered through a user namespace (ordinary user) or
  as root, which then becomes 'nobody'.
- No files except Python's and /usr, read-only, and an empty /tmp in memory, which disappears when the program ends.
- No child processes or threads (RLIMIT_NPROC 0, which applies to all users but root), no capabilities, and no way to gain any.
- Limited CPU time, wall-clock time, memory, file size (its output is a file) and open files; no core dumps.

Needs Linux 5.14 or newer. There are four processes: this one starts Python once and forks for each program; the fork enters the
namespaces and then only waits; its child is the first process of the PID namespace and serves the requests (all processes of
the namespace die with it); a fork of that child becomes the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import resource
import select
import signal
import struct
import sys
import time
from typing import Any, NamedTuple, NoReturn

MAX_WAITS = 6
"""A program that keeps computing gets the wall-clock limit up to this number of times."""
_AT_WORK = 0.05
"""A program counts as computing if it used at least this fraction of the wall-clock time as CPU time, even on a busy
machine."""
CALL_BYTES = 2**24
"""Maximum size of one call made by checking code."""
FOLDER_BYTES = 16 * 2**20
OPEN_FILES = 32
NOBODY = 65534
DONE, FAILED, OVER_LIMIT, CALL = "done", "failed", "over-limit", "call"
"""Outcomes of a run: exit status 0; another exit status; a time or memory limit exceeded. CALL: not finished, a call of the
checking code."""
_OUT_OF_MEMORY = 77

# Constants of the kernel's interface, the same on every architecture.
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 1 << 17, 1 << 27, 1 << 28, 1 << 29, 1 << 30
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 1, 1 << 2, 1 << 12, 1 << 14, 1 << 18
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int | bytes | None) -> None:
    """Call a function of the C library, with integers as longs; raises OSError if it fails."""
    if getattr(_libc, name)(*(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)) == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


# ---------------------------------------------------------------------------------------------- isolation


def enter_namespaces() -> bool:
    """Enter new namespaces (the PID namespace applies to children). Returns True if as root, False if in a user namespace."""
    own = _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            _call("unshare", own)
            return True
        _become_nobody()  # root in a container without the capability: continue as an ordinary user
        _call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)  # otherwise /proc/self belongs to root
    user, group = os.geteuid(), os.getegid()
    _call("unshare", own | _CLONE_NEWUSER)
    for name, text in [("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")]:
        _write(f"/proc/self/{name}", text)
    return False


def change_root() -> None:
    """Change into a root folder in memory that contains Python and /usr, read-only, and an empty /tmp as the working folder.

    chroot is safe here: a process without capabilities cannot leave it, nor gain any by a user namespace inside it.
    """
    for name in ("shmmni", "msgmni"):  # no limit covers System V shared memory; on older kernels only root can forbid it
        with contextlib.suppress(OSError):
            _write(f"/proc/sys/kernel/{name}", "0")
    os.umask(0o022)
    folders = {path: os.open(path, os.O_PATH) for path in _readable()}  # opened first: one may be inside /tmp
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _call("mount", b"none", b"/tmp", b"tmpfs", _MS_NOSUID | _MS_NODEV, f"size={FOLDER_BYTES},nr_inodes=4096,mode=755".encode())
    attributes = struct.pack("4Q", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV, 0, 0, 0)
    for path, folder in folders.items():
        target = f"/tmp{path}"
        os.makedirs(target)
        _call("mount", f"/proc/self/fd/{folder}".encode(), target.encode(), None, _MS_BIND | _MS_REC, None)
        _call("syscall", _SYS_MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes))
        os.close(folder)
    os.makedirs("/tmp/tmp", exist_ok=True)
    os.chmod("/tmp/tmp", 0o1777)
    os.chroot("/tmp")
    os.chdir("/tmp")


def _readable() -> list[str]:
    """Folders that a program may read: those of Python and of the C libraries, none inside another."""
    found: list[str] = []
    for path in sorted({"/usr", "/lib", "/lib64", sys.base_prefix, sys.base_exec_prefix}):
        if os.path.isdir(path) and not any(path.startswith(f"{other}/") for other in found):
            found.append(path)
    return found


def check_confinement(job: dict[str, Any], as_root: bool) -> None:
    """Raise OSError if a program could start processes: RLIMIT_NPROC does not apply to root, and some roots cannot drop it."""
    probe = os.fork()
    if probe == 0:
        status = 1
        try:
            _confine(job, as_root)
            try:
                os.fork()
            except BlockingIOError:
                status = 0
        finally:
            os._exit(status)
    if os.waitpid(probe, 0)[1] != 0:
        raise OSError("a process here cannot become 'nobody', or RLIMIT_NPROC does not bind it")


def _confine(job: dict[str, Any], as_root: bool) -> None:
    """Set hard limits on this process and drop all privileges."""
    limits = {
        resource.RLIMIT_CPU: job["cpu_seconds"],
        resource.RLIMIT_AS: job["memory_mb"] * 2**20,
        resource.RLIMIT_FSIZE: job["output_bytes"],
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    if as_root:
        _become_nobody()
    _call("capset", struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


# ---------------------------------------------------------------------------------------------- runs


def serve(job: dict[str, Any], as_root: bool, null: int) -> None:
    """Answer the requests sequentially."""
    _answer(b"ready\n")
    while request := driver.read_message(0):
        outcome, output = run(job, json.loads(request), as_root, null)
        _answer(f"{outcome} {len(output)}\n".encode() + output)


def _answer(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


class _Pipes(NamedTuple):
    """File descriptors of the two pipes between checking code and this process."""

    calls: int
    results: int
    """Write end of ``calls``, for the checking code."""
    replies: int
    """Read end of ``reply``, for the checking code."""
    reply: int


def run(job: dict[str, Any], request: dict[str, Any], as_root: bool, null: int) -> tuple[str, bytes]:
    """(outcome, output) of one run. Input and output are files in memory, because a program could fill or hold open a pipe."""
    given, output = os.memfd_create("input"), os.memfd_create("output")
    os.pwrite(given, request.get("stdin", "").encode(errors="replace"), 0)
    pipes = _Pipes(*os.pipe(), *os.pipe()) if "check" in job else None
    program = os.fork()
    if program == 0:
        if pipes is not None:
            outputs = [null, pipes.results, pipes.replies]
        else:
            outputs = [null, output] if "arguments" in request or "call" in request else [output]
        _become_program(job, request, outputs, given, as_root, null)
    process = os.pidfd_open(program)
    for descriptor in (pipes.results, pipes.replies) if pipes else ():
        os.close(descriptor)
    ended = _wait(process, program, pipes, job["clock_seconds"])
    if not ended:
        os.kill(program, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    printed = os.pread(output, job["output_bytes"], 0)
    for descriptor in (process, given, output, *((pipes.calls, pipes.reply) if pipes else ())):
        os.close(descriptor)
    if not ended or status in (-signal.SIGKILL, _OUT_OF_MEMORY):  # SIGKILL: the kernel's CPU time limit
        return OVER_LIMIT, b""
    return (DONE, printed) if status == 0 else (FAILED, b"")


def _wait(process: int, program: int, pipes: _Pipes | None, seconds: float) -> bool:
    """Wait for the program to end, and forward the calls of checking code. False if it takes too long.

    The limit is ``seconds`` of wall-clock time without computing. A program that computes gets more, up to MAX_WAITS times, so
    that its verdict does not depend on the machine's load; the kernel enforces its CPU time limit.
    """
    watched = [process] if pipes is None else [process, pipes.calls]
    used = 0.0
    for _ in range(MAX_WAITS):
        deadline = time.monotonic() + seconds
        while ready := select.select(watched, [], [], max(0.0, deadline - time.monotonic()))[0]:
            if pipes and pipes.calls in ready and (message := driver.read_message(pipes.calls, CALL_BYTES)):
                _answer(f"{CALL} {len(message)}\n".encode() + message)
                result = driver.read_message(0)
                with contextlib.suppress(BrokenPipeError):
                    os.write(pipes.reply, b"%d\n%s" % (len(result), result))
            elif process in ready:
                return True
            else:
                watched = [process]
        before, used = used, _processor_time(program)
        if used - before < _AT_WORK * seconds:
            return False
    return False


def _processor_time(process: int) -> float:
    """CPU seconds used by a child that has not been waited for; computes its clock id like clock_getcpuclockid(3)."""
    return time.clock_gettime(~process << 3 | 2)


def _become_program(
    job: dict[str, Any], request: dict[str, Any], outputs: list[int], given: int, as_root: bool, null: int
) -> NoReturn:
    """In the fork: drop privileges and open files, run the program, and exit with its status.

    Args:
        outputs: descriptors that become its stdout, descriptor 3, and so on.
        given: descriptor that becomes its stdin.
    """
    status = 1
    try:
        sources = [fcntl.fcntl(one, fcntl.F_DUPFD, 64) for one in (null, given, *outputs)]  # above the target descriptors
        for source, target in zip(sources, (2, 0, 1, driver.RESULTS, driver.REPLIES), strict=False):
            os.dup2(source, target)
        os.closerange(2 + len(outputs), 2**20)
        _confine(job, as_root)
        os.environ.clear()
        sys.argv[:] = ["program.py"]
        status = driver.execute(job, request)
    except MemoryError:
        status = _OUT_OF_MEMORY
    finally:
        os._exit(status)


def sandboxed(job: dict[str, Any], null: int) -> NoReturn:
    """In a fork: create the sandbox of one program, and serve its requests."""
    try:
        as_root = enter_namespaces()
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # only now, because changing credentials resets it
        child = os.fork()
        if child == 0:
            _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            change_root()
            check_confinement(job, as_root)
    except OSError as error:
        sys.exit(str(error))
    if child == 0:
        serve(job, as_root, null)
        sys.exit()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def main() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # PID 1 of a namespace ignores default handlers
    while message := driver.read_message(0):
        sandbox = os.fork()
        if sandbox == 0:
            sandboxed(json.loads(message), null)
        status = os.waitstatus_to_exitcode(os.waitpid(sandbox, 0)[1])
        if status != 0:
            sys.exit(status)
        _answer(b"over\n")


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import driver

    del sys.path[0]
    gc.freeze()  # otherwise the first garbage collection in each fork would copy all imported modules
    main()
