"""What a program may do to the tests, the machine and its judge: nothing but answer."""

import os
import re
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from heed.feedback.sandbox.run import LAYERS, Limits, run_tests

SHORT = Limits(cpu_seconds=1, wall_seconds=3.0, memory_bytes=256 << 20)
TESTS = ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]
GOOD = "def add(a, b):\n    return a + b\n"


def passes(source, tests=TESTS, **more):
    report = run_tests(source, tests, limits=SHORT, **more)
    assert report.broken is None, report
    return report.failed is None and all(report.passed) and len(report.passed) > 0


def why(source, tests=TESTS, **more):
    report = run_tests(source, tests, limits=SHORT, **more)
    return " ".join([report.failed or "", report.broken or "", *report.reasons])


def all_layers():
    return set(LAYERS) <= set(run_tests(GOOD, TESTS, limits=SHORT).layers)


@pytest.fixture(scope="module")
def whole_sandbox():
    if not all_layers():
        pytest.skip("this system does not have every layer of the sandbox")


def test_a_right_program_passes_and_a_wrong_one_does_not():
    assert passes(GOOD)
    report = run_tests(GOOD.replace("+", "*"), TESTS)
    assert report.passed == (False, True)
    assert report.reasons[0] == "AssertionError"


HACKS = {
    "exits before the tests": "import os\nos._exit(0)",
    "leaves before the tests": "import sys\nsys.exit(0)",
    "exits in the call": "import os\ndef add(a, b): os._exit(0)",
    "leaves in the call": "import sys\ndef add(a, b): sys.exit(0)",
    "says that it passed": "def add(a, b):\n    print('PASS', 'OK', 'passed 2 tests')",
    "writes a report": (
        "import os, json, struct\n"
        "def add(a, b):\n"
        "    data = json.dumps({'token': '', 'broken': None, 'failed': None, 'layers': [],\n"
        "                       'tests': [[True, ''], [True, '']]}).encode()\n"
        "    for fd in range(64):\n"
        "        try: os.write(fd, struct.pack('>I', len(data)) + data)\n"
        "        except OSError: pass"
    ),
    "equals everything": "class A:\n    def __eq__(s, o): return True\ndef add(a, b): return A()",
    "is an int that equals everything": (
        "class A(int):\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n"
        "def add(a, b): return A(99)"
    ),
    "patches equality's friends": (
        "import builtins\nbuiltins.all = builtins.any = lambda *a: True\n"
        "builtins.isinstance = lambda *a: True\nbuiltins.AssertionError = Exception\n"
        "def add(a, b): return None"
    ),
    "defines its own all": "def all(x): return True\ndef add(a, b): return 0",
    "defines its own assert error": (
        "class AssertionError(Exception): pass\ndef add(a, b): return 0"
    ),
    "traces the frames for what is expected": (
        "import sys\n"
        "def add(a, b):\n"
        "    f = sys._getframe()\n"
        "    while f:\n"
        "        for v in f.f_locals.values():\n"
        "            if isinstance(v, str) and 'assert' in v: return int(v.split('==')[1])\n"
        "        f = f.f_back"
    ),
    "searches its memory for the tests": (
        "import gc\n"
        "def add(a, b):\n"
        "    for o in gc.get_objects():\n"
        "        if isinstance(o, (list, dict)) and ' '.join(['assert', 'add(1']) in repr(o):\n"
        "            return a + b"
    ),
    "reads its parent's memory": (
        "import os\ndef add(a, b):\n    open(f'/proc/{os.getppid()}/mem', 'rb'); return a + b"
    ),
    "writes to its parent's output": (
        "import os\ndef add(a, b):\n    open(f'/proc/{os.getppid()}/fd/1', 'wb'); return a + b"
    ),
    "kills its parent": (
        "import os, signal\ndef add(a, b):\n    os.kill(os.getppid(), signal.SIGKILL); return a + b"
    ),
    "kills everybody": "import os\ndef add(a, b):\n    os.kill(-1, 9); return a + b",
    "raises what ends a test early": "def add(a, b): raise KeyboardInterrupt",
    "raises what a loop stops at": "def add(a, b): raise StopIteration",
    "returns a fraction that fills the memory": (
        "import heed.feedback.sandbox.wire as w\n"
        "def add(a, b):\n    w.encode = lambda *a: {'Fraction': '1e999999999'}\n    return 3"
    ),
    "answers nonsense": (
        "import sys\nw = sys.modules['heed.feedback.sandbox.wire']\nsend = w.send\n"
        "w.send = lambda fd, message: send(fd, [1, 2])"
    ),
    "answers with nonsense inside": (
        "import sys\nw = sys.modules['heed.feedback.sandbox.wire']\nsend = w.send\n"
        "w.send = lambda fd, message: send(fd, {'value': {'ref': 'x'}, 'changed': {'9': 1}})"
    ),
    "says that it is an exception and a module": (
        "import sys\nw = sys.modules['heed.feedback.sandbox.wire']\nsend = w.send\n"
        "w.send = lambda fd, message: send(fd, {'exception': 5, 'module': True, 'raised': 7})"
    ),
    "returns without end": "def add(a, b):\n    while True: yield 3",
    "returns itself": "def add(a, b):\n    x = []\n    x.append(x)\n    return x",
    "returns too much": "def add(a, b): return 'x' * (8 << 20)",
    "loops": "def add(a, b):\n    while True: pass",
    "loops while it loads": "while True: pass",
    "sleeps": "import time\ndef add(a, b): time.sleep(99)",
    "eats memory": "def add(a, b):\n    x = []\n    while True: x.append(bytearray(1 << 20))",
    "eats memory while it loads": "x = [0] * (1 << 40)",
    "nests without end": "def add(a, b): return add(a, b)",
    "crashes": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return (lambda f: f(f))("
        "lambda f: f(f))"
    ),
    "is no Python": "def add(a, b) return a + b",
    "is empty": "",
    "has another name": "def sum2(a, b): return a + b",
    "is no function": "add = 3",
    "forks without end": "import os\ndef add(a, b):\n    while True: os.fork()",
    "starts a program": "import subprocess\ndef add(a, b): subprocess.run(['true']); return a + b",
    "starts a shell": "import os\ndef add(a, b): return a + b + os.system('true')",
}  # fmt: skip


@pytest.mark.parametrize("name", HACKS)
def test_a_program_does_not_pass_that(name):
    began = time.monotonic()
    assert not passes(HACKS[name])
    assert time.monotonic() - began < 20


LIAR = (
    "class Yes:\n"
    "    def __getattr__(s, n): return s\n"
    "    def __call__(s, *a): return s\n"
    "    __sub__ = __rsub__ = __add__ = __abs__ = __neg__ = __getitem__ = __call__\n"
    "    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __contains__ = lambda s, o: True\n"
    "    __hash__ = None\n"
    "class Int(int):\n"
    "    __sub__ = __rsub__ = lambda s, o: Yes()\n"
    "    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = lambda s, o: True\n"
)


@pytest.mark.parametrize("kind", ["Yes()", "Int(99)", "[Yes()]", "{Int(99)}"])
@pytest.mark.parametrize(
    "test",
    ["assert abs(add(1, 2) - 3) < 0.01", "assert 3 in add(1, 2)", "assert add(1, 2) < 4",
     "assert 2 <= add(1, 2) <= 4", "assert add(1, 2) == add(2, 1) == 3", "assert add(1, 2)[0] == 3",
     "assert add(1, 2) in (3, 4)", "import math\nassert math.isclose(add(1, 2), 3)"],
)  # fmt: skip
def test_an_object_that_says_yes_to_everything_does_not_pass(test, kind):
    assert not passes(LIAR + f"def add(a, b): return {kind}", [test])


@pytest.mark.parametrize(
    ("tests", "source"),
    [
        ("assert all(add(i, 1) == i + 1 for i in range(3))", "def all(x): return True"),
        ("assert isinstance(add(1, 2), int)", 
         "def isinstance(a, b): return True\ndef int(x): return 0"),
        ("assert sorted(add(1, 2)) == [1, 2]", "def sorted(x): return [1, 2]"),
        ("assert abs(add(1, 2) - 3) < 1", "def abs(x): return 0"),
        ("import math\nassert math.isclose(add(1, 2), 3)",
         "class math:\n    isclose = lambda a, b: True"),
    ],
)  # fmt: skip
def test_names_of_python_in_the_tests_stay_pythons(tests, source):
    assert not passes(source + "\ndef add(a, b): return 'x'", [tests])


def test_a_function_may_have_a_name_of_python_where_it_is_what_is_tested():
    source = "def sum(a, b): return a + b"
    assert passes(source, ["assert sum(1, 2) == 3"])
    assert passes(source, ["assert sum(1, 2) == abs(-3)"], entry_point="sum")


def test_no_socket_can_be_made(whole_sandbox):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        for make in (
            f"socket.create_connection(('127.0.0.1', {port}))",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
            "socket.socket(socket.AF_UNIX)",
            "socket.socketpair()",
            "ctypes.CDLL(None).socket(2, 1, 0) < 0 and 1 / 0",
        ):
            source = f"import ctypes, socket\ndef add(a, b):\n    {make}\n    return a + b"
            assert not passes(source), make


def test_a_program_sees_no_environment_no_input_and_no_files_of_others(monkeypatch, whole_sandbox):
    monkeypatch.setenv("HEED_SECRET", "12")
    assert passes("import os\ndef add(a, b): return a + b + len(os.environ.get('HEED_SECRET', ''))")
    assert passes("import sys\ndef add(a, b): return a + b + len(sys.stdin.read())")
    for path in (__file__, "/etc/passwd", "/proc/self/environ", os.path.expanduser("~")):
        reading = f"import os\ndef add(a, b):\n    os.listdir({path!r}) if os.path.isdir({path!r})"
        assert not passes(f"{reading} else open({path!r}).read()\n    return a + b"), path


def test_a_program_writes_into_its_own_folder_alone_and_that_is_removed(
    tmp_path, monkeypatch, whole_sandbox
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    writing = "def add(a, b):\n    open('x', 'w').write('1')\n"
    own = writing + "    return a + b - 1 + int(open('x').read())"
    assert passes(own)
    outside = tmp_path / "x"
    outside.write_text("kept")
    for action in (f"open({str(outside)!r}, 'w')", f"os.remove({str(outside)!r})"):
        assert not passes(f"import os\ndef add(a, b):\n    {action}\n    return a + b")
    assert outside.read_text() == "kept"
    stubborn = "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w')\nos.chmod('a/b', 0)\n" + GOOD
    assert passes(stubborn)
    large = "def add(a, b):\n    open('x', 'w').write('x' * (64 << 20))\n    return a + b"
    assert not passes(large)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("after", ["assert False", "hang()", "wait()", "eat()"])
def test_no_process_is_left(after):
    source = (
        "import os, time\n"
        "def me(): return os.getpid()\n"
        "def hang():\n    while True: pass\n"
        "def wait(): time.sleep(99)\n"
        "def eat():\n    x = []\n    while True: x.append(bytearray(1 << 20))\n"
    )
    report = run_tests(source, ["assert me() < 0, me()", after], limits=SHORT)
    pid = int(report.reasons[0].rpartition(" ")[2])
    assert report.passed == (False, False)
    for number in (pid, pid - 1):  # the solution's process, and the tester that forked it
        command = Path(f"/proc/{number}/cmdline")
        assert not command.exists() or b"heed.feedback.sandbox" not in command.read_bytes()


def test_what_a_program_needs_works():
    assert passes(
        "import threading, collections, math, random, re, json, datetime\n"
        "def add(a, b):\n"
        "    out = []\n"
        "    t = threading.Thread(target=lambda: out.append(a + b))\n"
        "    t.start(); t.join()\n"
        "    return out[0]"
    )


SIDES = [
    # tests, program: what lives on the other side behaves as if it lived here
    ("a = [3, 1, 2]\nf(a)\nassert a == [1, 2, 3]", "def f(a): a.sort()"),
    ("d = {}\nf(d)\nassert d == {'x': [1]}", "def f(d): d['x'] = [1]"),
    ("s = {1}\nf(s)\nassert s == {1, 2}", "def f(s): s.add(2)"),
    ("assert list(f()) == [0, 1, 2]", "def f():\n    yield from range(3)"),
    ("assert f(lambda x: x + 1) == 3", "def f(g): return g(2)"),
    ("assert f(iter([1, 2])) == 3", "def f(i): return sum(i)"),
    ("try:\n    f()\n    assert False\nexcept ValueError as e:\n    assert 'no' in str(e)",
     "def f(): raise ValueError('no')"),
    ("try:\n    f()\n    assert False\nexcept Bad:\n    pass",
     "class Bad(Exception): pass\ndef f(): raise Bad"),
    ("p = P(1)\np.x = 5\nassert p.twice() == 10 and p.x == 5",
     "class P:\n    def __init__(s, x): s.x = x\n    def twice(s): return 2 * s.x"),
    ("assert V(1) + V(2) == V(3) and V(1) != V(2)",
     "class V:\n    def __init__(s, x): s.x = x\n    def __add__(s, o): return V(s.x + o.x)\n"
     "    def __eq__(s, o): return s.x == o.x"),
    ("q = f(1)\nassert q == (1, 2) and q.b == 2",
     "from collections import namedtuple\nQ = namedtuple('Q', 'a b')\ndef f(a): return Q(a, 2)"),
    ("assert isinstance(P(), P)", "class P: pass"),
    ("assert V(1) < V(2) and 1 in V(1)",
     "class V:\n    def __init__(s, x): s.x = x\n    def __lt__(s, o): return s.x < o.x\n"
     "    def __contains__(s, x): return s.x == x"),
    ("assert abs(f() - 2) < 0.1 and f() in (1, 2)",
     "import enum\nclass E(enum.IntEnum):\n    A = 2\ndef f(): return E.A"),
    ("s = S()\ns.push(1)\nassert len(s) == 1 and s.pop() == 1 and len(s) == 0",
     "class S(list):\n    def push(s, x): s.append(x)"),
    ("assert f() == {1: (2, 3), 'x': {4}, None: b'5', 1.5: 2 + 3j}",
     "def f(): return {1: (2, 3), 'x': {4}, None: b'5', 1.5: 2 + 3j}"),
    ("assert f() == 2 ** 5000 and f() != 2 ** 5000 + 1", "def f(): return 2 ** 5000"),
    ("x = f()\nassert x != x and str(x) == 'nan'", "def f(): return float('nan')"),
    ("assert f([1, 2]) == {1: 2, 2: 1}", "from collections import Counter\n"
     "def f(a): return Counter({1: 2, 2: 1})"),
    ("with f() as x:\n    assert x == 1",
     "class f:\n    def __enter__(s): return 1\n    def __exit__(s, *a): pass"),
    ("assert math.floor(f()) == 1", "import math\ndef f(): return 1.5"),
    ("assert f([1, 'a'], int) == [1]",
     "def f(a, kind): return [x for x in a if isinstance(x, kind)]"),
    ("assert f(1) is int and f('') is str", "def f(a): return type(a)"),
    ("assert f.__name__ == 'f'", "def f(): pass"),
    ("n = N(N(None))\nassert depth(n) == 2",
     "class N:\n    def __init__(s, c): s.c = c\n"
     "def depth(n): return 0 if n is None else 1 + depth(n.c)"),
]  # fmt: skip


@pytest.mark.parametrize(("tests", "source"), SIDES)
def test_objects_on_the_other_side_behave_as_if_they_were_here(tests, source):
    assert passes(source, [tests]), why(source, [tests])


def test_a_script_has_one_result_for_each_of_its_test_functions():
    script = (
        "def test_one():\n    assert add(1, 1) == 2\n\ndef test_two():\n    assert add(1, 1) == 3\n"
    )
    assert run_tests(GOOD, [script]).passed == (True, False)
    check = "def check(candidate):\n    assert candidate(1, 1) == 2\n"
    assert run_tests(GOOD, [check], entry_point="add").passed == (True,)
    assert not passes("def other(): pass", [check], entry_point="add")


def test_arguments_with_expected_values_are_tests():
    cases = [{"args": [1, 2], "expected": 3}, {"args": [2, 2], "expected": 5}]
    assert run_tests(GOOD, cases, entry_point="add").passed == (True, False)
    pairs = [{"args": [], "expected": [[1, 2]]}]
    assert passes("def f(): return [(1, 2)]", pairs, entry_point="f")
    assert passes("def f():\n    yield [1, 2]", pairs, entry_point="f")


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        (["assert add(1,"], "do not parse"),
        (["assert 1 == 2"], "without asking the solution"),
        (["assert 1 == 1"], "never asks the solution"),
        (["def check(candidate):\n    assert candidate(1, 1) == 2"], "never asks the solution"),
        (["import no_such_module\nassert add(1, 2) == 3"], "No module named 'no_such_module'"),
        (["class T: pass\nassert add(T(), 2) == 3"], "pass a T"),
    ],
)
def test_tests_that_are_broken_are_no_judgement(tests, said):
    report = run_tests(GOOD, tests, limits=SHORT)
    assert report.broken is not None
    assert re.search(said, report.broken)


def test_a_name_of_the_solution_makes_no_test_of_what_is_none():
    check = "def check(candidate):\n    assert candidate(1, 1) == 2"
    assert run_tests(GOOD + "candidate = 3", [check], limits=SHORT).broken is not None
    assert passes("LIMIT = 3", ["assert LIMIT == 3"])


def test_tests_that_hang_end_in_time():
    began = time.monotonic()
    report = run_tests(GOOD, ["add(1, 2)\nwhile True: pass"], limits=SHORT)
    assert "time-out" in (report.failed or "")
    assert time.monotonic() - began < 15


def test_many_run_at_once_and_each_has_its_own_result():
    reports = {}

    def one(i: int) -> None:
        reports[i] = run_tests(f"def add(a, b): return {i}", [f"assert add(1, 2) == {i % 3}"])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i for i, r in reports.items() if r.passed == (True,)} == {0, 1, 2}


def test_this_process_is_as_it_was():
    before = os.getcwd(), dict(os.environ), list(sys.path)
    passes(HACKS["patches equality's friends"])
    assert (os.getcwd(), dict(os.environ), list(sys.path)) == before
