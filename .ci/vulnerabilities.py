"""Say what an audit of dependencies by pip-audit has found; a known vulnerability is an error.

Where the index does not answer, nothing can be said.
"""

import json
import sys
from pathlib import Path


def main(audit: Path) -> None:
    """Print the number of findings, and end with them.

    Args:
        audit: What pip-audit has written as JSON; missing or empty if the index did not answer.
    """
    if not audit.is_file() or not audit.stat().st_size:
        print("Vulnerabilities: the index did not answer, so nothing was audited.")  # noqa: T201
        return
    found = json.loads(audit.read_text(encoding="utf-8"))["dependencies"]
    audited = [one for one in found if "skip_reason" not in one]
    bad = [f"{one['name']} {one['version']}: {vuln['id']}" for one in audited for vuln in one["vulns"]]
    print(f"Vulnerabilities: {len(audited)} of {len(found)} dependencies audited, {len(bad)} findings.")  # noqa: T201
    sys.exit("\n".join(bad) or None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
