"""The compilation cache: programs are found again, damage changes nothing, strangers stay out."""

import importlib.metadata
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from dqx.compute import cache

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_enable_xla_caches",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
    "jax_raise_persistent_cache_errors",
)
# Compiles functions that matter to no other, and says what they gave and where they came from.
PROGRAM = """
import collections, hashlib, json, sys, warnings
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from dqx.compute import cache
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.split("/")[-1]]))
values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
{before}
said, folder = [], None
warnings.simplefilter("always")
warnings.showwarning = lambda message, *_, **__: said.append(str(message))
if len(sys.argv) > 1:
    folder = cache.enable(Path(sys.argv[1]))
results = hashlib.sha256()
for i in range(7):
    def program(x):
        x = jnp.tanh(x @ x.T) / (i + 2) + jnp.sort(x, axis=0)
        return x + jax.random.normal(jax.random.key(i), x.shape)
    program.__name__ = f"program_{{i}}"
    results.update(np.asarray(jax.jit(program)(values)).tobytes())
print(json.dumps(dict(
    results=results.hexdigest(), said=said, folder=folder and str(folder),
    found=events["cache_hits"], written=events["cache_misses"])))
"""
PROGRAMS = 7


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    env = {name: v for name, v in os.environ.items() if not name.startswith("JAX_COMPILATION_")}
    env |= {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    env |= {name: value for name, value in changes.items() if value is not None}
    return {name: v for name, v in env.items() if changes.get(name, v) is not None}


def run(folder: Path | None, before: str = "", **changes: str | None) -> Any:
    """Runs the program in a process of its own, which must not fail, and reads what it says."""
    command = [sys.executable, "-c", PROGRAM.format(before=before)]
    if folder is not None:
        command.append(str(folder))
    done = subprocess.run(command, env=environment(changes), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return SimpleNamespace(**json.loads(done.stdout))


@pytest.fixture(scope="module")
def plain() -> Any:
    """What the program gives without a cache."""
    return run(None)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Leaves JAX as it was, and the user's own choices out."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    before = {name: jax.config.values[name] for name in SETTINGS}
    yield monkeypatch
    cache.disable()
    for name, value in before.items():
        jax.config.update(name, value)


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_garbage(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


def damage_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[2 * len(data) // 3] ^= 1
    path.write_bytes(data)


def damage_other(path: Path) -> None:
    """Another program's entry, whole, under this one's name."""
    other = next(entry for entry in sorted(path.parent.iterdir()) if entry != path)
    path.write_bytes(other.read_bytes())


def damage_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damage_full_folder(path: Path) -> None:
    damage_folder(path)
    (path / "file").write_text("not ours to delete")


DAMAGES: tuple[Callable[[Path], None], ...] = (
    damage_other,  # first, while the other is whole
    damage_truncate,
    damage_empty,
    damage_garbage,
    damage_bit,
    damage_folder,
    damage_full_folder,
)


def test_programs_are_found_again_and_damage_is_named_mended_and_changes_no_result(
    tmp_path: Path, plain: Any
) -> None:
    folder = tmp_path / "a" / "cache"
    first = run(folder)
    assert (first.found, first.written) == (0, PROGRAMS)
    second = run(folder)
    assert (second.found, second.written) == (PROGRAMS, 0)
    entries = sorted(folder.iterdir())
    assert len(entries) == PROGRAMS == len(DAMAGES)
    for entry, damage in zip(entries, DAMAGES, strict=True):
        damage(entry)
    third = run(folder)
    assert third.found == 0
    said = [
        f"the compilation cache entry {entry.name} is damaged and was ignored" for entry in entries
    ]
    said[-2:] = [
        f"the compilation cache entry {entry.name} cannot be read and was ignored: Is a directory"
        for entry in entries[-2:]
    ]
    assert sorted(third.said) == said
    fourth = run(folder)
    assert (fourth.found, fourth.said) == (PROGRAMS - 1, said[-1:])
    assert (entries[-1] / "file").exists()
    assert first.said == second.said == plain.said == []
    assert {r.results for r in (first, second, third, fourth)} == {plain.results}


def test_a_cache_may_begin_move_and_end_while_jax_is_in_use(tmp_path: Path, plain: Any) -> None:
    before = """
jax.jit(lambda x: x + 1)(values)
cache.enable(Path(sys.argv[1] + "-old"))
jax.jit(lambda x: x + 2)(values)
cache.disable()
jax.jit(lambda x: x + 3)(values)
events.clear()
"""
    done = run(tmp_path / "new", before, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "user"))
    assert (done.written, done.results, done.said) == (PROGRAMS, plain.results, [])
    assert len(list((tmp_path / "new").iterdir())) == PROGRAMS
    assert len(list((tmp_path / "new-old").iterdir())) == 1
    # JAX itself took the user's folder until the cache was first enabled.
    assert [path.suffix for path in (tmp_path / "user").iterdir()] == [""]


def test_processes_that_share_a_folder_do_not_disturb_each_other(
    tmp_path: Path, plain: Any
) -> None:
    command = [sys.executable, "-c", PROGRAM.format(before=""), str(tmp_path / "cache")]
    both = [
        subprocess.Popen(command, env=environment({}), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        done = json.loads(process.communicate()[0])
        assert process.returncode == 0
        assert (done["results"], done["said"]) == (plain.results, [])
        assert done["found"] + done["written"] == PROGRAMS
    assert len(list((tmp_path / "cache").iterdir())) == PROGRAMS


@pytest.mark.parametrize(
    "changes",
    [
        {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": None},
        {"HOME": "relative", "XDG_CACHE_HOME": "/proc/nowhere"},
        {"JAX_COMPILATION_CACHE_DIR": "/proc/nowhere"},
        {"JAX_COMPILATION_CACHE_DIR": "gs://bucket/cache"},
    ],
    ids=["home", "cache home", "chosen", "remote"],
)
def test_a_folder_that_cannot_be_made_is_one_line_and_no_cache(
    changes: Mapping[str, str | None], settings: pytest.MonkeyPatch
) -> None:
    """Not even root makes a folder in /proc."""
    for name, value in changes.items():
        if value is None:
            settings.delenv(name, raising=False)
        else:
            settings.setenv(name, value)
    with pytest.warns(UserWarning, match="^compiled programs are not kept: [^\n]+$") as said:
        assert cache.enable() is None
    assert len(said) == 1
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_home_that_nothing_names_is_one_line_and_no_cache(settings: pytest.MonkeyPatch) -> None:
    settings.delenv("XDG_CACHE_HOME", raising=False)

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as pathlib does

    settings.setattr(Path, "home", nobody)
    with pytest.warns(UserWarning, match="not kept: Could not determine home directory"):
        assert cache.enable() is None


def test_a_file_in_the_place_of_the_folder_is_refused(
    tmp_path: Path, settings: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("mine")
    with pytest.warns(UserWarning, match="not kept: .*exists"):
        assert cache.enable(tmp_path / "cache") is None
    assert (tmp_path / "cache").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize("mode", [0o500, 0o300])
def test_a_folder_that_this_user_cannot_read_or_write_is_refused(
    mode: int, tmp_path: Path, settings: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir(mode=mode)
    with pytest.warns(UserWarning, match="not kept: .*Permission denied"):
        assert cache.enable(tmp_path / "cache") is None


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(
    mode: int, tmp_path: Path, settings: pytest.MonkeyPatch
) -> None:
    """Also if the user chose it for JAX, which would take it as it is."""
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    settings.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
    jax.config.update("jax_compilation_cache_dir", str(folder))
    with pytest.warns(UserWarning, match=f"other users can write to {re.escape(str(folder))}"):
        assert cache.enable() is None
    assert jax.config.values["jax_compilation_cache_dir"] is None
    folder.chmod(0o755)
    assert cache.enable() == folder


def test_a_folder_of_another_user_is_refused(tmp_path: Path, settings: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    settings.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.warns(UserWarning, match=f"belongs to another user .number {owner}"):
        assert cache.enable(tmp_path) is None


def test_folders_are_made_for_their_owner_alone(
    tmp_path: Path, settings: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    assert cache.enable(folder) == folder
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]


def test_settings_of_jax(tmp_path: Path, settings: pytest.MonkeyPatch) -> None:
    assert cache.enable(tmp_path) == tmp_path
    assert {name: jax.config.values[name] for name in SETTINGS} == {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_enable_compilation_cache": True,
        "jax_persistent_cache_enable_xla_caches": "none",
        "jax_persistent_cache_min_compile_time_secs": 0.5,
        "jax_persistent_cache_min_entry_size_bytes": 0,
        "jax_raise_persistent_cache_errors": False,
    }
    cache.disable()
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_user_may_turn_it_off(tmp_path: Path, settings: pytest.MonkeyPatch) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    assert cache.enable(tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists()


def test_a_jax_without_the_private_names_has_no_cache(
    tmp_path: Path, settings: pytest.MonkeyPatch
) -> None:
    settings.delattr("jax._src.compilation_cache._get_cache")
    with pytest.warns(UserWarning, match="does not know the cache of JAX"):
        assert cache.enable(tmp_path) is None
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_the_folder_is_named_by_jaxlib_and_processor_below_the_users_caches(
    tmp_path: Path, settings: pytest.MonkeyPatch
) -> None:
    version = re.escape(importlib.metadata.version("jaxlib"))
    settings.setenv("XDG_CACHE_HOME", "/caches")
    settings.setenv("HOME", "/someone")
    assert re.fullmatch(rf"/caches/dqx/xla/{version}-[0-9a-f]{{12}}", str(cache.cache_folder()))
    for ignored in ("", "relative"):
        settings.setenv("XDG_CACHE_HOME", ignored)
        assert cache.cache_folder().is_relative_to("/someone/.cache/dqx/xla")
    settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert cache.cache_folder() == tmp_path


X86 = """\
processor\t: 0
model name\t: A Processor @ 2.00GHz
cpu MHz\t\t: {mhz}
flags\t\t: fpu sse {flag}

processor\t: 1
model name\t: A Processor @ 2.00GHz
flags\t\t: fpu sse {second}
"""
ARM = "processor\t: 0\nFeatures\t: fp {flag}\nCPU part\t: 0xd0c\n"


def test_the_name_depends_on_instructions_and_cores_and_on_nothing_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(text: str, cores: int = 4, machine: str = "x86_64") -> str:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setattr("platform.machine", lambda: machine)
        return cache._processor(tmp_path / "cpuinfo")

    base = name(X86.format(mhz=1, flag="avx", second="avx"))
    assert name(X86.format(mhz=2, flag="avx", second="")) == base
    others = [
        name(X86.format(mhz=1, flag="avx2", second="avx")),
        name(X86.format(mhz=1, flag="avx", second="avx").replace("A Proc", "B Proc")),
        name(X86.format(mhz=1, flag="avx", second="avx"), cores=8),
        name(X86.format(mhz=1, flag="avx", second="avx"), machine="i686"),
        name(ARM.format(flag="asimd")),
        name(ARM.format(flag="sve")),
    ]
    assert len({base, *others}) == 1 + len(others)
    (tmp_path / "cpuinfo").unlink()  # as on other systems
    assert re.fullmatch("[0-9a-f]{12}", cache._processor(tmp_path / "cpuinfo"))


def test_naming_the_folder_does_not_import_jax() -> None:
    code = (
        "import sys; from dqx.compute.cache import *; cache_folder(); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_flipped_bit_and_every_lost_byte_is_noticed(tmp_path: Path) -> None:
    entries = cache._Entries(tmp_path)
    entries.put("key", b"content")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = [
        whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :]
        for i in range(len(whole))
        for bit in range(8)
    ]
    for damaged in [*flipped, *(whole[:i] for i in range(len(whole))), whole + b"\0"]:
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="is damaged and was ignored"):
            assert entries.get("key") is None
        assert not path.exists()
    path.write_bytes(whole)
    assert entries.get("key") == b"content"


def test_entries_of_another_key_or_processor_are_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cache._Entries(tmp_path)
    here.put("key", b"here")
    monkeypatch.setattr(cache, "_processor", lambda: "elsewhere")
    elsewhere = cache._Entries(tmp_path)
    assert (here.get("other"), elsewhere.get("key")) == (None, None)
    elsewhere.put("key", b"elsewhere")
    assert (here.get("key"), elsewhere.get("key")) == (b"here", b"elsewhere")


def test_functions_of_any_length_of_name_have_entries(tmp_path: Path) -> None:
    entries = cache._Entries(tmp_path)
    keys = ["jit_" + "é" * 300 + f"-{i:064x}" for i in range(2)]
    for key in keys:
        entries.put(key, key.encode())
    assert [entries.get(key) for key in keys] == [key.encode() for key in keys]


def test_a_write_that_fails_is_one_line_and_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = cache._Entries(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="no further one will be: No space left on device") as said:
        entries.put("a", b"content")
        entries.put("b", b"content")
    assert len(said) == 1
    assert not list(tmp_path.iterdir())


def test_readers_see_whole_entries_while_they_are_written(tmp_path: Path) -> None:
    """Damage would be a warning, which is an error in the readers' threads."""
    entries = cache._Entries(tmp_path)
    contents = [bytes([i]) * 2**20 for i in range(4)]
    seen: list[bytes | None] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                seen.append(entries.get("key"))
        except BaseException as error:
            failures.append(error)

    def write() -> None:
        try:
            for content in contents * 3:
                entries.put("key", content)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write) for _ in range(2)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not failures
    assert len(seen) > 1
    assert all(content is None or content in contents for content in seen)
    assert entries.get("key") in contents


def test_pruning_keeps_what_was_used_last_and_deletes_only_its_own_files(tmp_path: Path) -> None:
    entries = cache._Entries(tmp_path)
    now = time.time()
    for age, key in enumerate("abcd"):
        entries.put(key, bytes(1000))
        os.utime(entries._file(key), (now - 100 - age,) * 2)
    strangers = [tmp_path / name for name in ("notes", "jit_f-cache", ".notes.0123.tmp")]
    fresh, stale = (tmp_path / f".x{cache._ENTRY}.{i}.tmp" for i in ("01ab", "02cd"))
    for path in (*strangers, fresh, stale):
        path.write_bytes(bytes(5000))
        os.utime(path, (now - 10_000,) * 2)
    os.utime(fresh)
    assert entries.get("d") is not None  # the oldest is the latest now
    cache._prune(tmp_path, most_bytes=2500)
    kept = {entries._file("d"), entries._file("a"), fresh, *strangers}
    assert set(tmp_path.iterdir()) == kept
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert entries.get("b") is None


def test_writing_prunes_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache._prune, "__defaults__", (2500,))
    entries = cache._Entries(tmp_path)
    for age, key in enumerate("abc"):
        entries.put(key, bytes(1000))
        os.utime(entries._file(key), (time.time() + age,) * 2)
    assert [entries.get(key) is not None for key in "abc"] == [False, True, True]
