"""Hosts on one machine: namespaces of processes, network, mounts and names on a bridge, each with sshd of its own."""

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
"""Of the user, on every host."""
SHARED = Path("/srv/shared")
"""One folder that every host sees, as NFS would show it."""
PROGRAMS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "rsync": "rsync",
    "unshare": "util-linux",
}
"""What is needed, and the Debian package that has it."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PREFIX = "las"
"""Of the names of bridges and links, which end with the process that made them."""


def why_not() -> str:
    """What is missing for hosts on this machine; empty where nothing is."""
    if os.geteuid() != 0:
        return "hosts made of namespaces need root"
    missing = sorted({package for name, package in PROGRAMS.items() if not shutil.which(name, path=SYSTEM_PATH)})
    if missing:
        return f"Debian packages are missing: {', '.join(missing)}"
    bridge = f"{PREFIX}try{os.getpid()}"
    made = subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"this machine makes no bridges: {made.stderr.strip()}"
    _ip("link", "del", bridge)
    return ""


@dataclass(frozen=True)
class Host:
    """One of them."""

    name: str
    address: str
    folder: Path
    """Of this machine: what the host keeps; its home is in it."""
    link: str
    """The bridge's end of its cable."""
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        """The home of its user, seen from this machine."""
        return self.folder / "home"


class Hosts:
    """Some hosts, a key for all of them, and this machine beside them on the bridge. Use it in a with statement."""

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
        """End everything that runs on the hosts, and the hosts; remove what they kept."""
        for host in self.hosts:
            host.process.kill()  # its first process dies with it, and all others with that one
            host.process.wait()
        for link in (*(host.link for host in self.hosts), self._bridge):
            # A cable may be gone with its host, or go while it is taken away.
            subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
        for path in (*(self.folder / name for name in self._names), self.shared):
            shutil.rmtree(path, ignore_errors=True)
        for name in ("key", "key.pub", "host_key", "host_key.pub"):
            (self.folder / name).unlink(missing_ok=True)

    def run(self, host: Host, command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """A command in a login shell of the host's user, over SSH."""
        return subprocess.run(self.ssh(host, command), capture_output=True, text=True, timeout=timeout_s, check=False)

    def ssh(self, host: Host, command: str) -> list[str]:
        """What runs a command there as `ray up` and `ray attach` do: with what ~/.bashrc sets."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5"]
        login = f"bash --login -c {shlex.quote(f'source ~/.bashrc; {command}')}"
        flags = [word for option in options for word in ("-o", option)]
        return ["ssh", "-i", str(self.key), *flags, f"{USER}@{host.address}", login]

    def path(self, host: Host, inside: str) -> Path:
        """A path of a host, seen from this machine; links with absolute targets lead astray."""
        return Path(f"/proc/{_child_of(host.process.pid)}/root{inside}")

    def processes(self, host: Host) -> dict[int, str]:
        """Command line by process id of this machine, of everything on a host but its sshd."""
        first = _child_of(host.process.pid)
        space = (Path("/proc") / str(first) / "ns/pid").readlink()
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or (entry / "ns/pid").readlink() != space or int(entry.name) == first:
                    continue
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:  # it has ended
                continue
            if line and not line.startswith("sshd:"):
                found[int(entry.name)] = line
        return found

    def kill_host_processes(self, host: Host, pattern: str) -> list[str]:
        """kill -9 whatever of a host's processes matches; what was killed."""
        found = {pid: line for pid, line in self.processes(host).items() if re.search(pattern, line)}
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return list(found.values())

    def kill_ray(self, host: Host) -> list[str]:
        """kill -9 all of a host's Ray, as a machine that is taken away loses it: the raylet first."""
        return self.kill_host_processes(host, "raylet") + self.kill_host_processes(host, r"ray::|/ray/|IDLE|ray start")

    def cut(self, host: Host) -> None:
        """Pull a host's cable."""
        _ip("link", "set", host.link, "down")

    def join(self, host: Host) -> None:
        """Plug it in again."""
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
            # The death signal and --kill-child end the host with this process, however it ends.
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork",
             "--kill-child", "--mount-proc", "bash", "-c", inside, name, str(folder), str(self.shared)],
            stdin=subprocess.DEVNULL, stdout=(folder / "log").open("ab"), stderr=subprocess.STDOUT,
            env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}, start_new_session=True,
        )  # fmt: skip
        host = Host(name, address, folder, link, process)
        ours = Path("/proc/self/ns/net").readlink()
        wait_until(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != ours, f"a network of {name}", 10)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
        _ip("link", "set", link, "master", self._bridge, "up")
        return host

    def _fill(self, folder: Path, address: str) -> None:
        """The files that a host has for itself."""
        home, etc = folder / "home", folder / "etc"
        for made in (home, etc):
            made.mkdir(parents=True)
        for name in ("key.pub", "host_key"):
            shutil.copy(self.folder / name, etc / name)
        (home / ".bashrc").touch()
        (home / ".profile").write_text("[ -f ~/.bashrc ] && . ~/.bashrc\n")
        (home / "las_tune_env").symlink_to(sys.prefix)
        passwd = Path("/etc/passwd").read_text().splitlines()
        others = [line for line in passwd if not line.startswith("root:")]
        (etc / "passwd").write_text("\n".join([f"root:x:0:0:root:{HOME}:/bin/bash", *others]) + "\n")
        (etc / "shadow").write_text("root:*:19000:0:99999:7:::\n")  # open to keys; ! would close it to them as well
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
"""How a host comes up in its namespaces: mounts, name, network, sshd as its first process."""


def _kept() -> list[Path]:
    """Folders of this machine's /tmp that a host must see all the same: Python and what it imports."""
    folders = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), Path(sys.prefix).absolute()}
    return sorted(folder for folder in folders if folder.is_relative_to("/tmp"))


def remove_stale_bridges() -> None:
    """Take away the bridges of runs that were killed; their hosts have gone with them."""
    for link in Path("/sys/class/net").glob(f"{PREFIX}[0-9]*"):
        pid = link.name.removeprefix(PREFIX)
        if (link / "bridge").is_dir() and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            for end in (*(link / "brif").iterdir(), link):
                _ip("link", "del", end.name)


def _child_of(pid: int) -> int:
    """The only child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20, capture_output=True)
