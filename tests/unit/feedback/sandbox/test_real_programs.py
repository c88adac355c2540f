"""Public programs with tests: right ones pass, broken ones do not."""

import ast
import re
from random import Random

import pytest

from heed.data.exchange import read_rows
from heed.feedback.checkers import PythonTests

CHECKER = PythonTests(seconds=10, wall_seconds=60.0, memory_mb=2048)
QUICK = PythonTests(seconds=1, wall_seconds=10.0)


def rows_of(path):
    return [row for _, row in read_rows(path)]


def mutated(source: str, rng: Random) -> str | None:
    """Change one comparison, operator or number of a program; None where it has none."""
    tree = ast.parse(source)
    swaps = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Lt: ast.GtE, ast.Gt: ast.LtE,
             ast.Eq: ast.NotEq, ast.Mult: ast.Add, ast.NotEq: ast.Eq, ast.LtE: ast.Gt,
             ast.GtE: ast.Lt}  # fmt: skip
    places = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and type(node.op) in swaps:
            places.append((node, "op"))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in swaps:
            places.append((node, "ops"))
        elif isinstance(node, ast.Return) and node.value is not None:
            places.append((node, "value"))
    if not places:
        return None
    node, what = rng.choice(places)
    if what == "op":
        node.op = swaps[type(node.op)]()
    elif what == "ops":
        node.ops[0] = swaps[type(node.ops[0])]()
    else:
        node.value = ast.Constant("no answer")
    return ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_humaneval(shared_data, every):
    rows = rows_of(shared_data / "humaneval/HumanEval.jsonl.gz")[::every]
    rows = [{**row, "tests": row["test"]} for row in rows]
    texts = [f"Here it is.\n```python\n{r['prompt']}{r['canonical_solution']}```" for r in rows]
    bodies = [r["canonical_solution"] for r in rows]
    assert {v.value for v in CHECKER.judge_all(texts, rows)} == {1.0}
    continued = CHECKER.model_copy(update={"prefix": "prompt"})
    assert {v.value for v in continued.judge_all(bodies[:4], rows[:4])} == {1.0}
    hollow = [
        re.sub(r"(?m)^( +)return .*", r"\1return None", r["prompt"]) + "    pass" for r in rows
    ]
    assert {v.value for v in QUICK.judge_all(hollow, rows)} == {0.0}


@pytest.mark.parametrize("every", [40, pytest.param(4, marks=pytest.mark.slow)])
def test_mbpp_programs_pass_and_most_mutants_do_not(shared_data, every):
    rows = rows_of(shared_data / "mbpp/mbpp.jsonl.xz")[::every]
    rows = [{**r, "tests": r["test_list"], "setup": r["test_setup_code"]} for r in rows]
    verdicts = CHECKER.judge_all([row["code"] for row in rows], rows)
    assert [v for v in verdicts if v.value != 1.0] == []
    rng = Random(0)
    mutants = [(mutated(row["code"], rng), row) for row in rows]
    mutants = [(code, row) for code, row in mutants if code is not None]
    found = QUICK.judge_all([code for code, _ in mutants], [row for _, row in mutants])
    # Some changes leave a program as it was, and three asserts do not see every fault.
    assert None not in {v.value for v in found}
    assert sum(v.value == 0.0 for v in found) > 0.8 * len(found)


@pytest.mark.parametrize("which", ["correct", "buggy"])
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_quixbugs(shared_data, which, every):
    rows = rows_of(shared_data / "quixbugs/quixbugs_python.jsonl.xz")
    # These three need more time or memory than others, or are right only to a tolerance.
    hard = {"knapsack", "levenshtein", "sqrt"} if which == "correct" else set()
    some = [r for r in rows if r["testcases"] and r["name"] not in hard][::every]
    tests = [{"tests": r["testcases"], "entry_point": r["name"]} for r in some]
    verdicts = QUICK.judge_all([r[which] for r in some], tests)
    assert {v.value for v in verdicts} == {float(which == "correct")}


@pytest.mark.parametrize("which", ["correct", "buggy"])
def test_graph_programs_of_quixbugs_are_tested_through_their_own_nodes(shared_data, which):
    rows = {r["name"]: r for r in rows_of(shared_data / "quixbugs/quixbugs_python.jsonl.xz")}
    heads = r"(?m)^import pytest\n|^from node import Node\n|^if pytest[^\n]*\n +.*\nelse:\n +.*\n"
    some = [r for r in rows.values() if r["pytest"] and not r["testcases"]]
    texts = [f"{rows['node']['correct']}\n{r[which]}" for r in some]
    tests = [{"tests": re.sub(heads, "", r["pytest"])} for r in some]
    verdicts = QUICK.judge_all(texts, tests)
    assert {v.value for v in verdicts} == {float(which == "correct")}
    assert len(some) == 9
