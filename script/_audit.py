"""Runs pip-audit, which takes a package that it cannot look up for one without faults; this does
not."""

import json
import subprocess
import sys

UNREACHED = 3
SECONDS = 120


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--requirement", "requirements.txt"]
    command += ["--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off"]
    command += ["--timeout", "10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"NOT CHECKED: no answer within {SECONDS} s.")
        return UNREACHED
    except (ValueError, KeyError):
        print(f"NOT CHECKED: pip-audit could not work:\n{done.stderr.strip()[-1000:]}")
        return UNREACHED
    faults = [
        f"{one['name']} {one['version']}: {fault['id']}, mended in"
        f" {', '.join(fault['fix_versions']) or 'no version yet'}"
        for one in found
        for fault in one.get("vulns", ())
    ]
    print("\n".join(faults) or "No known vulnerability in what was looked up.")
    skipped = [one["name"] for one in found if "skip_reason" in one]
    if skipped:
        print(f"NOT CHECKED: {len(skipped)} of {len(found)}: {', '.join(skipped)}.")
    if faults:
        return 1
    return UNREACHED if skipped or not found else 0


if __name__ == "__main__":
    sys.exit(main())
