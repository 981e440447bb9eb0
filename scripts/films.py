"""Writes a film of every environment of dqx's own, and of a few others: docs/films/*.gif.

python scripts/films.py --out docs/films

Each agent is trained for a moment only, far shorter than its preset says (two seeds on one core,
minutes of computing in all), and the better seed's first evaluation episode is shown.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import dqx
from dqx.report.film import film, pick_seed
from dqx.report.reel import gif_bytes

LIMIT = 300_000  # bytes of a film


class Shot(NamedTuple):
    """What a film shows: a preset, its budget in steps, and fields that differ."""

    preset: str
    total_steps: int
    fields: dict[str, Any] = {}
    max_steps: int | None = None


SHOTS = {
    "cartpole-v0": Shot("cartpole", 30_000, {"env": "CartPole-v0"}),
    "cartpole-v1": Shot("cartpole", 80_000),
    "mountain-car": Shot("mountain-car", 120_000),
    "taxi-v3": Shot("taxi", 60_000, {"env": "Taxi-v3"}),
    "taxi-v4": Shot("taxi", 80_000),
    "wall-dodge-v0": Shot("wall-dodge", 30_000, max_steps=240),
    "wall-dodge-v1": Shot("wall-dodge-80", 30_000, max_steps=240),
    "acrobot": Shot("acrobot", 80_000),
}


def shoot(name: str, shot: Shot, folder: Path) -> bytes:
    """Trains an agent and films it."""
    base = {
        "preset": shot.preset,
        "total_steps": shot.total_steps,
        "eval_period": shot.total_steps,
        "exact_metrics": False,
        "chunk_width": 2,
        **shot.fields,
    }
    started = time.process_time()
    plan = {"name": name, "seeds": 2, "base": base}
    study = dqx.study.run(plan, folder / name, devices="cpu:1", sinks=[])
    seed = pick_seed(study, None, "best").seed
    made = film(study, seed=seed, max_steps=shot.max_steps, max_frames=125)
    content = gif_bytes(made, width=400, fps=16, limit=LIMIT)
    (episode,) = made.episodes
    print(
        f"{name}: {shot.preset}, {shot.total_steps:,} steps; return {episode.total:.4g} in "
        f"{len(episode.actions):,} steps; {len(episode.times)} pictures, {len(content) / 1000:.0f} "
        f"kB; {time.process_time() - started:.0f} s of computing",
        flush=True,
    )
    return content


def main(arguments: list[str] | None = None) -> None:
    """Reads the arguments, trains and films."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("films"))
    parser.add_argument("--names", nargs="*", choices=SHOTS, help="films; all if left out")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or SHOTS:
            content = shoot(name, SHOTS[name], Path(folder))
            (args.out / f"{name}.gif").write_bytes(content)


if __name__ == "__main__":
    main()
