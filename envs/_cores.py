"""One JAX device for each CPU core, so that programs can be spread over the cores."""

import os

import jax


def cpu_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split_cpu_into_cores() -> None:
    """Asks JAX for one CPU device a core, and at least two, unless the user chose a number.

    Two even on a single core: XLA compiles a program for one device otherwise than for several, and
    results shall not depend on the machine. It has to happen before gymnax is imported, because
    importing gymnax starts JAX; once JAX has started, nothing changes.
    """
    chosen = jax.config.values["jax_num_cpu_devices"] > 0
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or forced:
        return
    try:
        jax.config.update("jax_num_cpu_devices", max(2, cpu_cores()))
    except RuntimeError:
        # JAX has started with the devices it has: nothing to change any more, and whoever needs
        # more of them says so.
        return
