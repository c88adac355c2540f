"""Checkers of text: what counts as right, wrong, and as no judgement."""

import pytest
from tests.contracts.feedback_samples import item

from heed.errors import ConfigError
from heed.feedback.checkers import (
    CheckerScorer,
    Choice,
    Exact,
    Json,
    Numeric,
    Regex,
    Tags,
    load_checker,
)
from heed.feedback.resolve import load_scorer, load_scorers

NUMERIC = [
    # completion, reference, right
    ("So she makes 18 dollars.", "18", 1),
    ("#### 18", "18", 1),
    ("#### 19", "18", 0),
    ("It is 19.\n#### 18\n", "18", 1),
    ("#### 18\n#### 19", "18", 0),
    ("The answer is 18 because 3 + 5 * 3 = 18, not 20.", "18", 1),
    ("The answer is 20. I first thought of 18", "18", 0),
    ("answer: 3 + 15 = 18", "18", 1),
    ("5 + 13 = 18", 18, 1),
    ("$1,234,567.00", "1234567", 1),
    ("1'234'567", 1234567, 1),
    ("1_234_567", 1234567, 1),
    ("1\u202f234\u202f567", 1234567, 1),
    ("1{,}234", 1234, 1),
    (r"\boxed{1\,234}", 1234, 1),
    (r"\boxed{\frac{3}{4}}", "0.75", 1),
    (r"\boxed{\dfrac34}", "3/4", 1),
    (r"\boxed{-\frac{3}{4}}", "-0.75", 1),
    (r"\boxed{x = \frac{6}{8}}", "3/4", 1),
    (r"$\boxed{\text{18 dollars}}$", "18", 1),
    (r"\boxed{17} and then \boxed{18}", "18", 1),
    (r"\boxed{18} and then \boxed{17}", "18", 0),
    ("¾", 0.75, 1),
    ("1½", 1.5, 1),
    ("1 1/2", 1.5, 1),
    ("2 3/4 cups", "2.75", 1),
    ("-5", -5, 1),
    ("−5", -5, 1),
    ("-$5", -5, 1),
    ("$-5", -5, 1),
    ("5", -5, 0),
    ("10-5", 5, 1),
    ("x = -5", -5, 1),
    (".5", "0.5", 1),
    ("0.50", "1/2", 1),
    ("1.2e3", 1200, 1),
    ("1.2 × 10^3", 1200, 1),
    (r"1.2 \times 10^{3}", 1200, 1),
    ("1.2 x 10³", 1200, 0),  # a letter is no sign of multiplication
    ("1.2 · 10³", 1200, 1),
    ("10^{-2}", "0.01", 1),
    ("3E-2", 0.03, 1),
    ("2 million people", 2_000_000, 1),
    ("2.5 thousand", 2500, 1),
    ("50%", "0.5", 1),
    ("50%", "50", 1),
    ("50 percent", "50%", 1),
    ("0.5", "50%", 1),
    ("51%", "50%", 0),
    ("3/4/2020", "2020", 1),
    ("1/0", "0", 0),
    ("H2O", 2, 0),
    ("version 3.4.5", 3.4, 1),
    ("no number here", 18, 0),
    ("", 18, 0),
    ("eighteen", 18, 0),
    ("<think>18</think> 19", 18, 0),
    ("<think>19</think> 18", 18, 1),
    ("<think>it is 18", 18, 0),
    ("<answer>18</answer> or 19", 18, 1),
    ("<answer>18 apples</answer>", "18", 1),
    ("<answer></answer> 18", "18", 0),
    ("99999999999999999999999999999999", "99999999999999999999999999999998", 0),
    ("0.1", 0.1, 1),
    ("0.3", 0.1 + 0.2, 1),
    ("0.3333", "1/3", 0),
    ("A: 18", "18", 1),
    ("**Answer:** 18", "18", 1),
    ("The final answer is: **18**", "18", 1),
    ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19", "18", 0),
    ("18", ["17", "18"], 1),
    ("16", ["17", "18"], 0),
    ("18", "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9.\n#### 18", 1),
    ("9", "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9.\n#### 18", 0),
    ("It costs $18.", "$18.00", 1),
    ("1e400000000", 1, 0),
]


@pytest.mark.parametrize(("text", "answer", "value"), NUMERIC)
def test_numeric(text, answer, value):
    verdict = Numeric().judge(text, {"answer": answer})
    assert verdict.value == value, verdict


@pytest.mark.parametrize("answer", ["many", "3 or 4", "", [], True, float("nan")])
def test_a_reference_that_is_no_number_is_no_judgement(answer):
    verdict = Numeric().judge("18", {"answer": answer})
    assert verdict.value is None
    assert "no number" in verdict.reason


@pytest.mark.parametrize(
    ("settings", "text", "answer", "value"),
    [
        ({"relative": 0.01}, "3.14", 3.14159, 1),
        ({"relative": 0.0001}, "3.14", 3.14159, 0),
        ({"absolute": 0.5}, "18.5", 18, 1),
        ({"absolute": 0.5}, "18.6", 18, 0),
        ({"percent": "fraction"}, "50%", 50, 0),
        ({"percent": "fraction"}, "50%", 0.5, 1),
        ({"percent": "unit"}, "50%", 0.5, 0),
        ({"percent": "unit"}, "50%", 50, 1),
        ({"units": "require"}, "It is 5 km.", "5 km", 1),
        ({"units": "require"}, "It is 5 miles.", "5 km", 0),
        ({"units": "require"}, "It is 5 km on foot.", "5 km", 1),
        ({"units": "require"}, "It is 5.", "5 km", 0),
        ({"units": "require"}, "It is 5 km.", "5", 1),
        ({"where": "hashes"}, "18", 18, 0),
        ({"where": "hashes"}, "#### 18", 18, 1),
        ({"where": "boxed"}, "#### 18", 18, 0),
        ({"where": "last"}, "#### 18 or 19", 18, 0),
        ({"where": "last"}, "#### 19 or 18", 18, 1),
        ({"decimal": ","}, "3,5", 3.5, 1),
        ({"decimal": ","}, "1.234,5", 1234.5, 1),
        ({"answer": "target"}, "18", 18, None),
    ],
)
def test_settings_of_numeric(settings, text, answer, value):
    [found] = Numeric(**settings).judge_all([text], [{"answer": answer}])
    assert found.value == value, found


EXACT = [
    ("Paris", "Paris", 1),
    ("paris.", "Paris", 1),
    ("The answer is Paris.", "paris", 1),
    ("The answer is: the Eiffel Tower!", "Eiffel Tower", 1),
    ("PARIS", "Lyon", 0),
    ("Paris or Lyon", "Paris", 0),
    ("not Paris", "Paris", 0),
    (r"\boxed{\text{Paris}}", "Paris", 1),
    (r"$\boxed{\mathbf{x^{2}}}$", "x^2", 1),
    ("x²", "x^2", 1),
    ("x2", "x^2", 0),
    ("“Paris”", "Paris", 1),
    ("**Paris**", "Paris", 1),
    ("ﬁve", "five", 1),
    ("Straße", "STRASSE", 1),
    ("1,234", "1234", 1),
    ("3.0", "3", 1),
    ("3.5", "35", 0),
    ("10:30", "1030", 0),
    ("don't", "dont", 0),
    ("don’t", "don't", 1),
    ("] ) }", "])}", 1),
    ("] )", "] ) }", 0),
    ("(A)", "(A)", 1),
    ("(A)", "(B)", 0),
    ("a", "the", 0),
    (".", ",", 0),
    ("True", "true", 1),
    ("5!", "5", 0),
    ("5 km", "5 m", 0),
    ("5", "5 km", 0),
    ("50%", "50", 0),
    ("", "Paris", 0),
    ("<think>Paris</think>", "Paris", 0),
    ("<think>Lyon</think>\nParis", "Paris", 1),
    ("<answer> Paris </answer>", "Paris", 1),
    ("#### Paris", "Paris", 1),
    ("Answer: no", "No", 1),
    ("So the answer is no.", ["no", "false"], 1),
    ("So the answer is false.", ["no", "false"], 1),
    ("plan A", "plan B", 0),
    ("New\u00a0York", "New York", 1),
    ("New\u200b York", "New York", 1),
    ("1/2", r"\frac{1}{2}", 1),
    (r"\left( 1, 2 \right)", "(1, 2)", 1),
    ("(1, 2)", "(12)", 0),
    ("barn damp delmarva", "barn delmarva damp", 0),
]


@pytest.mark.parametrize(("text", "answer", "value"), EXACT)
def test_exact(text, answer, value):
    verdict = Exact().judge(text, {"answer": answer})
    assert verdict.value == value, verdict


@pytest.mark.parametrize(
    ("settings", "text", "answer", "value"),
    [
        ({"case": True}, "paris", "Paris", 0),
        ({"articles": True}, "the Swan", "Swan", 0),
        ({"punctuation": True}, "Swan.", "Swan", 0),
        ({"numbers": False}, "3.0", "3", 0),
        ({"where": "tag"}, "Paris", "Paris", 0),
        ({"where": "whole"}, "The answer is Paris", "Paris", 0),
    ],
)
def test_settings_of_exact(settings, text, answer, value):
    assert Exact(**settings).judge(text, {"answer": answer}).value == value


CITIES = ["Paris", "Lyon", "New York", "York"]
CHOICE = [
    # completion, answer, choices, right
    ("A", "A", CITIES, 1),
    ("a", "A", CITIES, 1),
    ("(A)", "A", CITIES, 1),
    ("A.", "(A)", CITIES, 1),
    ("A) Paris", "A", CITIES, 1),
    ("(A) Paris", "A", CITIES, 1),
    ("**A**", "A", CITIES, 1),
    ("Paris", "A", CITIES, 1),
    ("the answer is Paris.", "A", CITIES, 1),
    ("The answer is A.", "A", CITIES, 1),
    ("The answer is (A).", "A", CITIES, 1),
    ("The correct option is A", "A", CITIES, 1),
    ("Answer: A. Paris", "A", CITIES, 1),
    (r"\boxed{A}", "A", CITIES, 1),
    (r"\boxed{\text{(A)}}", "A", CITIES, 1),
    ("<answer>A</answer>", "A", CITIES, 1),
    ("I think it is Paris", "A", CITIES, 1),
    ("I think it is New York", "C", CITIES, 1),
    ("I think it is York", "C", CITIES, 0),
    ("York", "D", CITIES, 1),
    ("A", "B", CITIES, 0),
    ("Lyon", "A", CITIES, 0),
    ("A or B", "A", CITIES, 0),
    ("The answer is A or B.", "A", CITIES, 0),
    ("The answer is A, B, C or D.", "A", CITIES, 0),
    ("(A) (B) (C) (D)", "A", CITIES, 0),
    ("A. B. C. D.", "A", CITIES, 0),
    ("A\nB\nC\nD", "A", CITIES, 0),
    ("Paris or Lyon", "A", CITIES, 0),
    ("A) Lyon", "A", CITIES, 0),
    ("A) Lyon", "B", CITIES, 0),
    ("The answer is a city.", "A", CITIES, 0),
    ("A city in France", "A", CITIES, 0),
    ("E", "A", CITIES, 0),
    ("", "A", CITIES, 0),
    ("I do not know.", "A", CITIES, 0),
    ("Option B is wrong. So the answer is (A).", "A", CITIES, 1),
    ("(B) is wrong, so (A)", "A", CITIES, 0),
    ("<think>A</think> B", "A", CITIES, 0),
    ("A", 0, CITIES, 1),
    ("B", 0, CITIES, 0),
    ("A", "Paris", CITIES, 1),
    ("Lyon", "Lyon", CITIES, 1),
    ("B", "b", {"A": "x", "B": "y"}, 1),
    ("y", "B", {"A": "x", "B": "y"}, 1),
    ("B", "B", {"text": ["x", "y"], "label": ["A", "B"]}, 1),
    ("(B)", "(B)", None, 1),
    ("So the answer is (B).", "(B)", None, 1),
    ("So the answer is (B) and (C).", "(B)", None, 0),
    ("(C)", "(B)", None, 0),
    ("Because of that, option B fits", "B", None, 1),
]


@pytest.mark.parametrize(("text", "answer", "choices", "value"), CHOICE)
def test_choice(text, answer, choices, value):
    verdict = Choice().judge(text, {"answer": answer, "choices": choices})
    assert verdict.value == value, verdict


@pytest.mark.parametrize(("answer", "choices"), [("E", CITIES), (9, CITIES), ("Rome", CITIES)])
def test_a_right_option_that_is_none_is_no_judgement(answer, choices):
    assert Choice().judge("A", {"answer": answer, "choices": choices}).value is None


@pytest.mark.parametrize(
    ("checker", "text", "value"),
    [
        (Regex(pattern=r"\d+"), "12", 1),
        (Regex(pattern=r"\d+"), "12a", 0),
        (Regex(pattern=r"\d+", match="search"), "a12a", 1),
        (Regex(pattern=r"\d+", match="start"), "12a", 1),
        (Regex(pattern="yes", ignore_case=True), "YES", 1),
        (Regex(pattern="a.*b"), "a\nb", 1),
        (Regex(pattern="a*", max_characters=5), "a" * 6, 0),
        (Tags(), "<think>hm</think><answer>4</answer>", 1),
        (Tags(), "<think>hm</think>\n\n<answer>4</answer>\n", 1),
        (Tags(), "<answer>4</answer><think>hm</think>", 0),
        (Tags(), "<think>hm</think><answer>4</answer><answer>5</answer>", 0),
        (Tags(), "<think>hm</think><answer>4", 0),
        (Tags(), "<think></think><answer>4</answer>", 0),
        (Tags(empty=True), "<think></think><answer>4</answer>", 1),
        (Tags(), "so <think>hm</think><answer>4</answer>", 0),
        (Tags(outside=True), "so <think>hm</think><answer>4</answer>", 1),
        (Tags(), "<think><answer>4</answer></think>", 0),
        (Tags(partial=True), "<think>hm</think>4", 0.5),
        (Tags(partial=True), "4", 0),
        (Json(), '{"a": 1}', 1),
        (Json(), "[1, 2]", 1),
        (Json(), '```json\n{"a": 1}\n```', 1),
        (Json(fence=False), '```json\n{"a": 1}\n```', 0),
        (Json(), '{"a": 1} and', 0),
        (Json(), '{"a": NaN}', 0),
        (Json(), '{"a": 1, "a": 2}', 0),
        (Json(), "[" * 100_000, 0),
        (Json(), "", 0),
        (Json(keys="a+b"), '{"a": 1, "b": null}', 1),
        (Json(keys="a+b"), '{"a": 1}', 0),
        (Json(kind="object"), "[]", 0),
        (Json(kind="array"), "[]", 1),
    ],
)
def test_form(checker, text, value):
    assert checker.judge(text, {}).value == value


def test_a_word_makes_a_checker_with_its_settings():
    checker = load_checker("check:numeric:relative=0.01:answer=target:name=near")
    assert checker == Numeric(relative=0.01, answer="target", name="near")
    assert load_checker(r"check:regex:pattern=\d+:\d+") == Regex(pattern=r"\d+:\d+")
    assert load_scorer("check:exact").name == "exact"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("check:numerik", "did you mean check:numeric"),
        ("check:numeric:relativ=1", "the nearest is 'relative'"),
        ("check:numeric:relative=x", "relative: Input should be a valid number"),
        ("check:numeric:relative=1:relative=2", "set twice"),
        ("check:numeric:where=nowhere", "where: Input should be"),
        ("check:regex:pattern=(", "is no pattern"),
        ("check:tags:tags=a+a", "different names"),
    ],
)
def test_a_wrong_word_says_what_is_right(word, said):
    with pytest.raises(ConfigError, match=said):
        load_checker(word)


def test_a_scorer_keeps_wrong_apart_from_not_judged():
    scorer = CheckerScorer(Numeric())
    scores = scorer.score(
        [
            item("1 + 1?", "2", answer="2"),
            item("1 + 1?", "3", answer="2"),
            item("1 + 1?", "two", answer="2"),
            item("1 + 1?", "2", answer="a lot"),
            item("1 + 1?", "2"),
            item("1 + 1?", "2", answer="2", error="gone"),
        ]
    )
    assert [score.value for score in scores] == [1.0, 0.0, 0.0, None, None, None]
    assert [score.parts for score in scores[:3]] == [{"found": 1.0}, {"found": 1.0}, {"found": 0.0}]
    assert scores[1].reason == "last: 3, not 2"
    assert "no number" in scores[3].error
    assert scores[4].error == "does not apply: the row has no answer"
    assert "gone" in scores[5].error


def test_a_column_that_no_row_has_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match=r"reads the column 'answer'.*columns \['truth'\]"):
        CheckerScorer(Numeric()).score([item("1 + 1?", "2", truth="2")])


def test_a_sum_leaves_out_the_checker_whose_column_a_row_lacks():
    scorer = load_scorers(["check:numeric", "check:exact:answer=word"], [1.0, 2.0])
    one, other = scorer.score([item("?", "2", answer="2"), item("?", "two", word="two")])
    assert (one.value, other.value) == (1.0, 2.0)


def test_a_checker_is_a_reward_function_of_trls_signature():
    checker = Numeric()
    assert checker.__name__ == "numeric"
    kwargs = {"prompts": ["a", "b", "c"], "completion_ids": [[1], [2], [3]], "trainer_state": None}
    chat = [[{"role": "assistant", "content": text}] for text in ("2", "3", "4")]
    assert checker(completions=chat, answer=["2", "2", None], **kwargs) == [1.0, 0.0, None]
    assert checker(completions=["2", "3", "4"], answer=["2", "3", "x"], **kwargs) == [1, 1, None]
