"""What a newcomer types: script/server, script/test, script/bench, manage.py, and their errors."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from bench.harness import free_port
from config.embedded import PostgresServer, ValkeyServer
from tests.processes import kill_marked, marked, until

PROJECT = Path(__file__).resolve().parent.parent
SETTINGS = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "SPYGLASS_EMBEDDED", "ALLOWED_HOSTS"}
PLAIN = {name: value for name, value in os.environ.items() if name not in SETTINGS}


def run(command: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=PROJECT,
        env=PLAIN | environment,
        timeout=120,
        check=False,
    )


class Server:
    """A script/server in a var folder of its own, on this run's virtual environment."""

    def __init__(self, var: Path, **environment: str) -> None:
        self.var = var
        self.port = free_port()
        self.mark = uuid.uuid4().hex
        self.log = (var.parent / f"{self.mark}.log").open("w+")
        self.process = subprocess.Popen(
            ["script/server", "--port", str(self.port), "--no-demo", "--workers", "1"],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            cwd=PROJECT,
            start_new_session=True,
            env=PLAIN
            | {"SPYGLASS_VENV": sys.prefix, "SPYGLASS_VAR": str(var), "SPYGLASS_SPAWN": self.mark}
            | environment,
        )

    @property
    def output(self) -> str:
        return Path(self.log.name).read_text()

    def wait_for(self, text: str) -> None:
        until(
            lambda: text in self.output,
            lambda: self.output,
            seconds=90,
            process=self.process,
        )

    def get(self, path: str) -> tuple[int, bytes]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.status, answer.read()

    def is_live(self) -> bool:
        try:
            return self.get("/health/live")[0] == 200
        except OSError:
            return False

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0, self.output

    def pid_of(self, text: str) -> int:
        for pid in marked(self.mark):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if text in command:
                return pid
        raise AssertionError(f"no process {text!r}")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started = []

    def start(var: Path = tmp_path / "var", **environment: str) -> Server:
        var.parent.mkdir(parents=True, exist_ok=True)
        started.append(Server(var, **environment))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()
        kill_marked(server.mark)
        server.log.close()
        for left in (PostgresServer(server.var / "postgres"), ValkeyServer(server.var / "valkey")):
            left.stop()


@pytest.mark.slow
def test_server_from_nothing_to_ctrl_c_and_again(serve: Callable[..., Server]) -> None:
    first = serve()
    first.wait_for("Spyglass runs")
    assert re.search(r"Staff login: admin / \S{12,}", first.output)
    for name, path in [("API docs", "/api/docs"), ("Admin", "/admin/"), ("Metrics", "/metrics")]:
        assert re.search(rf"{name} +http://127.0.0.1:{first.port}{path}\n", first.output)
        assert first.get(path)[0] == 200
    assert first.get("/health/live")[0] == 200
    first.interrupt()
    assert marked(first.mark) == []
    assert PostgresServer(first.var / "postgres").pid is None

    began = time.monotonic()
    second = serve()
    second.wait_for("Spyglass runs")
    assert time.monotonic() - began < 30
    assert "Staff login" not in second.output
    assert "collecting" not in second.output
    with psycopg.connect(PostgresServer(second.var / "postgres").url) as connection:
        assert connection.execute("SELECT username FROM auth_user").fetchall() == [("admin",)]
    second.interrupt()


@pytest.mark.slow
def test_what_dies_comes_back_and_a_killed_server_leaves_the_port(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    server.wait_for("Spyglass runs")
    os.kill(server.pid_of("granian"), signal.SIGKILL)
    server.wait_for("web server ended (killed by SIGKILL) after ")
    os.kill(server.pid_of("manage.py worker"), signal.SIGKILL)
    server.wait_for("worker ended (killed by SIGKILL) after ")
    until(server.is_live, lambda: server.output)

    server.process.kill()
    until(lambda: not marked(server.mark), "the end of a killed server's parts")
    following = serve()
    following.wait_for("Spyglass runs")
    following.process.terminate()
    assert following.process.wait(60) == 0
    assert PostgresServer(following.var / "postgres").pid is None


@pytest.mark.slow
def test_server_on_given_servers(
    serve: Callable[..., Server], postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    server = serve(DATABASE_URL=postgres.url, REDIS_URL=valkey.url)
    server.wait_for("Spyglass runs")
    assert server.get("/admin/login/")[0] == 200  # no redirect to HTTPS
    server.interrupt()
    assert not (server.var / "postgres").exists()
    assert postgres.pid is not None


@pytest.mark.slow
def test_a_second_server_on_the_same_folder_says_where_the_first_is(
    serve: Callable[..., Server],
) -> None:
    first = serve()
    first.wait_for("starting embedded")
    second = serve()
    assert second.process.wait(60) == 1
    assert f"already runs here (process {first.process.pid}, " in second.output
    assert len(second.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--port", "{taken}"],
            "Port {taken} on 127.0.0.1 cannot be used (Address already in use)",
        ),
        (["--host", "0.0.0.0", "--port", "{free}"], "set ALLOWED_HOSTS to the names"),
        (["--host", "no.such.invalid"], "There is no address no.such.invalid"),
    ],
)
def test_a_bad_address_is_one_sentence(options: list[str], sentence: str, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        command = [sys.executable, "-m", "config.server"]
        result = run(
            [*command, *(option.format(taken=taken, free=free_port()) for option in options)],
            SPYGLASS_VAR=str(tmp_path / "var"),
        )
    assert result.returncode == 1
    assert sentence.format(taken=taken) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "var" / "postgres").exists()


def test_help_needs_no_virtual_environment(tmp_path: Path) -> None:
    result = run(["script/server", "--help"], SPYGLASS_VENV=str(tmp_path / "venv"))
    assert result.returncode == 0
    assert "--no-demo" in result.stdout
    assert not (tmp_path / "venv").exists()


@pytest.fixture
def old_python(tmp_path: Path) -> str:
    """A PATH on which every Python is 3.9."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "dirname", "grep", "ls", "sed", "paste"):
        (folder / tool).symlink_to(shutil.which(tool))
    (folder / "python3").write_text(
        '#!/bin/bash\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n'
    )
    (folder / "python3").chmod(0o755)
    return str(folder)


@pytest.mark.parametrize("script", ["server", "test"])
def test_an_old_python_is_one_sentence(script: str, old_python: str) -> None:
    result = run([f"{PROJECT}/script/{script}"], PATH=old_python)
    assert result.returncode == 1
    assert "needs Python 3.11 or later and found Python 3.9.2" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["no_such_thing"], ["../conftest"], ["__init__"]])
def test_an_unknown_benchmark_is_exit_code_2(arguments: list[str]) -> None:
    result = run(["script/bench", *arguments])
    assert result.returncode == 2
    assert "No benchmark named" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("argument", ["--version", "--help", "migrate --help"])
def test_manage_starts_nothing_to_print_help(argument: str, tmp_path: Path) -> None:
    var = tmp_path / "var"
    result = run([sys.executable, "manage.py", *argument.split()], SPYGLASS_VAR=str(var))
    assert result.returncode == 0
    assert not var.exists()


def test_an_interrupted_command_is_one_sentence() -> None:
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    result = run(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c", code],
        DATABASE_URL="postgresql://nobody@localhost:1/nothing",
        REDIS_URL="redis://localhost:1",
        SECRET_KEY="no secret",
        SPYGLASS_EMBEDDED="1",
    )
    assert (result.returncode, result.stderr) == (130, "Interrupted.\n")


def test_manage_without_django_says_what_to_do() -> None:
    result = run([sys.executable, "-S", "manage.py", "check"])
    assert result.returncode == 1
    assert "run script/server once" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


class Environment:
    """A copy of script/_venv.py that installs what the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "script").mkdir()
        shutil.copy(PROJECT / "script" / "_venv.py", folder / "script")
        self.requirements("")

    def requirements(self, text: str) -> None:
        (self.folder / "requirements.txt").write_text(text)

    def make(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        script = str(self.folder / "script" / "_venv.py")
        command = [sys.executable, script, "requirements.txt"]
        return run(command, **{"SPYGLASS_VENV": str(self.venv)} | environment)

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


@pytest.mark.slow
def test_environment_is_made_once_and_healed(environment: Environment) -> None:
    python = environment.venv / "bin" / "python"
    made = environment.make()
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"{python}\n"
    assert environment.make().stderr == ""

    environment.requirements("# changed\n")
    assert "making" not in (again := environment.make()).stderr
    assert "installing" in again.stderr

    (environment.venv / "spyglass-installing").touch()  # pip was killed
    assert "making" in environment.make().stderr
    python.unlink()  # the Python it was made with is gone
    assert "making" in environment.make().stderr
    assert environment.make().stderr == ""


def test_a_folder_of_something_else_is_left_alone(environment: Environment) -> None:
    environment.venv.mkdir()
    (environment.venv / "thesis.txt").write_text("mine")
    result = environment.make()
    assert result.returncode == 1
    assert "is not a virtual environment: move it away" in result.stderr
    assert (environment.venv / "thesis.txt").exists()


def test_a_missing_venv_module_is_one_sentence(environment: Environment) -> None:
    fake = environment.folder / "fake"
    fake.mkdir()
    (fake / "venv.py").write_text(
        "import sys\nprint('The virtual environment was not created successfully because "
        "ensurepip is not\\navailable.')\nsys.exit(1)\n"
    )
    result = environment.make(PYTHONPATH=str(fake))
    assert result.returncode == 1
    assert re.search(r"apt-get install python3\.\d+-venv\)", result.stderr.splitlines()[-1])


def test_a_package_that_does_not_compile_is_named(environment: Environment) -> None:
    package = environment.folder / "stubborn"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[project]\nname = "stubborn"\nversion = "1"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (package / "backend.py").write_text(
        "def build_wheel(*_, **__):\n    raise SystemExit(\"error: command 'gcc' failed\")\n"
    )
    environment.requirements(f"{package}\n")
    result = environment.make(PIP_NO_INDEX="1")
    assert result.returncode == 1
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("stubborn has no ready-made wheel for Python 3.")
    assert "install a C compiler" in sentence
    assert not (environment.venv / "spyglass-installing").exists()


def test_an_unreachable_index_is_said(environment: Environment) -> None:
    environment.requirements("spyglass-needs-the-network==1\n")
    result = environment.make(PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="1")
    assert result.returncode == 1
    assert "package index cannot be reached" in result.stderr
