"""What axe-core finds in the page that is open: rules of accessibility that it breaks."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec

from tests.web.chromium import Browser

SERIOUS = ("serious", "critical")
_RUN = """
const done = arguments[arguments.length - 1];
const about = (node) => `${node.html.slice(0, 200)} ${node.any[0]?.message ?? ""}`;
axe.run(document, { resultTypes: ["violations"] }).then(
  (found) => done(found.violations.map((v) => [v.impact, v.id, v.nodes.slice(0, 4).map(about)])),
  (error) => done([["critical", "axe failed", [String(error)]]]),
);
"""


def why_no_axe() -> str | None:
    """Say what is missing for axe; None where nothing is."""
    return None if find_spec("axe_core_python") else "axe-core-python is not installed"


def broken_rules(browser: Browser, impacts: tuple[str, ...] = SERIOUS) -> list[str]:
    """The rules of these impacts that the open page breaks, each with where."""
    browser.driver.execute_script((files("axe_core_python") / "axe.min.js").read_text())
    found = browser.driver.execute_async_script(_RUN)
    return [f"{rule}: {nodes}" for impact, rule, nodes in found if impact in impacts]
