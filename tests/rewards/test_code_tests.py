"""The grader of programs: right and wrong ones, and real attacks: none may pass, hold it up, or leave anything behind."""

import json
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sfpo.rewards import sandbox
from sfpo.rewards.code_gold import check_tests
from sfpo.rewards.code_tests import CLOCK_FACTOR, MAX_CHARACTERS, CodeGrader, extract_blocks
from sfpo.rewards.math_answer import Grade

REPOSITORY = Path(__file__).parents[2]
LIMIT = 1.0
BOUND = CLOCK_FACTOR * LIMIT + 30.0
"""Seconds on the clock within which any answer is there, on a busy machine too."""

# 3 + 4 = 7, 1 + 1 = 2, -5 + 5 = 0
SUM = json.dumps(
    {
        "function": "f",
        "cases": [
            {"arguments": [3, 4], "result": 7},
            {"arguments": [1, 1], "result": 2},
            {"arguments": [-5, 5], "result": 0},
        ],
    }
)
SUM_OF_LINE = json.dumps({"cases": [{"stdin": "3 4\n", "stdout": "7\n"}, {"stdin": "1 1\n", "stdout": "2\n"}]})
ADD = "def f(x, y):\n    return x + y\n"
READ_AND_ADD = "print(sum(map(int, input().split())))\n"
PRINT_AT_THE_END = """
import atexit, io, sys
out = sys.stdout = io.StringIO()
atexit.register(lambda: sys.__stdout__.write(out.getvalue()))
"""
RIGHT, WRONG, GIVEN_UP = Grade(True, True, False), Grade(False, True, False), Grade(False, True, True)


def fenced(program: str) -> str:
    return f"Here it is.\n```python\n{program}\n```\nDone."


def gold_of(result, *arguments) -> str:
    return json.dumps({"function": "f", "cases": [{"arguments": list(arguments), "result": result}]})


@pytest.fixture(scope="module")
def grader(isolation):
    with CodeGrader(workers=2, time_limit_seconds=LIMIT, memory_mb=256) as grader:
        yield grader


def verdict(grader, program: str, gold: str = SUM) -> Grade:
    return grader.grade_all([fenced(program)], [(gold,)])[0]


# ---------------------------------------------------------------------------------------------- the program in a response


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("no block", ()),
        ("```python\nx = 1\n```", ("x = 1",)),
        ("```\nx = 1\n```", ("x = 1",)),
        ("```py\nx = 1\ny = 2\n``` ", ("x = 1\ny = 2",)),
        ("```Python\nx = 1\n```", ("x = 1",)),
        ("```python3.11\nx = 1\n```", ("x = 1",)),
        ("``` python title='a.py'\nx = 1\n```", ("x = 1",)),
        ("```{.python}\nx = 1\n```", ("x = 1",)),
        ("~~~python\nx = 1\n~~~", ("x = 1",)),
        ("````python\nx = 1\n```\ny = 2\n````", ("x = 1\n```\ny = 2",)),  # three marks do not close four
        ("```python\n```", ("",)),
        ("```python\nx = 1", ()),  # cut off
        ("```python\nx = 1\n```\n```python\nx = 2\n```", ("x = 1", "x = 2")),
        ("```python\nx = 1\n```\n```python\nx = 2", ("x = 1",)),  # those that close
        ("```python\nx = 1\n```\nIt prints\n```text\n1\n```\n", ("x = 1",)),  # another language
        ("```cpp\nint x;\n```\n```pycon\n>>> 1\n```", ()),
        ("```json\n{}\n```\nSo:\n```python\nx = 1\n```", ("x = 1",)),  # the end of one block is not the start of another
        ("```python\nx = 1\n```python\nx = 2\n```", ("x = 2",)),  # left open
        ("inline ```x = 1``` is none", ()),
        ("1. So:\n  ```python\n  def f():\n      x\n  ```", ("def f():\n    x",)),  # without the indentation of its fence
    ],
)
def test_the_complete_blocks_of_a_response(text, blocks):
    assert extract_blocks(text) == blocks


@pytest.mark.parametrize("text", ["```\n" * 10**5, "```python\n" * 10**5, "`" * 10**6, "~" * 10**6, "x\n" * 10**6])
def test_long_texts_are_searched_in_linear_time(text):
    start = time.process_time()
    extract_blocks(text)
    assert time.process_time() - start < 2.0


# ---------------------------------------------------------------------------------------------- right and wrong programs


@pytest.mark.parametrize(
    ("program", "gold"),
    [
        (ADD, SUM),
        ("class Solution:\n    def f(self, x, y):\n        return x + y", SUM),
        ("f = lambda x, y: x + y", SUM),
        ("print('noise')\n" + ADD, SUM),  # what a function prints is not looked at
        (ADD + "if __name__ == '__main__':\n    print(f(1, 2))", SUM),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x, y): return P(x).x + y", SUM),
        ("import tempfile\nwith tempfile.TemporaryFile() as t: t.write(b'1')\n" + ADD, SUM),  # a small file of its own
        (READ_AND_ADD, SUM_OF_LINE),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", SUM_OF_LINE),
        ("import sys\nfor line in sys.stdin:\n    print(eval('+'.join(line.split())))", SUM_OF_LINE),
        (READ_AND_ADD + "import sys\nsys.exit(0)", SUM_OF_LINE),
        (READ_AND_ADD + "import sys\nsys.stdout = None", SUM_OF_LINE),  # Python ends well here too
        (READ_AND_ADD + "import sys\nsys.stdout.close()", SUM_OF_LINE),
        (READ_AND_ADD + "print()\nprint('  ')", SUM_OF_LINE),  # blanks at the end
        (PRINT_AT_THE_END + READ_AND_ADD, SUM_OF_LINE),
        ("def f(x): return (x, [x])", gold_of([1, [1]], 1)),  # a tuple is a list
        ("def f(x): return x / 3", gold_of(0.333333333333, 1)),  # to nine digits
        ("def f(x): return 2.0 * x", gold_of(2, 1)),
        ("def f(x): return {'a': x, 'b': None}", gold_of({"b": None, "a": 1}, 1)),
        ("def f(x): return x[::-1]", gold_of("é\n", "\né")),
        ("def f(x): return x > 0", gold_of(True, 1)),
    ],
)  # fmt: skip
def test_right_programs_pass(grader, program, gold):
    assert verdict(grader, program, gold) == RIGHT


@pytest.mark.parametrize(
    ("program", "gold"),
    [
        ("def f(x, y): return x - y", SUM),
        ("def f(x, y): return 7", SUM),  # right in the first case alone
        ("def g(x, y): return x + y", SUM),
        ("def f(x): return x", SUM),
        ("f = 7", SUM),
        ("def f(x, y):\n    print(x + y)", SUM),
        ("def f(x, y): return str(x + y)", SUM),
        ("def f(x, y): return {x + y}", SUM),
        ("def f(x, y) return x + y", SUM),
        ("", SUM),
        ("\0" + ADD, SUM),
        ("\ud800" + ADD, SUM),
        ("(" * 10_000, SUM),
        ("print(7)", SUM_OF_LINE),
        (READ_AND_ADD + "print(1)", SUM_OF_LINE),
        (READ_AND_ADD + "print(end='', flush=True)\n1 / 0", SUM_OF_LINE),  # the right text, and then an error
        (READ_AND_ADD + "import sys\nsys.exit(1)", SUM_OF_LINE),
        (ADD, SUM_OF_LINE),
        ("def f(x): return 1", gold_of(True, 1)),
        ("def f(x): return True", gold_of(1, 1)),
        ("def f(x): return 0.3333", gold_of(0.333333333333, 1)),
        ("def f(x): return float('nan')", gold_of(0.5, 1)),
        ("def f(x): return 10 ** 400", gold_of(0.5, 1)),
        ("def f(x): return [[1]]", gold_of([1], 1)),
        ("def f(x): return {'a': 1}", gold_of({"a": 1, "b": 2}, 1)),
        ("def f(x):\n    x = []\n    for _ in range(900): x = [x]\n    return x", gold_of([1], 1)),
    ],
)
def test_wrong_programs_do_not(grader, program, gold):
    assert verdict(grader, program, gold) == WRONG


def test_grades_come_in_order_and_one_for_each_response(grader):
    responses = [fenced(ADD), "no program", fenced("def f(x, y): return 0"), fenced(READ_AND_ADD), fenced(ADD)]
    golds = [SUM, (SUM,), [SUM], (SUM_OF_LINE,), (SUM,)]
    assert grader.grade_all(responses, golds) == [RIGHT, Grade(False, False, False), WRONG, RIGHT, RIGHT]
    assert grader.grade_all([], []) == []
    with pytest.raises(ValueError, match="shorter"):
        grader.grade_all(responses, golds[:1])


def test_a_program_too_long_is_wrong_unread(grader):
    assert verdict(grader, ADD + "#" * MAX_CHARACTERS) == WRONG


def test_sets_have_one_order(grader):
    # The order of a set of texts follows from the hash seed, which Python draws anew for each process if not told.
    program = "def f(): return list({'a', 'b', 'c', 'd', 'e', 'g', 'h'})"
    seed = {"PYTHONHASHSEED": "0"}
    code = "import json; print(json.dumps(list({'a', 'b', 'c', 'd', 'e', 'g', 'h'})))"
    order = json.loads(subprocess.run([sys.executable, "-c", code], env=seed, capture_output=True, check=True).stdout)
    assert verdict(grader, program, gold_of(order)) == RIGHT


def test_a_closed_grader_says_so():
    with CodeGrader(workers=1) as grader:
        pass
    with pytest.raises(RuntimeError, match="shutdown"):
        verdict(grader, ADD)


# ---------------------------------------------------------------------------------------------- attacks

THEN_ADD = "\n" + ADD
"""After these attacks the right function is there: the program passes, if the attack is let through."""
TRY_ALL = """
import os, resource
for one in {}:
    try: {}
    except (OSError, ValueError): pass
os._exit(0)
"""
ATTACKS = {
    "leaves early": "import sys; sys.exit(0)",
    "leaves at once": "import os; os._exit(0)",
    "leaves in the function": "import os\ndef f(x, y): os._exit(0)",
    "aborts": "import os; os.abort()",
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "prints a result": "print('[7, 2, 0]'); print('done 9')\nimport os; os.write(1, b'done 9\\n[7, 2, 5]'); os._exit(0)",
    "writes a result": "import os; os.write(3, b'[true, true, true]'); os._exit(0)",
    "equals everything": "class E(int):\n    def __eq__(self, other): return True\ndef f(x, y): return E(1)",
    "patches json": "import json\njson.dumps = lambda *_: '[true, true, true]'\ndef f(x, y): return 1",
    "patches builtins": "import builtins\nbuiltins.all = builtins.isinstance = lambda *_: True\ndef f(x, y): return 1",
    "patches the driver": "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and '_execute' in o: o.clear()",
    "deep result": "import os; os.write(3, b'[' * 10**6); os._exit(0)",
    "huge number": "import os; os.write(3, b'[' + b'9' * 10**6 + b']'); os._exit(0)",
    "forks": "import os\nif os.fork() == 0: os._exit(0)" + THEN_ADD,
    "fork bomb": "import os\nwhile True: os.fork()",
    "detaches": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)" + THEN_ADD,
    "starts a thread": "import _thread\n_thread.start_new_thread(print, ())" + THEN_ADD,
    "starts a program": "import subprocess\nsubprocess.run(['/usr/bin/true'], check=True)" + THEN_ADD,
    "becomes another program": "import os\nos.execv('/usr/bin/env', ['env'])",
    "sleeps": "import time; time.sleep(600)",
    "hangs": "while True: pass",
    "hangs, deaf to signals": "import signal\nfor s in (2, 14, 15, 24, 27): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
    "hangs in C": "9 ** 9 ** 9",
    "waits for input": "import sys\nwhile True: sys.stdin.read()",
    "eats memory": "x = bytearray(2**40)",
    "eats memory in bits": "x = []\nwhile True: x.append(bytearray(2**20))",
    "eats memory in files": "import os\nfiles = [os.memfd_create('x') for _ in range(1000)]" + THEN_ADD,
    "eats shared memory": "import ctypes\nassert ctypes.CDLL(None).shmget(0, 2**30, 0o1600) != -1" + THEN_ADD,
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x, y): return f(x, y)",
    "crash": "import ctypes; ctypes.string_at(0)",
    "prints gigabytes": "while True: print('x' * 10**6)",
    "prints gigabytes to stderr": "import sys\nwhile True: print('x' * 10**6, file=sys.stderr)",
    "returns gigabytes": "def f(x, y): return 'x' * 10**8",
    "writes a large file": "open('x', 'wb').write(bytes(2**21))" + THEN_ADD,
    "fills the disk": "for n in range(100): open(str(n), 'wb').write(bytes(2**20))" + THEN_ADD,
    "writes into Python": "import os\nopen(os.__file__, 'a').write('#')" + THEN_ADD,
    "writes outside": f"open({str(REPOSITORY / 'owned')!r}, 'w').write('1')" + THEN_ADD,
    "reads outside": f"open({str(REPOSITORY / 'pyproject.toml')!r}).read()" + THEN_ADD,
    "reads accounts": "open('/etc/passwd').read()" + THEN_ADD,
    "reads processes": "import os; os.listdir('/proc')" + THEN_ADD,
    "leaves the root": "import os\nos.chroot('/usr')" + THEN_ADD,
    "mounts": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'proc', 0, None) == 0" + THEN_ADD,
    "makes a user namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(1 << 28) == 0" + THEN_ADD,
    "becomes root": "import os\nos.setuid(0)\nos.setgroups([0])" + THEN_ADD,
    "raises its limits": "import resource as r\nr.setrlimit(r.RLIMIT_NPROC, (9, 9))" + THEN_ADD,
    "kills all": "import os\nos.kill(-1, 9)" + THEN_ADD,
    "kills the sandbox": TRY_ALL.format("range(1, 65)", "os.kill(1, one)"),
    "strangles the sandbox": TRY_ALL.format("range(16)", "resource.prlimit(1, one, (0, 0))"),
}  # fmt: skip


@pytest.mark.parametrize("program", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_does_not_pass_and_is_answered_in_time(grader, program):
    start = time.perf_counter()
    grade = verdict(grader, program)
    seconds = time.perf_counter() - start
    assert grade in (WRONG, GIVEN_UP)
    assert seconds < BOUND
    assert not (REPOSITORY / "owned").exists()


@pytest.mark.parametrize(
    "name", ["sleeps", "hangs", "hangs, deaf to signals", "hangs in C", "eats memory", "eats memory in bits"]
)
def test_a_program_that_exceeds_a_limit_is_counted_and_logged(grader, name, caplog):
    with caplog.at_level(logging.WARNING, logger="sfpo.rewards"):
        grades = grader.grade_all([fenced(ATTACKS[name]), fenced(ADD)], [SUM, SUM])
    assert grades == [GIVEN_UP, RIGHT]
    assert [record.getMessage()[:10] for record in caplog.records] == ["1 of 2 pro"]


@contextmanager
def at_a_fifth_of_the_speed():
    """All that the sandboxes run stands still for four fifths of the time, as on a machine that is that busy."""
    ends = threading.Event()

    def descendants(pid: int) -> list[int]:
        children: list[int] = []
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                children += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
        return children + [one for child in children for one in descendants(child)]

    def throttle():
        while not ends.is_set():
            stopped = descendants(os.getpid())
            for one, seconds in ((signal.SIGSTOP, 0.04), (signal.SIGCONT, 0.01)):
                for pid in stopped:
                    with suppress(ProcessLookupError):
                        os.kill(pid, one)
                time.sleep(seconds)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def test_the_verdict_is_the_same_on_a_busy_machine(grader):
    working = "import time\nwhile time.process_time() < 0.7: pass\n" + ADD  # of 1 s that it has
    check = json.dumps({"function": "f", "check": "def check(candidate):\n    assert candidate(3, 4) == 7"})
    with at_a_fifth_of_the_speed():
        assert grader.grade_all([fenced(working)] * 2, [SUM, check]) == [RIGHT] * 2


def test_the_expected_results_are_nowhere_to_be_found(grader):
    program = """
import gc, sys
def f(*_):
    wanted = "".join(["918", "273", "645"])
    seen, frame = gc.get_objects(), sys._getframe().f_back
    while frame:
        seen += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    return int(wanted) if any(wanted in repr(one) for one in seen if type(one) in (dict, list, tuple, str)) else 0
"""
    assert verdict(grader, program, gold_of(918273645)) == WRONG
    assert verdict(grader, program, gold_of(918273645, "918273645")) == RIGHT  # arguments it does find


def test_the_network_is_out_of_reach(grader):
    """Servers in this process that would give the answer away, and the addresses that are nobody's."""
    servers = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(type=socket.SOCK_DGRAM)]
    servers[1].bind(f"\0sfpo-test-{os.getpid()}")
    servers[1].listen()
    servers[2].bind(("127.0.0.1", 0))
    for server in servers:
        server.settimeout(0.1)
    port, name, datagrams = servers[0].getsockname()[1], servers[1].getsockname(), servers[2].getsockname()[1]
    attempts = {
        "tcp": f"s = socket.create_connection(('127.0.0.1', {port}), 1)",
        "abstract": f"s = socket.socket(socket.AF_UNIX); s.connect({name!r})",
        "udp": f"s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'x', ('127.0.0.1', {datagrams}))",
        "outside": "s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('192.0.2.1', 53))",
        "outside, IPv6": "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.connect(('2001:db8::1', 53))",
        "names": "socket.getaddrinfo('example.org', 80)",
    }
    for attempt in attempts.values():
        assert verdict(grader, f"import socket\n{attempt}{THEN_ADD}") == WRONG, attempt
    for server in servers:
        with pytest.raises(TimeoutError):
            server.recv(1) if server is servers[2] else server.accept()
    socket.create_connection(("127.0.0.1", port), 1).close()  # from out here it can be reached
    for server in servers:
        server.close()


def test_nothing_of_this_process_is_inherited(grader, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "1")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        program = "\n".join(
            [
                "import os, stat, sys",
                "def f():",
                "    descriptors = [n for n in range(100) if n != 3 and is_open(n)]",
                "    return [dict(os.environ), sys.argv, os.getcwd(), os.listdir('.'), descriptors]",
                "def is_open(n):",
                "    try: os.fstat(n)",
                "    except OSError: return False",
                "    return True",
            ]
        )
        expected = [{}, ["program.py"], "/tmp", [], [0, 1, 2]]
        assert verdict(grader, program, gold_of(expected)) == RIGHT


def test_limits_are_set_and_folders_read_only(grader):
    program = """
import os, resource as r, sys
def f():
    limits = r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_NPROC, r.RLIMIT_MSGQUEUE, r.RLIMIT_CORE
    read_only = [bool(os.statvfs(folder).f_flag & os.ST_RDONLY) for folder in ("/usr", "/lib", sys.base_prefix)]
    return [[r.getrlimit(limit) for limit in limits], read_only]
"""
    # 1 s, 256 MiB, 1 MiB, 32 files, and none of the rest; soft and hard alike
    limits = [[n, n] for n in (1, 268_435_456, 1_048_576, 32, 0, 0, 0)]
    assert verdict(grader, program, gold_of([limits, [True, True, True]])) == RIGHT


def test_files_are_gone_with_the_program(grader):
    name = f"sfpo-left-behind-{os.getpid()}"
    write = f"import os\nopen('/tmp/{name}', 'w').write('1')\ndef f(): return os.listdir('/tmp')"
    assert verdict(grader, write, gold_of([name])) == RIGHT
    assert verdict(grader, "import os\ndef f(): return os.listdir('/tmp')", gold_of([])) == RIGHT
    assert not Path("/tmp", name).exists()


def sandboxes() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"sandbox.py" in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                pass
    return found


def left_of(before: set[int], allowed: int) -> set[int]:
    """Sandboxes that were not there before, once no more than so many are left, or after five seconds."""
    deadline = time.monotonic() + 5
    while len(sandboxes() - before) > allowed and time.monotonic() < deadline:
        time.sleep(0.1)
    return sandboxes() - before


def test_no_process_is_left(isolation):
    before = sandboxes()
    names = ["detaches", "sleeps", "kills the sandbox", "kills all", "prints gigabytes"]
    with CodeGrader(workers=2, time_limit_seconds=LIMIT, memory_mb=256) as grader:
        grader.grade_all([fenced(ATTACKS[name]) for name in names], [SUM] * len(names))
        assert len(left_of(before, allowed=2)) <= 2  # one a worker, which waits for its next program
    assert left_of(before, allowed=0) == set()


def test_a_sandbox_that_died_is_replaced(isolation):
    before = sandboxes()
    with CodeGrader(workers=1) as grader:
        assert verdict(grader, ADD) == RIGHT
        (waiting,) = left_of(before, allowed=1)
        assert verdict(grader, ADD + "# again") == RIGHT
        assert left_of(before, allowed=1) == {waiting}  # the same process
        os.kill(waiting, signal.SIGKILL)
        left_of(before, allowed=0)
        assert verdict(grader, ADD + "# once more") == RIGHT


def test_a_program_finds_nothing_of_the_one_before(isolation):
    leaves = "import builtins, os\nbuiltins.left = os.environ['left'] = '1'\nopen('/tmp/left', 'w').write('1')\n" + ADD
    finds = """
import builtins, os
def f(): return [hasattr(builtins, "left"), "left" in os.environ, os.listdir("/tmp")]"""
    with CodeGrader(workers=1) as grader:
        assert verdict(grader, leaves) == RIGHT
        assert verdict(grader, finds, gold_of([False, False, []])) == RIGHT


def test_output_is_cut_off(grader):
    # Would print 1 GB, and goes on when told that there is no room.
    flood = "for _ in range(10_000):\n    try: print('x' * 10**5, flush=True)\n    except OSError: pass"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not verdict(grader, flood, SUM_OF_LINE).correct
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # KiB
    stops = f"{READ_AND_ADD}while True: print('x' * 10**5)"
    assert (
        verdict(grader, stops, SUM_OF_LINE) == WRONG
    )  # not timed out: the limit of its output ends it, not the one of its time


def test_a_step_of_equal_programs_runs_each_once(grader):
    start = time.perf_counter()
    assert grader.grade_all([fenced(ADD)] * 500, [SUM] * 500) == [RIGHT] * 500
    assert time.perf_counter() - start < BOUND


# ---------------------------------------------------------------------------------------------- the golds


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 10**5, "not valid JSON"),
        ("7", "a list `cases`"),
        ("[]", "a list `cases`"),
        ("{}", "a list `cases`"),
        ('{"cases": []}', "a non-empty list `cases`"),
        ('{"cases": [{"stdin": "", "stdout": "1"}], "limit": 3}', "a key 'limit'"),
        ('{"function": "f(x)", "cases": [{"arguments": [], "result": 1}]}', "must be a name"),
        ('{"function": 7, "cases": [{"arguments": [], "result": 1}]}', "must be a name"),
        ('{"function": "f", "cases": [7]}', "case 0 must have only `arguments`"),
        ('{"function": "f", "cases": [{"arguments": 3, "result": 1}]}', "case 0 must have only `arguments`"),
        ('{"function": "f", "cases": [{"arguments": [3]}]}', "case 0 must have only `arguments`"),
        ('{"function": "f", "cases": [{"stdin": "3", "stdout": "1"}]}', "case 0 must have only `arguments`"),
        ('{"cases": [{"stdin": "3", "stdout": "1"}, {"stdin": "3"}]}', "case 1 must have only `stdin`"),
        ('{"cases": [{"stdin": "3", "stdout": " \\n"}]}', "non-blank"),  # a program that does nothing would pass
        ('{"cases": [{"stdin": "3", "stdout": 7}]}', "must be a string"),
        ('{"function": "f", "cases": [{"arguments": [3], "result": null}]}', "every `result` is null"),
    ],
)
def test_a_faulty_gold_is_refused(grader, text, fault):
    with pytest.raises(ValueError, match=fault):
        check_tests(text)
    with pytest.raises(ValueError, match=fault):
        grader.grade_all([fenced(ADD)], [(text,)])


def test_one_gold_is_one_text(grader):
    with pytest.raises(ValueError, match=r"one gold .* 2$"):
        grader.grade_all([fenced(ADD)], [(SUM, SUM)])


# ---------------------------------------------------------------------------------------------- the isolation itself

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on other users")


def sandboxed(python: str, program: str, prefix: tuple[str, ...] = (), **options) -> tuple[str, str]:
    """Stdout and stderr of the sandbox script over one run of a program with stdin '3 4'."""
    limits = {"cpu_seconds": 2, "clock_seconds": 6, "memory_mb": 256, "output_bytes": 2**20}
    job = {"blocks": [program], "function": None, "reads": True} | limits
    command = [*prefix, python, "-s", "-S", "-B", "-P", "-X", "utf8", sandbox.__file__]
    messages = "".join(f"{len(text)}\n{text}" for text in (json.dumps(job), json.dumps({"stdin": "3 4"})))
    done = subprocess.run(command, input=messages, text=True, capture_output=True, timeout=60, cwd="/", env={}, **options)
    return done.stdout, done.stderr


def system_python() -> str:
    """A Python that every user may run: the one under test often lies in root's home."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None or subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode:
        pytest.skip("no Python 3.11 in /usr that an ordinary user may run")
    return python


CONFINED = """
import ctypes, os, socket
assert ctypes.CDLL(None).unshare(1 << 28) == -1
attempts = ["os.fork()", "os.kill(-1, 9)", "os.chroot('/usr')", "open('/usr/x', 'w')", "open('/etc/passwd')"]
for attempt in [*attempts, "socket.create_connection(('127.0.0.1', 80))"]:
    try:
        eval(attempt)
    except OSError:
        continue
    raise SystemExit("let through")
print(sum(map(int, input().split())))
"""


@as_root
@pytest.mark.parametrize(
    "drop",
    [
        ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"),
        ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"),
    ],
    ids=["an ordinary user", "root of a container without CAP_SYS_ADMIN"],
)
def test_others_than_root_get_the_same_isolation(drop, isolation):
    if shutil.which(drop[0]) is None:
        pytest.skip("no setpriv here")
    assert sandboxed(system_python(), CONFINED, drop) == ("ready\ndone 2\n7\nover\n", "")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("for kind in user net; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done;", "unshare"),
        pytest.param("", "nobody", marks=as_root),  # root of a user namespace that holds root alone
    ],
)
def test_without_isolation_the_grader_refuses_and_names_the_remedy(setting, reason):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode:
        pytest.skip("no user namespace to forbid things in")
    code = "from sfpo.rewards.code_tests import CodeGrader; CodeGrader(1).check_isolation()"
    command = ["unshare", "-Ur", "sh", "-c", f'{setting} exec "$0" -c "{code}"', sys.executable]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("RuntimeError: programs cannot be graded on this machine") and reason in message
    assert "user.max_user_namespaces" in message


def test_where_there_is_isolation_the_check_is_silent(grader):
    grader.check_isolation()
