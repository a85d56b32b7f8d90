"""The whole deployment on one machine: certificates, node keys, a SuperLink, SuperNodes, a run, and the end of it all.

    python deploy.py --nodes 4 --set num-versions=6 straggler-s=30.0

Everything binds to 127.0.0.1 and speaks TLS, and a SuperNode is let in only with a key that was registered. On several
machines the same commands run on each, with the machine's own address: `Deployment` shows which.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
CONNECTION = "deployment"
TRIES = 10
"""How often a run is started, at most, until its folder says that it is finished."""
PAUSE_S = 10.0
"""Seconds before it is started again."""


class Deployment:
    """A SuperLink and SuperNodes on this machine; a context manager that ends what it began.

    Args:
        folder: keys, certificates, logs and the SuperLink's database go here.
        secure: TLS and node keys.
        port: the SuperLink's; a free one by default.
        isolation: "subprocess": ServerApps run below the SuperLink; "process": beside it, started by `start_executor`,
            so that the SuperLink may be restarted under them.
    """

    def __init__(self, folder: Path, secure: bool = True, port: int = 0, isolation: str = "subprocess") -> None:
        self.folder, self.secure, self.isolation = folder.resolve(), secure, isolation
        self.port = port or free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(self.folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def __enter__(self) -> Deployment:
        home = self.folder / "flwr"
        home.mkdir(parents=True, exist_ok=True)
        trust = f'root-certificates = "{self.certificate}"' if self.secure else "insecure = true"
        (home / "config.toml").write_text(f'[superlink.{CONNECTION}]\naddress = "{self.address}"\n{trust}\n')
        if self.secure and not self.certificate.exists():
            make_certificates(self.folder)
        self.start_superlink()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the parts

    def start_superlink(self) -> None:
        """The SuperLink; after `kill("superlink")` it comes back on its database."""
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--database", str(self.folder / "superlink.db"), "--disable-runtime-dependency-installation"]
        command += ["--isolation", self.isolation]
        if self.secure:
            command += ["--ssl-ca-certfile", str(self.certificate), "--ssl-certfile", str(self.folder / "server.pem")]
            command += ["--ssl-keyfile", str(self.folder / "server.key"), "--enable-supernode-auth"]
        else:
            command += ["--insecure"]
        self.start("superlink", command)
        wait_for(self.port, self.processes["superlink"], self.log("superlink"))

    def start_executor(self) -> None:
        """What runs ServerApps beside a SuperLink of the isolation "process"; it outlives the SuperLink."""
        command = ["flower-superexec", "--runtime-api-address", self.address]
        command += ["--root-certificates", str(self.certificate)] if self.secure else ["--insecure"]
        self.start("executor", command)

    def start_node(self, number: int, nodes: int, registered: bool = True) -> None:
        """A SuperNode that holds partition `number` of `nodes`."""
        command = ["flower-supernode", "--superlink", self.address]
        command += ["--node-config", f"partition-id={number} num-partitions={nodes}"]
        command += ["--host", "127.0.0.1", "--port", str(free_port())]
        if self.secure:
            key = self.folder / f"node{number}"
            if not key.exists():
                make_node_key(key)
                if registered:
                    self.flwr("supernode", "register", f"{key}.pub", CONNECTION)
            command += ["--root-certificates", str(self.certificate), "--auth-supernode-private-key", str(key)]
        else:
            command += ["--insecure"]
        self.start(f"node{number}", command)

    def run(self, app: Path = HERE, settings: Mapping[str, object] | None = None) -> subprocess.Popen[bytes]:
        """`flwr run`, streaming the ServerApp's log into `run.log`; settings override the app's."""
        command = ["flwr", "run", str(app), CONNECTION, "--stream"]
        if settings:
            command += ["--run-config", " ".join(f"{name}={toml(value)}" for name, value in settings.items())]
        return self.start("run", command)

    def finished(self, run_dir: Path) -> bool:
        """Whether a run's folder says that the run came to its end. The exit code of `flwr run --stream` does not tell:
        it is 0 when the ServerApp raised an error or was killed, too."""
        command = [sys.executable, "-m", "fedecho", "status", str(run_dir)]
        return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0

    # -- processes

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        program = [str(BIN / command[0]), *command[1:]]
        with self.log(name).open("ab") as out:
            process = subprocess.Popen(
                program, stdout=out, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
            )
        self.processes[name] = process
        return process

    def flwr(self, *arguments: str) -> str:
        """Run a command of Flower's to its end; returns its output.

        Raises:
            RuntimeError: when it failed.
        """
        done = subprocess.run(
            [str(BIN / "flwr"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"flwr {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def kill(self, name: str) -> None:
        """End a process and all that it started, at once."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def server_app(self) -> int | None:
        """The process that runs the ServerApp, if there is one."""
        listing = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            pid, arguments = line.split(maxsplit=1)
            if "flwr-serverapp" in arguments.split("--")[0] and self.address in arguments:
                return int(pid)
        return None

    def stop(self) -> None:
        """End everything, nodes first."""
        if (server_app := self.server_app()) is not None:  # it would go on asking a SuperLink that is no more
            with contextlib.suppress(ProcessLookupError):
                os.kill(server_app, signal.SIGKILL)
        for name in sorted(self.processes, key=lambda name: name == "superlink"):
            process = self.processes.pop(name)
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(10)
                except ProcessLookupError:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    continue
                break


def make_certificates(folder: Path) -> None:
    """An authority (ca.pem) and the SuperLink's certificate (server.pem, server.key), for this machine."""
    now = datetime.datetime.now(datetime.timezone.utc)
    until = now + datetime.timedelta(days=365)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])

    ca_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    base = x509.CertificateBuilder().issuer_name(name("fashion CA")).not_valid_before(now).not_valid_after(until)
    ca = (
        base.subject_name(name("fashion CA"))
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = (
        base.subject_name(name("localhost"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    for file, certificate in (("ca.pem", ca), ("server.pem", server)):
        (folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write_private(folder / "server.key", key, serialization.PrivateFormat.PKCS8)


def make_node_key(file: Path) -> None:
    """A node's key pair as `ssh-keygen -t ecdsa -b 384` makes it: FILE and FILE.pub."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(file, key, serialization.PrivateFormat.OpenSSH)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    file.with_name(f"{file.name}.pub").write_bytes(public + b"\n")


def write_private(file: Path, key: ec.EllipticCurvePrivateKey, how: serialization.PrivateFormat) -> None:
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, how, serialization.NoEncryption()))


def toml(value: object) -> str:
    return (
        f'"{value}"' if isinstance(value, str | Path) else str(value).lower() if isinstance(value, bool) else str(value)
    )


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Until somebody listens there."""
    for _ in range(int(seconds / 0.2)):
        with socket.socket() as door:
            if door.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise RuntimeError(f"the SuperLink did not start: {log.read_text()[-2000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--insecure", action="store_true", help="without TLS and node keys")
    parser.add_argument("--folder", type=Path, help="for keys, logs and the database (default: a temporary one)")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="settings of the app, in TOML")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that nothing is left running
    pairs = [item.partition("=") for item in given.set]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        with Deployment(folder, not given.insecure) as deployment:
            print(f"SuperLink on {deployment.address}, logs in {deployment.folder}", flush=True)
            for number in range(given.nodes):
                deployment.start_node(number, given.nodes)
            settings = {key: Raw(value) for key, _, value in pairs}
            return supervise(deployment, settings)


def supervise(deployment: Deployment, settings: Mapping[str, object], tries: int = TRIES) -> int:
    """Start the run, and again until its folder says that it is finished; returns the exit code. A run without a folder
    is started once."""
    run_dir = str(settings.get("run-dir", "")).strip("\"'")
    for _ in range(tries):
        code = follow(deployment.run(settings=settings), deployment.log("run"))
        if not run_dir:
            return code
        if deployment.finished(Path(run_dir)):
            return 0
        print(f"{run_dir} is not finished: the run is started again in {PAUSE_S:g} s", flush=True)
        time.sleep(PAUSE_S)
    print(f"{run_dir} is not finished after {tries} tries: read {deployment.log('run')}", file=sys.stderr)
    return 1


def follow(process: subprocess.Popen[bytes], log: Path) -> int:
    """Show what a process adds to its log until it ends; returns its exit code."""
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while True:
            over = process.poll() is not None
            sys.stdout.write(file.read())
            sys.stdout.flush()
            if over:
                return int(process.returncode)
            time.sleep(0.5)


class Raw:
    """A value that is TOML already."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


if __name__ == "__main__":
    sys.exit(main())
