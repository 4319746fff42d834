"""Where the device runs: this machine, or one that is reached by ssh."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ruyicam.export.bench_session import command_line, find_edge

# Every process: its line of /proc; then clock ticks a second, bytes of a page, temperatures and Jetson's own figures.
_LOOK = (
    "cat /proc/[0-9]*/stat 2>/dev/null; echo; getconf CLK_TCK; getconf PAGESIZE; cat /proc/uptime; "
    "cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null; echo; "
    "command -v tegrastats >/dev/null && timeout 1 tegrastats --interval 500 | head -n 1"
)


@dataclass
class Usage:
    """What a device uses at a moment. seconds: of processor time since its start; power_w, gpu_percent: None if not told."""

    at: float
    seconds: float
    rss_mb: float
    hottest_c: float | None
    gpu_percent: float | None
    power_w: float | None


class Running:
    """A device that runs on a target."""

    def __init__(self, target: Target, process: subprocess.Popen, pid: int):
        self.target, self.process, self.pid = target, process, pid

    def stop(self, timeout_s: float = 60) -> tuple[int, str]:
        """SIGTERM; (exit code, what it said)."""
        self.target.signal(self.pid, signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> tuple[int, str]:
        """(exit code, what it said), once it has ended by itself."""
        said = self.process.communicate(timeout=timeout_s)[1]
        return self.process.returncode, said


class Target:
    """This machine."""

    name, host = "local", "localhost"

    def __init__(self, edge: str | None):
        self.edge = str(find_edge(Path(edge) if edge else None))
        self.folder = tempfile.mkdtemp(prefix="ruyicam-hil-")

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def put(self, path: Path) -> str:
        """A file or folder of this machine, there; its path there."""
        return str(path)

    def shell(self, script: str) -> str:
        """Output of a POSIX shell script."""
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60).stdout

    def signal(self, pid: int, number: int) -> None:
        """As kill(1)."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def start(self, keys: dict) -> Running:
        """The device with those keys of its configuration."""
        process = subprocess.Popen(self._command(keys), stderr=subprocess.PIPE, text=True)
        return Running(self, process, process.pid)

    def _command(self, keys: dict) -> list[str]:
        return command_line(Path(self.edge), keys)

    def usage(self, pid: int) -> Usage:
        """Of the device whose first process that is, and the machine's sensors."""
        processes, ticks, page, uptime, *rest = self._look()
        parent, all_of = {p: int(f[1]) for p, f in processes.items()}, {pid}
        for _ in range(4):
            all_of |= {p for p, above in parent.items() if above in all_of}
        mine = [processes[p] for p in all_of if p in processes]
        seconds = sum(int(f[11]) + int(f[12]) for f in mine) / ticks
        temperatures, tegra = rest
        power = tegra.split("VDD_IN ")[1].split("mW")[0] if "VDD_IN " in tegra else None
        gpu = tegra.split("GR3D_FREQ ")[1].split("%")[0] if "GR3D_FREQ " in tegra else None
        return Usage(
            uptime,
            seconds,
            max((int(f[21]) * page / 1e6 for f in mine), default=0.0),
            max((t / 1000 for t in temperatures), default=None),
            float(gpu) if gpu else None,
            float(power) / 1000 if power else None,
        )

    def _look(self) -> tuple:
        stats, numbers, tegra = (self.shell(_LOOK) + "\n\n").split("\n\n", 2)
        # The name in brackets may hold anything; what follows it does not.
        lines = [(line.split(" ", 1)[0], line.rsplit(")", 1)[1].split()) for line in stats.splitlines() if ")" in line]
        ticks, page, uptime, *temperatures = numbers.splitlines()
        hot = [int(t) for t in temperatures if t.lstrip("-").isdigit()]
        return {int(p): f for p, f in lines}, int(ticks), int(page), float(uptime.split()[0]), hot, tegra


class SshTarget(Target):
    """A machine that `ssh NAME` reaches without a question, with ruyicam-edge on its PATH or at `edge`."""

    def __init__(self, name: str, edge: str | None):
        self.name, self.edge = name, edge or "ruyicam-edge"
        self._control = tempfile.mkdtemp(prefix="ruyicam-ssh-")
        self._ssh = ["-o", "ControlMaster=auto", "-o", f"ControlPath={self._control}/%C", "-o", "ControlPersist=60"]
        self.folder = self._run("mktemp -d /tmp/ruyicam-hil-XXXXXX").strip()
        # As the device sees us, so that it finds the server and the test pattern.
        self.host = self._run("echo $SSH_CLIENT").split()[0]

    def __exit__(self, *_: object) -> None:
        self.shell(f"rm -rf {shlex.quote(self.folder)}")
        subprocess.run(["ssh", *self._ssh, "-O", "exit", self.name], capture_output=True)
        shutil.rmtree(self._control, ignore_errors=True)

    def _run(self, script: str) -> str:
        done = subprocess.run(["ssh", *self._ssh, "--", self.name, script], capture_output=True, text=True, timeout=60)
        if done.returncode == 255:
            raise RuntimeError(f"ssh {self.name}: {done.stderr.strip()}")
        return done.stdout

    def put(self, path: Path) -> str:
        there = f"{self.folder}/{path.name}"
        command = ["scp", *self._ssh, "-q", "-r", "--", str(path), f"{self.name}:{there}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise RuntimeError(f"scp to {self.name}: {done.stderr.strip()}")
        return there

    def shell(self, script: str) -> str:
        return self._run(script)

    def signal(self, pid: int, number: int) -> None:
        self.shell(f"kill -{int(number)} {pid}")

    def start(self, keys: dict) -> Running:
        # The shell's own number is the device's, as it is replaced by it.
        words = shlex.join(map(str, self._command(keys)))
        command = ["ssh", *self._ssh, "--", self.name, f"echo $$; exec {words}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return Running(self, process, int(process.stdout.readline()))


def target_of(text: str, edge: str | None) -> Target:
    """`local` or `ssh://[USER@]HOST`. ValueError for anything else."""
    if text == "local":
        return Target(edge)
    if text.startswith("ssh://") and len(text) > 6:
        return SshTarget(text.removeprefix("ssh://"), edge)
    raise ValueError(f"--target is {text}, expected local or ssh://[USER@]HOST")
