"""Runs untrusted Python programs, one after the other, each in a sandbox of its own: a script of the standard library alone,
started by code_tests. What a program is and what it is asked stands in choice.py and driver.py beside it.

    python -s -S -B -P -X utf8 sandbox.py      (environment: PYTHONHASHSEED=0, so that sets have one order, and nothing else)

Messages of JSON come in on stdin, each after a line with its length. The first of a program is {"blocks", "function", "reads",
"preamble", "cpu_seconds", "clock_seconds", "memory_mb", "output_bytes"}; the answer is the line "ready", or, where this machine
grants no isolation, the reason on stderr and an exit. Each further one is a run: {"stdin": text}, {"arguments": [[...], ...]}
(one call of the function each) or {"call": arguments} (one call, in the form of driver.pack). The answer is a line
"<outcome> <bytes>" and so many bytes of output: what the program printed, or the JSON of what its function returned. An empty
message ends the sandbox; the answer, once nothing is left, is the line "over".

A check is run like a program: its first message has "check" in place of "blocks". While it runs, each call that it makes is an
answer "call <bytes>" with the arguments, and the next message is the result; an empty one says that there is none.

What a program can reach:
- No network, no other process, no shared memory: namespaces of its own, by way of a user namespace (an ordinary user), or by
  root itself, which then becomes 'nobody'.
- No files but Python's and /usr, read-only, and an empty /tmp in memory, which is gone when the program ends.
- No second process or thread (RLIMIT_NPROC 0, which binds all but root), no capabilities, and no way to get any.
- Bounded: processor time, clock time, memory, file size (its output is a file), open files; no core dump.

Linux 5.14 or newer. Four processes: this one starts Python once and is forked for each program; the fork enters the namespaces
and then only waits; its child is the first of the PID namespace and takes the requests (all in there ends when it ends); a fork
of that child becomes the program.
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
"""How often a program that is still at work gets its time on the clock."""
_AT_WORK = 0.05
"""The share of the clock in which a program computes, at least, if it is at work on a machine however busy."""
CALL_BYTES = 2**24
"""Of one call that a check makes."""
FOLDER_BYTES = 16 * 2**20
OPEN_FILES = 32
NOBODY = 65534
DONE, FAILED, GAVE_UP, CALL = "done", "failed", "gave-up", "call"
"""Outcomes of a run: it ended with status 0; it did not; it took too much time or memory. CALL: it goes on after this one."""
_OUT_OF_MEMORY = 77

# Numbers of the kernel's interface, the same on every architecture.
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 1 << 17, 1 << 27, 1 << 28, 1 << 29, 1 << 30
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 1, 1 << 2, 1 << 12, 1 << 14, 1 << 18
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int | bytes | None) -> None:
    """Call a function of the C library, integers as longs; OSError where it fails."""
    if getattr(_libc, name)(*(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)) == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


# ---------------------------------------------------------------------------------------------- isolation


def enter_namespaces() -> bool:
    """New namespaces (the PID namespace: for children). True: entered as root; False: through a user namespace."""
    own = _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            _call("unshare", own)
            return True
        _become_nobody()  # root of a container that may not: goes on as an ordinary user
        _call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)  # without it /proc/self belongs to root
    user, group = os.geteuid(), os.getegid()
    _call("unshare", own | _CLONE_NEWUSER)
    for name, text in [("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")]:
        _write(f"/proc/self/{name}", text)
    return False


def change_root() -> None:
    """Move into a root folder in memory that holds Python and /usr, read-only, and an empty /tmp, the working folder.

    By chroot: a process without capabilities cannot leave it, nor make a user namespace inside it to get some.
    """
    for name in ("shmmni", "msgmni"):  # System V memory counts in no limit; older kernels let only root forbid it
        with contextlib.suppress(OSError):
            _write(f"/proc/sys/kernel/{name}", "0")
    os.umask(0o022)
    folders = {path: os.open(path, os.O_PATH) for path in _readable()}  # opened first: one of them may lie in /tmp
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
    """What a program may read: Python's folders and the C libraries. No folder of these lies within another."""
    found: list[str] = []
    for path in sorted({"/usr", "/lib", "/lib64", sys.base_prefix, sys.base_exec_prefix}):
        if os.path.isdir(path) and not any(path.startswith(f"{other}/") for other in found):
            found.append(path)
    return found


def check_confinement(job: dict[str, Any], as_root: bool) -> None:
    """OSError where a program could start processes: their limit does not bind root, and not every root can become another."""
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
    """Limits on this process, which no later step can raise, and no privileges."""
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
    """Answer the requests one after the other."""
    _answer(b"ready\n")
    while request := driver.read_message(0):
        outcome, output = run(job, json.loads(request), as_root, null)
        _answer(f"{outcome} {len(output)}\n".encode() + output)


def _answer(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


class _Pipes(NamedTuple):
    """File descriptors between a check and this process, two pipes."""

    calls: int
    results: int
    """The check's end of ``calls``."""
    replies: int
    """The check's end of ``reply``."""
    reply: int


def run(job: dict[str, Any], request: dict[str, Any], as_root: bool, null: int) -> tuple[str, bytes]:
    """Outcome and output of one run. Input and output are files in memory: no pipe that a program could fill or hold open."""
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
    if not ended or status in (-signal.SIGKILL, _OUT_OF_MEMORY):  # the kernel kills at the limit of processor time
        return GAVE_UP, b""
    return (DONE, printed) if status == 0 else (FAILED, b"")


def _wait(process: int, program: int, pipes: _Pipes | None, seconds: float) -> bool:
    """Wait until the program has ended, and pass on the calls of a check; False: it takes too long.

    That is ``seconds`` in which it computed next to nothing. One that computes has more of them, so that its verdict does not
    depend on how much of the machine it gets: it is held to its processor time, by the kernel.
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
    """Seconds that a child which is not waited for has used: its CPU clock, as clock_getcpuclockid(3) makes its number."""
    return time.clock_gettime(~process << 3 | 2)


def _become_program(
    job: dict[str, Any], request: dict[str, Any], outputs: list[int], given: int, as_root: bool, null: int
) -> NoReturn:
    """In the fork: give everything up, run the program, leave with its exit status.

    Args:
        outputs: what is to be its stdout, and descriptors 3 and so on.
    """
    status = 1
    try:
        sources = [fcntl.fcntl(one, fcntl.F_DUPFD, 64) for one in (null, given, *outputs)]  # clear of the targets
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
    """In a fork: one program's sandbox, from its namespaces to its last request."""
    try:
        as_root = enter_namespaces()
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # here: a change of credentials forgets it
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first process of a PID namespace is deaf to signals at their default
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
    gc.freeze()  # else the first collection in each fork would copy all that was imported here
    main()
