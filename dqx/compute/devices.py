"""Where chunks run: one place for each CPU core, or each GPU.

On a CPU all places are the same JAX device. A program compiled for it is called by as many threads
as there are places, and each call runs on a core of its own. So nothing depends on how many CPU
devices JAX has started with.
"""

import os
from collections.abc import Sequence

import jax

from dqx.arguments import each, instance, require
from dqx.compute.limits import Limit, free_memory
from dqx.settings import ConfigError

_DEVICES = each(
    instance("a JAX device", jax.Device),
    "cpu, gpu or tpu, a number of them such as cpu:2, or a list of JAX devices",
)

Places = tuple[jax.Device, ...]

# How many threads JAX's CPU backend has, read when it starts; as many as cores if it is not set. A
# thread that waits looks for work in a loop: on a core of another process, whose training then
# takes 1.6 times as long.
THREADS = "PJRT_NPROC"


def select_devices(spec: str | Sequence[jax.Device] | None = None) -> Places:
    """The places that ``spec`` names, one for each chunk that runs at a time.

    Args:
        spec: ``"cpu"`` (every core), ``"cpu:2"`` (two of them), ``"gpu"``, ``"gpu:1"``, a sequence
            of JAX devices, or None: all GPUs or TPUs if JAX sees any, else every CPU core.

    Raises:
        ConfigError: if the spec cannot be read, or asks for more than there is.
    """
    if spec is not None and not isinstance(spec, str):
        require(ConfigError, devices=(spec, _DEVICES))
        if not len(spec):
            raise ConfigError("devices: none are given; leave them out for every device there is")
        return tuple(spec)
    if spec is None:
        spec = jax.default_backend()
    kind, _, count = spec.partition(":")
    if (
        kind not in ("cpu", "gpu", "tpu")
        or (count and not count.isdecimal())
        or spec.endswith(":")
        or count == "0"
    ):
        raise ConfigError(
            f"devices must be cpu, gpu or tpu, or a number of them such as cpu:2, got {spec!r}"
        )
    try:
        devices = jax.local_devices(backend=kind)
    except RuntimeError as error:
        raise ConfigError(
            f"devices = {spec!r}, but JAX finds no {kind} here ({str(error).splitlines()[0]})"
        ) from None
    if kind == "cpu":
        devices = devices[:1] * cpu_cores()
    wanted = int(count) if count else len(devices)
    if wanted > len(devices):
        what = "CPU cores" if kind == "cpu" else f"{kind} devices"
        raise ConfigError(
            f"devices = {spec!r}, but there are only {len(devices)} {what}: "
            f"ask for {kind}:{len(devices)} or fewer"
        )
    return tuple(devices[:wanted])


def spare_cores(spec: str | None) -> None:
    """Gives JAX's CPU backend as many threads as ``spec`` asks for cores, such as ``"cpu:1"``.

    For a process that uses no more of them later; without effect once the backend has started, as
    it has where Gymnax was imported.
    """
    kind, _, count = (spec or "").partition(":")
    if kind == "cpu" and count.isdecimal() and int(count) > 0:
        os.environ.setdefault(THREADS, count)


def cpu_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def names_of(places: Sequence[jax.Device]) -> tuple[str, ...]:
    """The places in words: CPU cores by number, other devices as JAX calls them."""
    return tuple(f"cpu:{i}" if d.platform == "cpu" else str(d) for i, d in enumerate(places))


def free_bytes(places: Sequence[jax.Device]) -> Limit:
    """Memory that is still free on all ``places`` together, and what limits it."""
    if places[0].platform == "cpu":
        return free_memory()
    stats = [device.memory_stats() or {} for device in places]
    if any("bytes_limit" not in s for s in stats):
        return Limit(2**63 - 1, "memory of a device that does not tell")
    free = min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)
    return Limit(free * len(places), f"memory of {places[0].device_kind}")
