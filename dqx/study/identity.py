"""What the bits of a result depend on besides configuration and seed: software and kind of device.

Needs no JAX to compare two identities, only to make one.
"""

import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dqx.study.host import PACKAGES

if TYPE_CHECKING:
    import jax

# Flags of XLA that say where results are dumped, or how many devices there are if more than one,
# change no bits.
_HARMLESS_FLAGS = ("--xla_dump", "--xla_force_host_platform_device_count")
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_threefry_partitionable",
             "jax_numpy_dtype_promotion", "jax_default_prng_impl")  # fmt: skip


def identity(
    devices: "Sequence[jax.Device]", agents: Iterable[str] = (), games: Iterable[str] = ()
) -> dict[str, str]:
    """Everything, beyond a study's plan, that could change bits: texts by name.

    Args:
        devices: where it is trained, all of one kind.
        agents: names of the agents that are trained; those from outside of dqx are told by the
            checksum of their file.
        games: names of the environments; those of one's own are told by the checksum of the files
            of their classes, those of other suites by the version of the suite.
    """
    import jax

    # XLA compiles for the processor that it finds.
    is_cpu = devices[0].platform == "cpu"
    kind = processor() if is_cpu else devices[0].device_kind
    flags = os.environ.get("XLA_FLAGS", "").split()
    kept = sorted(flag for flag in flags if not flag.startswith(_HARMLESS_FLAGS))
    return {
        "device_kind": f"{devices[0].platform}: {kind}",
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        **(_libraries() if devices[0].platform == "gpu" else {}),
        "source": source(),
        **_foreign(agents),
        **_games(games),
        "xla_flags": " ".join(kept),
        **{name: str(jax.config.values[name]) for name in _SETTINGS},
    }


def _libraries() -> dict[str, str]:
    """Versions of what JAX calls on a GPU, as far as they were installed as packages."""
    names = {d.name for d in importlib.metadata.distributions() if d.name}
    wanted = sorted(n for n in names if n.startswith(("jax-cuda", "nvidia-cu", "nvidia-nccl")))
    return {name: importlib.metadata.version(name) for name in wanted}


# The rooms of dqx that compute: whatever lies in them is part of the promise about bits.
COMPUTING = ("agents", "arguments", "compute", "core", "settings")


@functools.cache
def source() -> str:
    """A checksum of the code of dqx and its environments that computes, 16 hexadecimal digits."""
    import dqx
    import envs

    package = Path(dqx.__file__).parent
    return checksum([*(package / name for name in COMPUTING), Path(envs.__file__).parent])


def checksum(folders: Iterable[Path]) -> str:
    """A checksum of all Python files in folders and the folders in them, 16 hexadecimal digits."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder.parent).as_posix()
            total.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def _foreign(agents: Iterable[str]) -> dict[str, str]:
    """The checksums of the files of agents that are not in dqx's own folder."""
    import dqx
    from dqx.agents import source_of

    own = Path(dqx.__file__).parent
    found = {}
    for name in sorted(set(agents)):
        path = source_of(name)
        if path is None or not path.is_relative_to(own):
            code = b"" if path is None else path.read_bytes()
            found[f"agent {name}"] = hashlib.sha256(code).hexdigest()[:16] if code else "no file"
    return found


def _games(names: Iterable[str]) -> dict[str, str]:
    """What the bits of environments from elsewhere depend on."""
    import envs

    found = {}
    for name in sorted(set(names)):
        version = envs.version_of(name)
        if version is not None:
            found[f"environment {name}"] = version
        elif envs.is_foreign(name):
            code = b"\0".join(path.read_bytes() for path in envs.sources_of(name))
            found[f"environment {name}"] = (
                hashlib.sha256(code).hexdigest()[:16] if code else "no file"
            )
    return found


def processor() -> str:
    """The processor's model and its vector instructions, as far as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    entries: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            entries[name.strip()] = value.strip()
    flags = entries.get("flags", entries.get("Features", "")).split()
    vectors = " ".join(sorted(f for f in flags if f.startswith(("avx", "fma", "sve", "asimd"))))
    return f"{entries.get('model name', platform.machine())} ({vectors})"


def differences(stored: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """What differs between two identities, one text each that shows both sides."""
    texts = []
    for name in [*stored, *(n for n in present if n not in stored)]:
        then, now = stored.get(name, "nothing"), present.get(name, "nothing")
        if then != now:
            texts.append(f"{name} was {then!r} and is {now!r} here")
    return texts
