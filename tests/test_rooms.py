"""The law of arrows: a room imports from those below it alone, and from the ground."""

import ast
from pathlib import Path

import dqx

HOUSE = Path(dqx.__file__).resolve().parent
# From the top floor down; what stands on one floor knows nothing of each other.
FLOORS = (
    ("cli",), ("run", "tuning"), ("report",), ("study",), ("compute",), ("agents",), ("core",),
    ("settings", "stats", "files"), ("arguments",),
)  # fmt: skip
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# `tuning` trains the studies of a search by `run`.
BESIDE = {("tuning", "run")}


def imported(path):
    """The modules that a file imports when it runs, wherever in it; not those for types alone."""
    found = []

    def visit(node):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path  # whole names, as everywhere
            found.extend(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def uphill(room, names):
    """Those of the names that no file of a room may import."""
    rooms = {name: name.split(".")[1] for name in names if name.startswith("dqx.")}
    return [
        name
        for name, other in rooms.items()
        if other in FLOOR_OF and other != room and (room, other) not in BESIDE
        if FLOOR_OF[other] <= FLOOR_OF[room]
    ]


def test_arrows_point_down_only():
    wrong, rooms = {}, set()
    for path in HOUSE.rglob("*.py"):
        room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):  # public names, loaded on first use; the command
            continue
        rooms.add(room)
        assert room in FLOOR_OF, f"{path} is in no room of FLOORS"
        if found := uphill(room, imported(path)):
            wrong[str(path.relative_to(HOUSE))] = found
    assert wrong == {} and rooms == set(FLOOR_OF)


def test_environments_know_nothing_of_dqx():
    for path in (HOUSE.parent / "envs").rglob("*.py"):
        assert not [name for name in imported(path) if name.split(".")[0] == "dqx"], path


def test_an_arrow_uphill_is_seen(tmp_path):
    (tmp_path / "x.py").write_text(
        "import dqx.files\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from dqx.cli import main\n"
        "def late():\n    from dqx.report import page\n    from dqx import run\n"
    )
    names = imported(tmp_path / "x.py")
    assert uphill("study", names) == ["dqx.report.page", "dqx.run"]
    assert uphill("report", names) == ["dqx.run"] and uphill("cli", names) == []
    assert uphill("stats", ["dqx.settings.show", "numpy"]) == ["dqx.settings.show"]


def test_a_variant_is_a_short_file():
    files = [path for path in (HOUSE / "agents").glob("*.py") if path.name != "__init__.py"]
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert len(lengths) >= 8 and max(lengths.values()) < 120, lengths
