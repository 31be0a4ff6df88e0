"""`loadstone doctor`: what this host offers, and what to do about what is missing."""

from __future__ import annotations

import json

from loadstone.cli.parser import Parser

_ABOUT = """\
Look at this host: what Loadstone needs, what it can use, and what to do about
what is missing. Changes nothing and runs no program.
"""
_EXAMPLES = """\
Examples:
  loadstone doctor
  loadstone doctor --json

Exit status: 0 when programs can be run here, 1 when something is missing that
is needed.
"""


def main(argv: list[str]) -> int:
    """Run the command; the exit status."""
    made = Parser("doctor", "[--json]", _ABOUT, _EXAMPLES)
    made.group("Output")("--json", action="store_true", help="the findings as JSON")
    options = made.parse_args(argv)
    from loadstone.cli.main import output
    from loadstone.report.doctor import MISSING, examine, print_findings

    findings = examine()
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        print_findings(findings, output())
    return 1 if any(finding.state == MISSING for finding in findings) else 0
