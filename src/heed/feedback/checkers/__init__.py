"""Checkers: rewards that a program can verify, without a model and without people.

base      what a checker is: text and row in, value, reason and parts out; and the scorer of one
words     `check:numeric:relative=0.01` -> a checker
extract   where in a text its final answer stands
normalise texts that say the same become one text
numbers   a number in any of its spellings -> an exact fraction
exact     the answer is one of the accepted texts
numeric   the answer is the number
choice    the answer is the option
form      the text has a form: a pattern, tags, JSON
code      the program passes its tests (run by `heed.feedback.sandbox`)
"""

from heed.feedback.checkers.base import Checker, CheckerScorer, Verdict
from heed.feedback.checkers.choice import Choice
from heed.feedback.checkers.code import PythonTests
from heed.feedback.checkers.exact import Exact
from heed.feedback.checkers.form import Json, Regex, Tags
from heed.feedback.checkers.numeric import Numeric
from heed.feedback.checkers.words import load_checker

__all__ = [
    "Checker",
    "CheckerScorer",
    "Choice",
    "Exact",
    "Json",
    "Numeric",
    "PythonTests",
    "Regex",
    "Tags",
    "Verdict",
    "load_checker",
]
