"""Run a program that nobody trusts against tests, and believe only what the tests saw.

Two processes. The solution runs in one, confined; the tests run in the other, and reach the
solution's functions by messages that carry plain data. What the solution prints, patches, raises
or exits with changes nothing in the process that judges.

wire      messages between the two: plain data and references, nothing that executes
confine   what the solution's process may do: limits, namespaces, file and system-call filters
solution  the confined side: loads the program and answers calls
handles   how the tests see what lives on the other side
line      questions from the tests to the solution, and its answers
tester    the judging side: starts the other, runs the tests, reports
run       from the trainer: start a tester, wait, kill, read its report

Everything but `run` is of the standard library alone, so that a process starts in milliseconds.
"""
