"""Memory limits are read from hand-made trees of control groups, and from a real ``ulimit``."""

import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from dqx.compute import limits

MIB = 2**20
MACHINE = "free memory of the machine"
GROUP = "memory limit of the control group (cgroup) "
# Lines of a real machine with both versions: other controllers and file systems lie between.
OTHER_MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
not a line of mountinfo
"""
V1_MOUNT = "35 31 0:32 {root} {point} rw,relatime shared:11 - cgroup cgroup rw,memory\n"
V2_MOUNT = "41 31 0:38 {root} {point} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"


def tree(root: Path, groups: str, mounts: str, files: Mapping[str, object]) -> Path:
    """Writes a machine's files below ``root``."""
    proc = {"proc/self/cgroup": groups, "proc/self/mountinfo": OTHER_MOUNTS + mounts}
    for name, text in {**proc, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n" if isinstance(text, int) else str(text))
    return root


def v2(folder: str, limit: object, usage: int = 0, inactive: int = 0, active: int = 0) -> dict:
    stat = f"anon 5\nfile 6\ninactive_file {inactive}\nactive_file {active}\nslab 7\n"
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": usage,
        f"{folder}/memory.stat": stat,
        f"{folder}/memory.high": 1,
    }


def v1(folder: str, limit: object, usage: int = 0, inactive: int = 0, active: int = 0) -> dict:
    # Without "total_" they do not count the groups below.
    stat = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {inactive}\n"
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": usage,
        f"{folder}/memory.stat": f"{stat}total_active_file {active}\n",
    }


def mount(line: str, point: str, root: str = "/") -> str:
    return line.format(root=root, point=point)


V2_ONLY = mount(V2_MOUNT, "/sys/fs/cgroup")
V1_ONLY = mount(V1_MOUNT, "/sys/fs/cgroup/memory")
HYBRID = V1_ONLY + mount(V2_MOUNT, "/sys/fs/cgroup/unified")
CASES = {
    "version 2: limit minus usage, files given back": (
        "0::/a/b\n",
        V2_ONLY,
        v2("sys/fs/cgroup/a/b", 100 * MIB, 60 * MIB, 10 * MIB, 5 * MIB),
        (55 * MIB, GROUP + "/a/b"),
    ),
    "version 2: a parent is tighter": (
        "0::/a/b/c\n",
        V2_ONLY,
        v2("sys/fs/cgroup/a/b/c", 90 * MIB)
        | v2("sys/fs/cgroup/a/b", "max", 80 * MIB)
        | v2("sys/fs/cgroup/a", 100 * MIB, 80 * MIB),
        (20 * MIB, GROUP + "/a"),
    ),
    "version 2: the group itself is tighter": (
        "0::/a/b\n",
        V2_ONLY,
        v2("sys/fs/cgroup/a/b", 10 * MIB) | v2("sys/fs/cgroup/a", 100 * MIB, 80 * MIB),
        (10 * MIB, GROUP + "/a/b"),
    ),
    "version 2: max is no limit": (
        "0::/a\n",
        V2_ONLY,
        v2("sys/fs/cgroup/a", "max", 80 * MIB),
        None,
    ),
    "version 2: more in use than allowed": (
        "0::/a\n",
        V2_ONLY,
        v2("sys/fs/cgroup/a", 10 * MIB, 11 * MIB),
        (0, GROUP + "/a"),
    ),
    "version 2: files count at most as much as is in use": (
        "0::/a\n",
        V2_ONLY,
        v2("sys/fs/cgroup/a", 10 * MIB, 2 * MIB, 3 * MIB),
        (10 * MIB, GROUP + "/a"),
    ),
    "version 2: a group of its own namespace": (
        "0::/\n",
        V2_ONLY,
        v2("sys/fs/cgroup", 10 * MIB, MIB),
        (9 * MIB, GROUP + "/"),
    ),
    "version 2: another group's limit is not ours": (
        "0::/a\n",
        V2_ONLY,
        v2("sys/fs/cgroup/a", "max") | v2("sys/fs/cgroup/b", MIB) | v2("sys/fs/cgroup/a/x", MIB),
        None,
    ),
    "version 2: the path is not in the mount, whose root holds the limit": (
        "0::/host/pod\n",
        V2_ONLY,
        v2("sys/fs/cgroup", 10 * MIB) | v2("sys/fs/cgroup/host", MIB),
        (10 * MIB, GROUP + "/"),
    ),
    "version 2: the path leads out of the namespace": (
        "0::/../other\n",
        V2_ONLY,
        v2("sys/fs/cgroup", 10 * MIB) | v2("sys/fs/other", MIB),
        (10 * MIB, GROUP + "/"),
    ),
    "version 2: the container's own group is mounted": (
        "0::/pods/one/task\n",
        mount(V2_MOUNT, "/sys/fs/cgroup", "/pods/one"),
        v2("sys/fs/cgroup/task", 30 * MIB) | v2("sys/fs/cgroup", 20 * MIB),
        (20 * MIB, GROUP + "/pods/one"),
    ),
    "version 2: the mount that shows more parents is read": (
        "0::/pods/one\n",
        mount(V2_MOUNT, "/mnt", "/pods/one") + V2_ONLY,
        v2("mnt", 30 * MIB)
        | v2("sys/fs/cgroup/pods/one", 30 * MIB)
        | v2("sys/fs/cgroup/pods", MIB),
        (MIB, GROUP + "/pods"),
    ),
    "version 2: blanks and colons in names": (
        "0::/a:b c\n",
        mount(V2_MOUNT, r"/sys/fs/control\040groups\134x"),
        v2(r"sys/fs/control groups\x/a:b c", 10 * MIB),
        (10 * MIB, GROUP + "/a:b c"),
    ),
    "version 1: limit minus usage, files given back": (
        "9:name=systemd:/s\n4:cpu,memory:/a/b\n3:cpuset:/c\n",
        V1_ONLY,
        v1("sys/fs/cgroup/memory/a/b", 100 * MIB, 60 * MIB, 10 * MIB, 5 * MIB),
        (55 * MIB, GROUP + "/a/b"),
    ),
    "version 1: a parent is tighter": (
        "4:memory:/a/b\n",
        V1_ONLY,
        v1("sys/fs/cgroup/memory/a/b", 90 * MIB) | v1("sys/fs/cgroup/memory/a", 80 * MIB, 70 * MIB),
        (10 * MIB, GROUP + "/a"),
    ),
    "version 1: nearly 2**63 is no limit": (
        "4:memory:/a\n",
        V1_ONLY,
        v1("sys/fs/cgroup/memory/a", 9223372036854771712) | v1("sys/fs/cgroup/memory", 2**63 - 1),
        None,
    ),
    "version 1: the path is the host's, the mount the container's": (
        "4:memory:/docker/0123\n",
        mount(V1_MOUNT, "/sys/fs/cgroup/memory", "/docker/0123"),
        v1("sys/fs/cgroup/memory", 10 * MIB, MIB),
        (9 * MIB, GROUP + "/docker/0123"),
    ),
    "version 1: more in use than allowed": (
        "4:memory:/a\n",
        V1_ONLY,
        v1("sys/fs/cgroup/memory/a", 10 * MIB, 12 * MIB, MIB),
        (0, GROUP + "/a"),
    ),
    "both: memory under version 1": (
        "4:memory:/a\n0::/u\n",
        HYBRID,
        v1("sys/fs/cgroup/memory/a", 10 * MIB) | {"sys/fs/cgroup/unified/u/cgroup.procs": "1\n"},
        (10 * MIB, GROUP + "/a"),
    ),
    "both: memory under version 2": (
        "4:cpu:/a\n0::/u\n",
        mount(V2_MOUNT, "/sys/fs/cgroup/unified"),
        v2("sys/fs/cgroup/unified/u", 10 * MIB),
        (10 * MIB, GROUP + "/u"),
    ),
    "no control groups at all": ("", "", {}, None),
    "control groups, but none is mounted": ("4:memory:/a\n0::/a\n", "", {}, None),
    "lines that say nothing": ("\n:\nnonsense\n", V2_ONLY, v2("sys/fs/cgroup", MIB), None),
    "a limit that is no number": ("0::/a\n", V2_ONLY, v2("sys/fs/cgroup/a", "-1"), None),
    "usage and statistics are missing": (
        "0::/a\n",
        V2_ONLY,
        {"sys/fs/cgroup/a/memory.max": 10 * MIB},
        (10 * MIB, GROUP + "/a"),
    ),
    "statistics make no sense": (
        "0::/a\n",
        V2_ONLY,
        v2("sys/fs/cgroup/a", 10 * MIB, MIB)
        | {"sys/fs/cgroup/a/memory.stat": "inactive_file\nactive_file x\n\n \n"},
        (9 * MIB, GROUP + "/a"),
    ),
}


@pytest.fixture
def spacious(monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine with more free memory than any limit here allows, and no ``ulimit``."""
    free = 2**50
    machine = psutil.virtual_memory()._replace(available=free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    return free


@pytest.mark.parametrize("case", CASES)
def test_free_memory_is_what_the_control_groups_leave(
    case: str, tmp_path: Path, spacious: int
) -> None:
    groups, mounts, files, expected = CASES[case]
    found = limits.free_memory(tree(tmp_path, groups, mounts, files))
    assert found == (expected or (spacious, MACHINE))


@pytest.mark.parametrize("file", ["memory.max", "memory.current", "memory.stat"])
@pytest.mark.parametrize("damage", ["folder", "bytes", "empty"])
def test_unreadable_files_of_a_group_are_no_limit_and_no_error(
    file: str, damage: str, tmp_path: Path, spacious: int
) -> None:
    """A folder in the place of a file cannot be read even by root."""
    tree(tmp_path, "0::/a\n", V2_ONLY, v2("sys/fs/cgroup/a", 10 * MIB, 4 * MIB, MIB))
    path = tmp_path / "sys/fs/cgroup/a" / file
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"\xff\xfe\0\n" if damage == "bytes" else b"")
    left = {"memory.max": spacious, "memory.current": 10 * MIB, "memory.stat": 6 * MIB}
    assert limits.free_memory(tmp_path).bytes == left[file]


def test_the_machine_itself_may_be_the_tightest(
    tmp_path: Path, spacious: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "0::/a\n", V2_ONLY, v2("sys/fs/cgroup/a", 10 * MIB))
    machine = psutil.virtual_memory()._replace(available=9 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert limits.free_memory(tmp_path) == (9 * MIB, MACHINE)


def test_other_systems_only_ask_the_machine(
    tmp_path: Path, spacious: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    tree(tmp_path, "0::/a\n", V2_ONLY, v2("sys/fs/cgroup/a", MIB))
    assert limits.free_memory(tmp_path) == (spacious, MACHINE)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce these limits")
@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("RLIMIT_AS", "address space limit (ulimit -v)"),
        ("RLIMIT_DATA", "data segment limit (ulimit -d)"),
    ],
)
def test_a_process_under_a_ulimit_sees_it_and_can_map_what_is_said_to_be_free(
    kind: str, what: str
) -> None:
    """The kernel is the oracle: it maps a little less than is said to be free, and no more."""
    code = f"""
import mmap, psutil, resource, sys
from pathlib import Path
from dqx.compute.limits import free_memory
assert "jax" not in sys.modules
limit = psutil.Process().memory_info().vms + 256 * 2**20
resource.setrlimit(resource.{kind}, (limit, resource.getrlimit(resource.{kind})[1]))
found = free_memory(Path("/nonexistent"))
print(found.what)
private = dict(flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
mmap.mmap(-1, found.bytes - 8 * 2**20, **private).close()
try:
    mmap.mmap(-1, found.bytes + 8 * 2**20, **private)
except OSError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [what, "refused"]


def test_a_ulimit_below_what_is_in_use_leaves_nothing(
    tmp_path: Path, spacious: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = {resource.RLIMIT_AS: MIB, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (tight[kind], MIB))
    assert limits.free_memory(tmp_path) == (0, "address space limit (ulimit -v)")


def test_this_machine_has_some_memory_free() -> None:
    found = limits.free_memory()
    assert 0 < found.bytes <= psutil.virtual_memory().total
    assert found.what


def test_resident_bytes_is_a_peak_between_the_present_and_the_machine() -> None:
    peak = limits.resident_bytes()
    assert peak is not None
    held = bytearray(64 * MIB)  # zeros that are not written may not be resident
    held[::4096] = b"x" * len(held[::4096])
    now = psutil.Process().memory_info().rss
    grown = limits.resident_bytes()
    assert grown is not None
    assert max(peak, 0.9 * now) <= grown <= psutil.virtual_memory().total
