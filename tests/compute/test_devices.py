"""Which places a run gets, and what memory is free on them."""

import dataclasses
import os
import subprocess
import sys

import jax
import pytest

from dqx.compute import devices
from dqx.compute.limits import Limit
from dqx.settings import ConfigError

CPU = jax.local_devices(backend="cpu")
CORES = len(os.sched_getaffinity(0))


def test_cpu_is_one_place_for_every_core_all_of_them_the_same_device():
    assert devices.select_devices("cpu") == (CPU[0],) * CORES


@pytest.mark.parametrize("cores", [{0}, {0, 1, 5}])
def test_only_cores_that_the_process_may_run_on_count(monkeypatch, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores)
    assert devices.cpu_cores() == len(devices.select_devices("cpu")) == len(cores)
    with pytest.raises(ConfigError, match=f"only {len(cores)} CPU cores"):
        devices.select_devices(f"cpu:{len(cores) + 1}")


def test_without_affinities_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert devices.cpu_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert devices.cpu_cores() == 1


@pytest.mark.parametrize("count", range(1, CORES + 1))
def test_a_number_takes_as_many(count):
    assert devices.select_devices(f"cpu:{count}") == (CPU[0],) * count


def test_nothing_is_every_device_of_the_default_kind():
    if jax.default_backend() == "cpu":
        assert devices.select_devices(None) == devices.select_devices("cpu")
    else:
        assert devices.select_devices(None) == tuple(jax.local_devices())


def test_devices_themselves_pass():
    assert devices.select_devices(CPU[-1:]) == (CPU[-1],)
    assert devices.select_devices([CPU[0]] * 3) == (CPU[0],) * 3


@pytest.mark.parametrize(
    ("spec", "threads"),
    [
        ("cpu:1", "1"),
        ("cpu:12", "12"),
        ("cpu", None),
        ("cpu:0", None),
        ("gpu:1", None),
        (None, None),
    ],
)
def test_cores_are_spared_where_their_number_is_said(monkeypatch, spec, threads):
    monkeypatch.setattr(os, "environ", {})
    devices.spare_cores(spec)
    assert os.environ.get("PJRT_NPROC") == threads


def test_what_was_said_of_threads_before_stays(monkeypatch):
    monkeypatch.setattr(os, "environ", {"PJRT_NPROC": "3"})
    devices.spare_cores("cpu:1")
    assert os.environ == {"PJRT_NPROC": "3"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted as on Linux")
def test_a_spared_core_has_no_thread_of_xla():
    """Else a core that waits is taken from the process that trains on it."""
    script = """if True:
        import pathlib
        import jax
        from dqx.compute.devices import spare_cores
        spare_cores("cpu:1")
        jax.numpy.ones(3).block_until_ready()
        names = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
        print(names.count("tf_XLAEigen\\n"))
    """
    env = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1"]


def test_no_devices_are_refused():
    with pytest.raises(ConfigError, match="devices: none are given"):
        devices.select_devices([])


@pytest.mark.parametrize(
    "spec",
    ["cpu:0", "cpu:-1", "cpu:1.5", "cpu:two", "cpu:", "cpu:1:2", "", ":", ":1", "CPU", "nonsense"],
)
def test_specs_that_cannot_be_read_are_refused(spec):
    with pytest.raises(ConfigError) as caught:
        devices.select_devices(spec)
    message = str(caught.value)
    assert "cpu, gpu or tpu" in message and "cpu:2" in message and repr(spec) in message


def test_more_places_than_there_are_are_refused():
    with pytest.raises(
        ConfigError, match=f"'cpu:999'.*only {CORES} CPU cores: ask for cpu:{CORES} or fewer"
    ):
        devices.select_devices("cpu:999")


ABSENT = [kind for kind in ("gpu", "tpu") if kind != jax.default_backend()]


@pytest.mark.parametrize("spec", [spec for kind in ABSENT for spec in (kind, f"{kind}:4")])
def test_kinds_that_are_absent_are_refused(spec):
    kind = spec.partition(":")[0]
    with pytest.raises(ConfigError, match=f"'{spec}', but JAX finds no {kind} here") as caught:
        devices.select_devices(spec)
    assert "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A device that reports memory as JAX's GPU devices do."""

    stats: dict | None
    platform: str = "gpu"
    device_kind: str = "Made-up 9"

    def memory_stats(self):
        return self.stats

    def __str__(self):
        return "gpu(id=3)"


def test_places_in_words():
    assert devices.names_of((CPU[0], CPU[0])) == ("cpu:0", "cpu:1")
    assert devices.names_of((Accelerator(None),)) == ("gpu(id=3)",)


def test_free_memory_of_accelerators_is_what_the_fullest_leaves_on_each():
    full = Accelerator({"bytes_limit": 1000, "bytes_in_use": 900})
    empty = Accelerator({"bytes_limit": 1000, "bytes_in_use": 0})
    assert devices.free_bytes([empty]) == Limit(1000, "memory of Made-up 9")
    assert devices.free_bytes([empty, empty]).bytes == 2000
    assert devices.free_bytes([full, empty]).bytes == 200  # a chunk may run on either
    for silent in ([Accelerator(None)], [empty, Accelerator({})]):
        found = devices.free_bytes(silent)
        assert found.bytes >= 2**62 and "does not tell" in found.what


def test_free_memory_of_cpu_places_is_the_process_s_however_many(monkeypatch):
    limit = Limit(12345, "what there is")
    monkeypatch.setattr(devices, "free_memory", lambda: limit)
    for count in (1, 4):
        assert devices.free_bytes(CPU[:1] * count) == limit
