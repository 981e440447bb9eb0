"""What a user installs: the wheel alone trains, and the pinned versions cover what is declared."""

import json
import os
import re
import site
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from envs.adapters import SUITES

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12")
# Extras whose pins stand in constraints-suites.txt, and the package of each.
APART = {
    "cluster": "ray",
    "wandb": "wandb",
    **{prefix: suite.package for prefix, suite in SUITES.items()},
}
PIN = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)==(\S+)")

# One-letter classes keep the patterns from matching their own source.
REGISTRY = re.compile(
    rb"[p]ypi\.(?:org|io)|[p]ythonhosted|[a]naconda\.(?:org|com)|[i]ndex-url", re.IGNORECASE
)
HOME_PATH = re.compile(rb"(?<![\w.])/(?:home|Users)/\w|(?<![\w.])/[r]oot/|[A-Z]:\\Users\\")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Standard output of a command that has to succeed and sees no import overrides."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command} failed\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment outside the repository: the wheel, and borrowed dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    env = folder / "env"
    run(sys.executable, "-m", "venv", "--without-pip", env)
    python = env / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    # A .pth line lends only that folder: the .pth files inside it (the checkout's own editable
    # installation) are not read.
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(own) / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return env


def test_wheel_brings_both_packages_and_their_data(installed: Path, tmp_path: Path) -> None:
    code = """
import json, dqx, envs, importlib.metadata
from importlib.resources import files
print(json.dumps({
    "dqx": dqx.__file__, "envs": envs.__file__, "version": importlib.metadata.version("dqx"),
    "typed": [files(p).joinpath("py.typed").is_file() for p in ("dqx", "envs")],
    "page": sorted(f.name for f in files("dqx.report.page").joinpath("assets").iterdir()),
    "presets": sorted(f.name for f in files("dqx").joinpath("settings", "presets").iterdir()),
}))
"""
    seen = json.loads(run(installed / "bin" / "python", "-c", code, cwd=tmp_path))
    assert Path(seen["dqx"]).is_relative_to(installed)
    assert Path(seen["envs"]).is_relative_to(installed)
    assert seen["version"] == PROJECT["version"]
    assert seen["typed"] == [True, True]
    assets = ROOT / "dqx" / "report" / "page" / "assets"
    assert seen["page"] == sorted(path.name for path in assets.iterdir())
    assert {"uplot.min.js", "uplot.LICENSE.txt"} <= set(seen["page"])
    in_checkout = sorted(
        path.name for path in (ROOT / "dqx" / "settings" / "presets").glob("*.toml")
    )
    assert "cartpole.toml" in in_checkout
    assert [name for name in seen["presets"] if name.endswith(".toml")] == in_checkout


def test_wheel_trains_two_seeds_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    dqx = installed / "bin" / "dqx"
    periods = ["learning_starts=1000", "log_period=1000", "eval_period=2000"]
    size = ["--seeds", "2", "--steps", "4000", "--set", *periods]
    run(dqx, "train", "cartpole", *size, "--quiet", "--no-cache", "--out", out, cwd=tmp_path)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["seeds"] == [0, 1]
    assert (out / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    code = f"""
import json, pandas
table = pandas.read_parquet({str(out / "metrics")!r})
print(json.dumps([sorted(table["seed"].unique().tolist()), int(table["step"].max())]))
"""
    seeds, last_step = json.loads(run(installed / "bin" / "python", "-c", code, cwd=tmp_path))
    assert seeds == [0, 1]
    assert last_step == 4000


def test_command_and_module_name_the_version(installed: Path, tmp_path: Path) -> None:
    command = run(installed / "bin" / "dqx", "--version", cwd=tmp_path)
    module = run(installed / "bin" / "python", "-m", "dqx", "--version", cwd=tmp_path)
    assert command == module
    assert PROJECT["version"] in command.split()


def pins(python: str) -> dict[str, Version]:
    """Name -> version of a constraint file, after checking the form of every line.

    `python` is a version of Python, or "suites" for what other suites need beside Python 3.12's.
    """
    lines = (ROOT / f"constraints-{python}.txt").read_text().splitlines()
    matches = [PIN.fullmatch(line) for line in lines]
    bad = [line for line, match in zip(lines, matches, strict=True) if match is None]
    assert not bad, f"constraints-{python}.txt: not of the form name==version: {bad}"
    found = {match[1]: Version(match[2]) for match in matches if match}
    assert len(found) == len(lines), f"constraints-{python}.txt names a package twice"
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_satisfy_every_declared_requirement(python: str) -> None:
    pinned = pins(python)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {"cuda", "test", "tune", "bench", "browser", "tensorboard", *APART}
    declared = [
        *build,
        *PROJECT["dependencies"],
        *(line for name, extra in extras.items() if name not in APART for line in extra),
    ]
    for requirement in map(Requirement, declared):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"constraints-{python}.txt lacks {name}"
        assert pinned[name] in requirement.specifier, f"{requirement} but pinned {pinned[name]}"


def test_lower_bounds_are_versions_that_are_tested() -> None:
    """Each library bound is the smaller of the two pins, so no untested version is promised."""
    pinned = [pins(python) for python in PYTHONS]
    for requirement in map(Requirement, PROJECT["dependencies"]):
        (lower,) = (Version(s.version) for s in requirement.specifier if s.operator == ">=")
        assert lower == min(p[canonicalize_name(requirement.name)] for p in pinned), requirement


def test_pins_of_other_suites_satisfy_their_extras_and_repeat_no_other_pin() -> None:
    pinned = pins("suites")
    assert not pinned.keys() & pins("3.12").keys()
    for extra, package in APART.items():
        (line,) = PROJECT["optional-dependencies"][extra]
        requirement = Requirement(line)
        assert requirement.name == package
        (lower,) = (Version(s.version) for s in requirement.specifier if s.operator == ">=")
        assert lower == pinned[canonicalize_name(package)], requirement


def project_files() -> list[Path]:
    """Files that git tracks; in an unpacked source distribution, which has no git, all files."""
    if (ROOT / ".git").exists():
        listing = run("git", "ls-files", "-z")
        paths = [ROOT / name for name in listing.split("\0") if name]
    else:
        made = re.compile(r"\.venv.*|\..*_cache|__pycache__|runs|build|dist")
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(made.fullmatch(part) for part in path.relative_to(ROOT).parts)
        ]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_registry_host_or_a_home_folder() -> None:
    files = project_files()
    assert ROOT / "pyproject.toml" in files
    assert Path(__file__).resolve() in files
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode(errors='replace')}"
        for path in files
        for pattern in (REGISTRY, HOME_PATH)
        for match in pattern.finditer(path.read_bytes())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "before", "after"),
    [
        (REGISTRY, b"https://files.python", b"hosted.org/x"),
        (REGISTRY, b"--extra-index", b"-url=x"),
        (HOME_PATH, b"out = '/ho", b"me/someone/runs'"),
        (HOME_PATH, b" /ro", b"ot/.cache"),
    ],
)
def test_patterns_catch_what_they_are_for(
    pattern: re.Pattern[bytes], before: bytes, after: bytes
) -> None:
    assert pattern.search(before) is None
    assert pattern.search(after) is None
    assert pattern.search(before + after)
