"""Simulated hosts on one machine: each has its own namespaces (process, network, mount, name) and its own sshd."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until

USER = "root"
HOME = Path("/srv/home")
"""Home folder of the user on every host."""
SHARED = Path("/srv/shared")
"""Folder that all hosts share, in place of NFS."""
PROGRAMS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "rsync": "rsync",
    "unshare": "util-linux",
}
"""Required programs, and the Debian packages that provide them."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PREFIX = "las"
"""Prefix of the names of bridges and links; the process id of their creator follows."""


def why_not() -> str:
    """Return why this machine cannot create hosts; empty if it can."""
    if os.geteuid() != 0:
        return "hosts made of namespaces need root"
    missing = sorted({package for name, package in PROGRAMS.items() if not shutil.which(name, path=SYSTEM_PATH)})
    if missing:
        return f"Debian packages are missing: {', '.join(missing)}"
    bridge = f"{PREFIX}try{os.getpid()}"
    made = subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"this machine cannot create bridges: {made.stderr.strip()}"
    _ip("link", "del", bridge)
    return ""


@dataclass(frozen=True)
class Host:
    """One simulated host."""

    name: str
    address: str
    folder: Path
    """The host's files, on this machine."""
    link: str
    """The bridge's end of the host's network link."""
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        """The user's home folder, as a path of this machine."""
        return self.folder / "home"


class Hosts:
    """Hosts with a common SSH key, on a bridge together with this machine; a context manager."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.folder = folder
        self.key = folder / "key"
        self.shared = folder / "shared"
        self._names = names
        self._bridge = f"{PREFIX}{os.getpid()}"
        self._network = f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
        self.hosts: list[Host] = []

    def __enter__(self) -> Hosts:
        try:
            remove_stale_bridges()
            self._make_keys()
            self.shared.mkdir()
            _ip("link", "add", self._bridge, "type", "bridge", "forward_delay", "0")
            _ip("address", "add", f"{self._network}.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for number, name in enumerate(self._names, start=1):
                self.hosts.append(self._start(number, name))
            for host in self.hosts:
                self._wait_for_ssh(host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all processes of the hosts and remove their files."""
        for host in self.hosts:
            host.process.kill()  # ends the first process of the namespace, and with it all others
            host.process.wait()
        for link in (*(host.link for host in self.hosts), self._bridge):
            # The link may have been removed with its host.
            subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
        for path in (*(self.folder / name for name in self._names), self.shared):
            shutil.rmtree(path, ignore_errors=True)
        for name in ("key", "key.pub", "host_key", "host_key.pub"):
            (self.folder / name).unlink(missing_ok=True)

    def run(self, host: Host, command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in a login shell on a host, over SSH."""
        return subprocess.run(self.ssh(host, command), capture_output=True, text=True, timeout=timeout_s, check=False)

    def ssh(self, host: Host, command: str) -> list[str]:
        """Return the arguments of ssh that run a command as `ray up` and `ray attach` do, with ~/.bashrc."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5"]
        login = f"bash --login -c {shlex.quote(f'source ~/.bashrc; {command}')}"
        flags = [word for option in options for word in ("-o", option)]
        return ["ssh", "-i", str(self.key), *flags, f"{USER}@{host.address}", login]

    def path(self, host: Host, inside: str) -> Path:
        """Return a path of a host as a path of this machine. Absolute symbolic links are not followed correctly."""
        return Path(f"/proc/{_child_of(host.process.pid)}/root{inside}")

    def processes(self, host: Host) -> dict[int, str]:
        """Return the command lines of a host's processes except sshd, by process id of this machine."""
        first = _child_of(host.process.pid)
        space = (Path("/proc") / str(first) / "ns/pid").readlink()
        lines = {}
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or (entry / "ns/pid").readlink() != space or int(entry.name) == first:
                    continue
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:  # the process has ended
                continue
            if line and not line.startswith("sshd:"):
                lines[int(entry.name)] = line
        return lines

    def kill_host_processes(self, host: Host, pattern: str) -> list[str]:
        """Kill the processes of a host that match a pattern with SIGKILL, and return their command lines."""
        matching = {pid: line for pid, line in self.processes(host).items() if re.search(pattern, line)}
        for pid in matching:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return list(matching.values())

    def kill_ray(self, host: Host) -> list[str]:
        """Kill all Ray processes of a host with SIGKILL, the raylet first, as if the machine were lost."""
        return self.kill_host_processes(host, "raylet") + self.kill_host_processes(host, r"ray::|/ray/|IDLE|ray start")

    def cut(self, host: Host) -> None:
        """Disconnect a host from the network."""
        _ip("link", "set", host.link, "down")

    def join(self, host: Host) -> None:
        """Connect a host to the network again."""
        _ip("link", "set", host.link, "up")

    def _make_keys(self) -> None:
        for name in ("key", "host_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(command, check=True, timeout=30)

    def _start(self, number: int, name: str) -> Host:
        folder, address, link = self.folder / name, f"{self._network}.{number + 1}", f"{self._bridge}h{number}"
        self._fill(folder, address)
        inside = _INSIDE.format(name=name, kept=" ".join(shlex.quote(str(path)) for path in _kept()), home=HOME,
                                shared=SHARED, address=address)  # fmt: skip
        process = subprocess.Popen(
            # The death signal and --kill-child end the host together with this process.
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork",
             "--kill-child", "--mount-proc", "bash", "-c", inside, name, str(folder), str(self.shared)],
            stdin=subprocess.DEVNULL, stdout=(folder / "log").open("ab"), stderr=subprocess.STDOUT,
            env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}, start_new_session=True,
        )  # fmt: skip
        host = Host(name, address, folder, link, process)
        own_network = Path("/proc/self/ns/net").readlink()
        wait_until(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != own_network, f"a network of {name}", 10)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
        _ip("link", "set", link, "master", self._bridge, "up")
        return host

    def _fill(self, folder: Path, address: str) -> None:
        """Create the files of a host."""
        home, etc = folder / "home", folder / "etc"
        for made in (home, etc):
            made.mkdir(parents=True)
        for name in ("key.pub", "host_key"):
            shutil.copy(self.folder / name, etc / name)
        (home / ".bashrc").touch()
        (home / ".profile").write_text("[ -f ~/.bashrc ] && . ~/.bashrc\n")
        (home / "las_tune_env").symlink_to(sys.prefix)
        passwd = Path("/etc/passwd").read_text().splitlines()
        other_users = [line for line in passwd if not line.startswith("root:")]
        (etc / "passwd").write_text("\n".join([f"root:x:0:0:root:{HOME}:/bin/bash", *other_users]) + "\n")
        (etc / "shadow").write_text("root:*:19000:0:99999:7:::\n")  # allows keys; ! would not
        names = [f"{self._network}.{number + 1} {name}" for number, name in enumerate(self._names, start=1)]
        (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names]) + "\n")
        settings = [
            f"ListenAddress {address}", "HostKey /srv/etc/host_key", "AuthorizedKeysFile /srv/etc/key.pub",
            "PermitRootLogin prohibit-password", "PasswordAuthentication no", "UsePAM no", "StrictModes no",
            "PidFile none", "MaxStartups 100", "MaxSessions 100", "PrintMotd no",
        ]  # fmt: skip
        (etc / "sshd_config").write_text("\n".join(settings) + "\n")

    def _wait_for_ssh(self, host: Host) -> None:
        def is_up() -> bool:
            if host.process.poll() is not None:
                raise RuntimeError(f"{host.name} has ended: {(host.folder / 'log').read_text()[-2000:]}")
            return self.run(host, "true").returncode == 0

        wait_until(is_up, f"SSH of {host.name}", 30)


_INSIDE = """
set -e
folder=$1 shared=$2
mount --make-rprivate /
kept=({kept})
mount -t tmpfs tmpfs /srv
mkdir -p /srv/home /srv/shared /srv/etc /srv/kept
mount --bind "$folder/home" /srv/home
mount --bind "$folder/etc" /srv/etc
mount --bind "$shared" /srv/shared
for i in "${{!kept[@]}}"; do mkdir "/srv/kept/$i"; mount --bind "${{kept[$i]}}" "/srv/kept/$i"; done
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp
for i in "${{!kept[@]}}"; do mkdir -p "${{kept[$i]}}"; mount --move "/srv/kept/$i" "${{kept[$i]}}"; done
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
for name in passwd shadow hosts; do mount --bind "/srv/etc/$name" "/etc/$name"; done
hostname {name}
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip address add {address}/24 dev eth0
ip link set eth0 up
cd /
exec "$(command -v sshd)" -D -e -f /srv/etc/sshd_config
"""
"""Start script of a host in its namespaces: mounts, name, network, and sshd as its first process."""


def _kept() -> list[Path]:
    """Return the folders of Python below /tmp, which hosts must see although they have their own /tmp."""
    folders = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), Path(sys.prefix).absolute()}
    return sorted(folder for folder in folders if folder.is_relative_to("/tmp"))


def remove_stale_bridges() -> None:
    """Remove the bridges of test runs that were killed."""
    for link in Path("/sys/class/net").glob(f"{PREFIX}[0-9]*"):
        pid = link.name.removeprefix(PREFIX)
        if (link / "bridge").is_dir() and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            for end in (*(link / "brif").iterdir(), link):
                _ip("link", "del", end.name)


def _child_of(pid: int) -> int:
    """Return the only child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20, capture_output=True)
