"""Facts of the host that a study records: versions, code, memory."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

# Whose versions a result depends on.
PACKAGES = ("jax", "jaxlib", "dqx", "flax", "optax", "gymnax", "numpy")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def machine() -> str:
    """The name of this machine in records: ``$DQX_MACHINE``, or that of the host."""
    return os.environ.get("DQX_MACHINE") or platform.node()


def checkout() -> dict[str, Any]:
    """The commit dqx was imported from, and whether tracked files differ; None without one."""
    root = Path(__file__).resolve().parents[2]
    # Set in hooks of git, these would point to another repository.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(root), *arguments]
        try:
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # A folder of installed packages may lie inside some checkout that is not dqx's.
    commit = git("rev-parse", "--verify", "HEAD") if (root / ".git").exists() else None
    status = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"git_commit": commit, "git_modified": None if status is None else bool(status)}


def peak_device_bytes(names: tuple[str, ...]) -> int | None:
    """The sum of the devices' peaks; None for CPUs, whose memory is the process's."""
    if "jax" not in sys.modules:  # a result that was not trained in this process
        return None
    import jax

    devices = [device for device in jax.local_devices() if str(device) in names]
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    known = [peak for peak in peaks if peak is not None]
    return sum(known) if known else None
