"""Makes the virtual environment, installs a requirements file, prints the environment's Python.

Runs on the system's Python with nothing but the standard library. Does nothing when the file is
unchanged since the last time; heals what an interrupted run left. Exits 1 with one sentence.

Usage: python3 script/_venv.py requirements.txt. SPYGLASS_VENV moves it away from `.venv`.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("SPYGLASS_VENV") or PROJECT / ".venv").absolute()
PYTHON = VENV / "bin" / "python"
INSTALLING = (
    VENV / "spyglass-installing"
)  # there while pip works: a killed pip leaves half packages
LOG = VENV / "spyglass-pip.log"


def main() -> None:
    requirements = PROJECT / sys.argv[1]
    lock = os.open(PROJECT / "script", os.O_RDONLY)  # two scripts started at once take turns
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        if not usable():
            make()
        if not all(is_installed(file) for file in files(requirements)):
            install(requirements)
            for file in files(requirements):
                stamp(file).write_text(digest(file))
    except OSError as error:
        sys.exit(f"{VENV} cannot be written: {error}. Set SPYGLASS_VENV to another folder.")
    print(PYTHON)


def files(requirements: Path) -> list[Path]:
    """A requirements file and those it includes."""
    included = re.findall(r"^-r\s+(\S+)", requirements.read_text(), re.MULTILINE)
    found = [files(requirements.parent / name) for name in included]
    return [requirements, *(file for several in found for file in several)]


def stamp(requirements: Path) -> Path:
    """Holds the digest of the file as it was last installed."""
    return VENV / f"spyglass-{requirements.name}.sha256"


def digest(requirements: Path) -> str:
    return hashlib.sha256(requirements.read_bytes()).hexdigest()


def is_installed(requirements: Path) -> bool:
    found = stamp(requirements)
    return found.exists() and found.read_text() == digest(requirements)


def usable() -> bool:
    """Whether the environment is whole: a Python that starts, with pip, and no broken install."""
    if INSTALLING.exists() or not PYTHON.exists():
        return False
    code = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode == 0


def make() -> None:
    say(f"making the virtual environment {VENV} …")
    if VENV.exists():
        if not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
            sys.exit(f"{VENV} is not a virtual environment: move it away, or set SPYGLASS_VENV.")
        shutil.rmtree(VENV)
    command = [sys.executable, "-m", "venv", str(VENV)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        output = result.stdout + result.stderr
        if "ensurepip" in output or "No module named venv" in output:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            sys.exit(
                f"{sys.executable} has no venv module: install it (Debian and Ubuntu: apt-get "
                f"install python{version}-venv) and run this again."
            )
        sys.exit(f"The virtual environment could not be made: {last_line(output)}")


def install(requirements: Path) -> None:
    say(f"installing {requirements.name} (the first time takes about a minute) …")
    INSTALLING.touch()
    pip = [str(PYTHON), "-m", "pip", "install", "--prefer-binary", "--no-input"]
    with LOG.open("w") as log:
        result = subprocess.run(
            [*pip, "--disable-pip-version-check", "-r", str(requirements)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    INSTALLING.unlink()  # pip ended by itself, so it left no half package
    if result.returncode:
        sys.exit(f"{reason(LOG.read_text())} (log: {LOG})")


def reason(output: str) -> str:
    """One sentence out of what pip wrote."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    built = re.search(r"Failed (?:to build|building wheel for) '?([\w.-]+)", output)
    unbuilt = ("metadata-generation-failed", "Getting requirements to build wheel did not run")
    if built or any(text in output for text in unbuilt):
        taken = re.findall(r"^(?:Collecting|Processing) (?:\S*/)?([\w.-]+)", output, re.MULTILINE)
        package = built[1] if built else taken[-1] if taken else "A package"
        return (
            f"{package} has no ready-made wheel for Python {version} here and could not be "
            "compiled: use Python 3.11 to 3.13, or install a C compiler (Debian and Ubuntu: "
            "apt-get install build-essential python3-dev)"
        )
    if "No space left on device" in output:
        return f"The disk is full: {VENV} needs about 700 MB"
    missing = re.search(r"No matching distribution found for (\S+)", output)
    offline = re.search(r"NewConnectionError|Name or service|timed out|ProxyError", output)
    if offline:
        return "The package index cannot be reached: check the network (or PIP_INDEX_URL)"
    if missing:
        return f"{missing[1]} does not exist for Python {version} on this platform"
    return f"pip failed: {last_line(output)}"


def last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["it wrote nothing"])[-1]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
