"""Which devices a run uses, and how much memory they have left."""

import warnings
from collections.abc import Sequence

import jax
import psutil

from dqx.config import ConfigError
from envs._cores import cpu_cores, split_cpu_into_cores


def select_devices(spec: str | Sequence[jax.Device] | None = None) -> tuple[jax.Device, ...]:
    """The devices that ``spec`` names.

    Args:
        spec: ``"cpu"`` (every core), ``"cpu:2"`` (two of them), ``"gpu"``, ``"gpu:1"``, a sequence
            of JAX devices, or None: all GPUs or TPUs if JAX sees any, else every CPU core.

    Raises:
        ConfigError: if the spec cannot be read, or asks for more devices than there are.
    """
    if spec is not None and not isinstance(spec, str):
        if not spec:
            raise ConfigError("devices: none are given; leave them out for every device there is")
        return tuple(spec)
    split_cpu_into_cores()
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
    wanted = int(count) if count else len(devices)
    if wanted > len(devices):
        raise ConfigError(
            f"devices = {spec!r}, but there are only {len(devices)} {kind} devices: "
            f"ask for {kind}:{len(devices)} or fewer" + _started_early(kind, len(devices))
        )
    if not count and (hint := _started_early(kind, len(devices))):
        warnings.warn(f"training on {len(devices)} CPU device{hint}", stacklevel=3)
    return tuple(devices[:wanted])


def free_bytes(devices: Sequence[jax.Device]) -> int:
    """Memory that is still free on all ``devices`` together; CPU devices share the machine's."""
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().available
    stats = [device.memory_stats() or {} for device in devices]
    if any("bytes_limit" not in s for s in stats):
        return 2**63 - 1  # a backend that does not say; nothing can be predicted there
    return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats) * len(devices)


def _started_early(kind: str, count: int) -> str:
    if kind == "cpu" and count < cpu_cores():
        return (
            f" (the machine has {cpu_cores()} cores, but JAX was used before dqx and started with "
            f"{count}: call jax.config.update('jax_num_cpu_devices', n) first)"
        )
    return ""
