"""What the bits of a result depend on besides configuration and seed: software and kind of device.

Needs no JAX to compare two identities, only to make one.
"""

import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dqx.output import PACKAGES

if TYPE_CHECKING:
    import jax

# Flags of XLA that say where results are dumped, or how many devices there are if more than one,
# change no bits.
_HARMLESS_FLAGS = ("--xla_dump", "--xla_force_host_platform_device_count")
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_threefry_partitionable",
             "jax_numpy_dtype_promotion", "jax_default_prng_impl")  # fmt: skip


def identity(devices: "Sequence[jax.Device]") -> dict[str, str]:
    """Everything, beyond a study's plan, that could change bits: texts by name."""
    import jax

    from dqx.parallel import with_company

    kind = f"{devices[0].platform}: {devices[0].device_kind}"
    if devices[0].platform == "cpu":
        # XLA compiles for the processor that it finds.
        kind = f"cpu: {processor()}"
        # For a single device XLA compiles in another way; see ``parallel.with_company``.
        if len(with_company(tuple(devices[:1]))) == 1:
            kind += ", a single device"
    flags = os.environ.get("XLA_FLAGS", "").split()
    kept = sorted(flag for flag in flags if not flag.startswith(_HARMLESS_FLAGS))
    return {
        "device_kind": kind,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        **(_libraries() if devices[0].platform == "gpu" else {}),
        "source": source(),
        "xla_flags": " ".join(kept),
        **{name: str(jax.config.values[name]) for name in _SETTINGS},
    }


def _libraries() -> dict[str, str]:
    """Versions of what JAX calls on a GPU, as far as they were installed as packages."""
    names = {d.name for d in importlib.metadata.distributions() if d.name}
    wanted = sorted(n for n in names if n.startswith(("jax-cuda", "nvidia-cu", "nvidia-nccl")))
    return {name: importlib.metadata.version(name) for name in wanted}


# The modules of dqx on which numbers of a run depend.
COMPUTING = (
    "agent", "config", "convolution", "environment", "evaluation", "exploration", "keys", "loop",
    "losses", "networks", "parallel", "replay", "rounds", "run", "solution", "tabular", "types",
)  # fmt: skip


@functools.cache
def source() -> str:
    """A checksum of the code of dqx and its environments that computes, 16 hexadecimal digits."""
    import dqx
    import envs

    total = hashlib.sha256()
    package = Path(dqx.__file__).parent
    paths = [package / f"{name}.py" for name in COMPUTING]
    for path in [*paths, *sorted(Path(envs.__file__).parent.glob("*.py"))]:
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


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
