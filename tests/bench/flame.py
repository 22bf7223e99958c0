"""Flame graphs of a gateway's worker under load, by py-spy where that is installed (`pip install py-spy`).

Law: on a stand of its own and after the measured run: a profiler stops the process that it looks at, and no figure is taken beside it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.stand import Setup, stand, workers

_RATE = 250
"""Samples a second."""
_AROUND = 2.0
"""Seconds of load before and after the profile."""


def graphs(name: str, bench: Path, texts: Path, of: Setup, seconds: float, folder: Path) -> None:
    """SVG files of this Sluice, in `folder`: plain and streamed, 16 at a time."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        print(f"no flame graphs of {name}: py-spy is not installed (pip install py-spy)")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with stand(bench, texts, of, pinned=True) as gateway:
        (pid,) = workers(gateway.pid)
        for kind in ("plain", "burst"):
            file = folder / f"{kind}16 {name}.svg".replace(" ", "_")
            load = gateway.load(kind, 16, seconds + 2 * _AROUND)
            try:
                load.wait(_AROUND)
            except subprocess.TimeoutExpired:
                _record(spy, pid, seconds, file)
            load.communicate()


def _record(spy: str, pid: int, seconds: float, file: Path) -> None:
    # Not --native: with it py-spy takes threads that wait for work for busy ones.
    command = [spy, "record", "--rate", str(_RATE), "-p", str(pid), "-d", f"{seconds:.0f}", "-o", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        print(f"{file.name}: py-spy failed: {said[-1] if said else done.returncode}")
    else:
        print(f"{file}")
