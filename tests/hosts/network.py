"""Hosts on one machine: namespaces joined by a bridge, each with its address and host name.

    with Network(folder) as network:
        host = network.add("head")
        host.run("hostname")
        network.cut(host); network.join(host)
        network.slow(host, delay=0.02, loss=0.01); network.good(host)

A host has its own network, host name, processes, and its own ``/tmp/ray`` and ``/dev/shm``; files
it shares with this machine. Needs root and ``ip``. When this process ends, however it ends, the
kernel ends the hosts and all that runs on them; a bridge that is left over is removed by the next
:class:`Network`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PREFIX = "vmbr"
ENDS = ("vh", "va", "vb", "vc")
CABLE = Path(__file__).with_name("cable.py")
SHARED_MEMORY = "384m"
INIT = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); signal.pause()"
"""A host's first process: it waits, and the kernel takes away its dead children."""


def missing() -> str | None:
    """Why there can be no hosts here, or ``None``."""
    if os.getuid() != 0:
        return "no root: no network namespaces"
    if not all(shutil.which(tool) for tool in ("ip", "unshare", "nsenter")):
        return "no ip, unshare or nsenter (make hosts)"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True)
    return None if tried.returncode == 0 else "this machine allows no namespaces"


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _end_with_parent() -> None:
    """In a child about to start: the kernel ends it together with this process."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Host:
    """One of them. ``pid`` is its first process, as this machine numbers it."""

    def __init__(self, name: str, address: str, link: str, folder: Path):
        self.name, self.address, self.link, self.folder = name, address, link, folder
        self.environment: dict[str, str] = {}
        self.root = subprocess.Popen(
            [
                "unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child",
                "--mount-proc", sys.executable, "-S", "-E", "-c", INIT,
            ],
            preexec_fn=_end_with_parent,
        )  # fmt: skip
        self.pid = self._first_process()

    def _first_process(self) -> int:
        children = Path(f"/proc/{self.root.pid}/task/{self.root.pid}/children")
        while not (found := children.read_text().split()):
            if self.root.poll() is not None:
                raise RuntimeError(f"unshare ended with status {self.root.returncode}")
        command = Path(f"/proc/{found[0]}/cmdline")
        while INIT.encode() not in command.read_bytes():  # until it is past `unshare` itself
            pass
        return int(found[0])

    def set_up(self, gateway: str) -> None:
        for target in ("/tmp/ray", "/dev/shm"):
            own = self.folder / target.rpartition("/")[2]
            own.mkdir(parents=True)
            if target == "/dev/shm":
                self.run("mount", "-t", "tmpfs", "-o", f"size={SHARED_MEMORY}", "tmpfs", target)
            else:
                Path(target).mkdir(exist_ok=True)
                self.run("mount", "--bind", str(own), target)
        self.run("hostname", self.name)
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "set", self.link, "name", "eth0")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", "default", "via", gateway)

    def command(self, *words: str) -> list[str]:
        """The command that runs ``words`` on this host."""
        enter = ["nsenter", "--target", str(self.pid), "--net", "--uts", "--mount", "--pid"]
        return [*enter, "--wd=" + os.getcwd(), *words]

    def run(self, *words: str, timeout: float = 120) -> str:
        """Run on this host to its end; its output. RuntimeError if it fails."""
        done = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ | self.environment,
        )
        if done.returncode:
            raise RuntimeError(
                f"{self.name}: {' '.join(words)} ended with {done.returncode}:\n"
                f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            )
        return done.stdout

    def processes(self, *words: str) -> list[int]:
        """This machine's numbers of the host's processes whose command line has all the words."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.pid:
                continue
            try:
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                if os.readlink(entry / "ns/pid") == space and all(word in line for word in words):
                    found.append(int(entry.name))
            except OSError:
                continue
        return sorted(found)

    def kill(self, *words: str, signal_: int = signal.SIGKILL) -> int:
        """Signal those processes; how many there were."""
        found = self.processes(*words)
        for pid in found:
            try:
                os.kill(pid, signal_)
            except ProcessLookupError:
                continue
        return len(found)

    def close(self) -> None:
        self.root.kill()  # takes the first process, and so the whole host, with it
        self.root.wait()


class Network:
    """The bridge, and the hosts on it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.hosts: list[Host] = []
        self.cables: dict[str, subprocess.Popen] = {}
        self.cut_off: list[Host] = []
        self.bridge = f"{PREFIX}{os.getpid()}"
        self._remove_leftovers()
        taken = ip("-4", "-o", "address")
        number = next(n for n in range(1, 255) if f"10.77.{n}." not in taken)
        self.subnet = f"10.77.{number}"
        ip("link", "add", self.bridge, "type", "bridge")
        ip("address", "add", f"{self.subnet}.1/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    @staticmethod
    def _remove_leftovers() -> None:
        """Devices of a process that is gone (its hosts, and their devices, went with it)."""
        for line in ip("-o", "link", "show").splitlines():
            name = line.split(":")[1].strip().partition("@")[0]
            owner = name.lstrip("vmbrhac").partition("-")[0]
            ours = name.startswith((PREFIX, *ENDS)) and owner.isdigit()
            if ours and not Path(f"/proc/{owner}").exists():
                ip("link", "delete", name)

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            if host.name in self.cables:
                self.good(host)
            host.close()
        ip("link", "delete", self.bridge)

    def add(self, name: str) -> Host:
        number = len(self.hosts) + 2
        here, there = (f"v{side}{os.getpid()}-{number}" for side in "ht")
        host = Host(name, f"{self.subnet}.{number}", there, self.folder / name)
        self.hosts.append(host)
        ip("link", "add", here, "type", "veth", "peer", "name", there)
        ip("link", "set", there, "netns", str(host.pid))
        ip("link", "set", here, "master", self.bridge, "up")
        host.set_up(f"{self.subnet}.1")
        return host

    def _end(self, host: Host) -> str:
        return f"vh{os.getpid()}-{self.hosts.index(host) + 2}"

    def cut(self, host: Host) -> None:
        """The cable is pulled."""
        self.cut_off.append(host)
        ip("link", "set", self._end(host), "down")

    def join(self, host: Host) -> None:
        """The cable is back."""
        ip("link", "set", self._end(host), "up")
        if host in self.cut_off:
            self.cut_off.remove(host)

    def slow(self, host: Host, delay: float, loss: float) -> None:
        """Every frame to and from the host takes ``delay`` seconds more, a share is lost."""
        number = f"{os.getpid()}-{self.hosts.index(host) + 2}"
        near, far, between = f"va{number}", f"vb{number}", f"vc{number}"
        for device in (near, far):
            ip("tuntap", "add", "dev", device, "mode", "tap")
        ip("link", "add", between, "type", "bridge")
        self.cables[host.name] = subprocess.Popen(
            [sys.executable, str(CABLE), near, far, str(delay), str(loss)],
            preexec_fn=_end_with_parent,
        )
        ip("link", "set", self._end(host), "master", between)
        ip("link", "set", near, "master", between, "up")
        ip("link", "set", far, "master", self.bridge, "up")
        ip("link", "set", between, "up")

    def good(self, host: Host) -> None:
        """The end of :meth:`slow`."""
        number = f"{os.getpid()}-{self.hosts.index(host) + 2}"
        ip("link", "set", self._end(host), "master", self.bridge)
        cable = self.cables.pop(host.name)
        cable.kill()
        cable.wait()
        for device in ("va", "vb", "vc"):
            ip("link", "delete", device + number)
