"""Facts of the host that a study records."""

import platform
import subprocess

import jax

import dqx
from dqx.study import host


def test_versions_are_those_that_are_installed():
    found = host.versions()
    assert set(found) == {
        "python", "jax", "jaxlib", "dqx", "flax", "optax", "gymnax", "numpy"
    }  # fmt: skip
    assert (found["python"], found["jax"]) == (platform.python_version(), jax.__version__)
    assert found["dqx"] == dqx.__version__


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    (root / "dqx" / "study").mkdir(parents=True)
    monkeypatch.setattr(host, "__file__", str(root / "dqx" / "study" / "host.py"))
    nothing = {"git_commit": None, "git_modified": None}
    assert host.checkout() == nothing

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(root), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert host.checkout() == nothing  # no commit yet
    (root / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    expected = (root / ".git" / "refs" / "heads").rglob("*")
    (commit,) = (path.read_text().strip() for path in expected if path.is_file())
    assert host.checkout() == {"git_commit": commit, "git_modified": False}
    (root / "file").write_text("2")
    assert host.checkout() == {"git_commit": commit, "git_modified": True}
    # Packages installed somewhere below a checkout are not that checkout.
    monkeypatch.setattr(host, "__file__", str(root / "venv" / "dqx" / "study" / "host.py"))
    assert host.checkout() == nothing
    monkeypatch.setattr(host, "__file__", str(root / "dqx" / "study" / "host.py"))
    monkeypatch.setenv("PATH", "")
    assert host.checkout() == nothing


def test_cpus_have_no_memory_of_their_own():
    assert host.peak_device_bytes(tuple(map(str, jax.devices("cpu")))) is None
