"""NumPy twins of the environments, float64 or int, written from the published equations and code.

Where nothing else is said, a function takes a batch: states [N, fields], actions [N].
"""

import math

import numpy as np

CARTPOLE = {
    "gravity": 9.8,
    "masscart": 1.0,
    "masspole": 0.1,
    "length": 0.5,
    "force_mag": 10.0,
    "tau": 0.02,
    "theta_threshold_radians": math.radians(12),
    "x_threshold": 2.4,
}
MOUNTAIN_CAR = {
    "min_position": -1.2,
    "max_position": 0.6,
    "max_speed": 0.07,
    "goal_position": 0.5,
    "goal_velocity": 0.0,
    "force": 0.001,
    "gravity": 0.0025,
}


def cartpole_step(states, actions, **constants):
    """Next states [N, 4], rewards [N] and terminated [N], by Florian 2007, equations 23 and 24."""
    c = {**CARTPOLE, **constants}
    x, x_dot, theta, theta_dot = np.asarray(states, np.float64).T
    mass = c["masscart"] + c["masspole"]
    force = np.where(np.asarray(actions) == 1, c["force_mag"], -c["force_mag"])
    inner = (-force - c["masspole"] * c["length"] * theta_dot**2 * np.sin(theta)) / mass
    theta_acc = (c["gravity"] * np.sin(theta) + np.cos(theta) * inner) / (
        c["length"] * (4 / 3 - c["masspole"] * np.cos(theta) ** 2 / mass)
    )
    centripetal = theta_dot**2 * np.sin(theta) - theta_acc * np.cos(theta)
    x_acc = (force + c["masspole"] * c["length"] * centripetal) / mass
    rates = np.stack([x_dot, x_acc, theta_dot, theta_acc], axis=1)
    following = np.asarray(states, np.float64) + c["tau"] * rates
    terminated = (np.abs(following[:, 0]) > c["x_threshold"]) | (
        np.abs(following[:, 2]) > c["theta_threshold_radians"]
    )
    return following, np.ones(len(following)), terminated


def mountain_car_step(states, actions, **constants):
    """Next states [N, 2], rewards [N] and terminated [N], by Sutton and Barto 2018, ex. 10.1."""
    c = {**MOUNTAIN_CAR, **constants}
    position, velocity = np.asarray(states, np.float64).T
    engine = c["force"] * (np.asarray(actions) - 1)
    velocity = velocity + engine - c["gravity"] * np.cos(3 * position)
    velocity = np.minimum(np.maximum(velocity, -c["max_speed"]), c["max_speed"])
    unclipped = position + velocity
    position = np.minimum(np.maximum(unclipped, c["min_position"]), c["max_position"])
    velocity = np.where((unclipped <= c["min_position"]) & (velocity < 0), 0.0, velocity)
    terminated = (position >= c["goal_position"]) & (velocity >= c["goal_velocity"])
    return np.stack([position, velocity], axis=1), -np.ones(len(position)), terminated


WALL_DODGE = {
    "v0": {
        "size": 40,
        "column": 20,
        "speed": 2,
        "lowest": 35,
        "height": 5,
        "hole": 10,
        "drawn": 4,
        "crash": 0.0,
        "starts": (5, 35),
        "holes": (0, 30),
    },
    "v1": {
        "size": 80,
        "column": 40,
        "speed": 1,
        "lowest": 70,
        "height": 10,
        "hole": 20,
        "drawn": 9,
        "crash": -1.0,
        "starts": (10, 70),
        "holes": (0, 60),
    },
}


def wall_dodge_step(version, states, actions, new_holes):
    """Next states [N, 3], rewards [N] and terminated [N] of (robot_y, wall_x, hole_top) [N, 3].

    `new_holes` [N] is what a new wall, where there is one, draws. After the article's code.
    """
    c = WALL_DODGE[version]
    robot_y, wall_x, hole_top = np.array(states, np.int64).T
    wall_x = wall_x - 1
    gone = wall_x < 0
    wall_x[gone] = c["size"]
    hole_top[gone] = np.asarray(new_holes)[gone]
    up = (np.asarray(actions) == 0) & (robot_y > 0)
    down = (np.asarray(actions) == 1) & (robot_y < c["lowest"])
    robot_y[up] -= c["speed"]
    robot_y[down] += c["speed"]
    misses = (robot_y < hole_top) | (robot_y + c["height"] > hole_top + c["hole"])
    crashed = (np.abs(c["column"] - wall_x) < c["height"]) & misses
    rewards = np.where(crashed, c["crash"], 0.1)
    return np.stack([robot_y, wall_x, hole_top], axis=1), rewards, crashed


def wall_dodge_frames(version, states):
    """Frames uint8 [N, size, size, 1], drawn by slices as the article draws them."""
    c = WALL_DODGE[version]
    frames = np.zeros((len(states), c["size"], c["size"], 1), np.uint8)
    for frame, (robot_y, wall_x, hole_top) in zip(frames, np.asarray(states), strict=True):
        frame[:, wall_x : wall_x + c["drawn"]] = 128
        frame[hole_top : hole_top + c["hole"], wall_x : wall_x + c["drawn"]] = 0
        robot_rows = slice(robot_y, robot_y + c["drawn"])
        frame[robot_rows, c["column"] : c["column"] + c["drawn"]] = 255
    return frames


def wall_dodge_reachable(version):
    """Every (robot_y, wall_x, hole_top) in which an action may have to be chosen, as a set."""
    c = WALL_DODGE[version]
    holes = range(c["holes"][0], c["holes"][1] + 1)
    actions = range(2 if version == "v0" else 3)
    frontier = {
        (y, c["size"], hole) for y in range(c["starts"][0], c["starts"][1] + 1) for hole in holes
    }
    seen = set(frontier)
    while frontier:
        states = np.repeat(np.array(sorted(frontier)), len(actions), axis=0)
        chosen = np.tile(actions, len(frontier))
        frontier = set()
        wraps = states[:, 1] == 0
        for mask, new_holes in ((~wraps, [0]), (wraps, holes)):
            if not mask.any():
                continue
            for hole in new_holes:
                full = np.full(mask.sum(), hole)
                following, _, crashed = wall_dodge_step(version, states[mask], chosen[mask], full)
                frontier.update(map(tuple, following[~crashed].tolist()))
        frontier -= seen
        seen |= frontier
    return seen


TAXI_MAP = ["|R: | : :G|", "| : | : : |", "| : : : : |", "| | : | : |", "|Y| : |B: |"]


def taxi_v3_rain(row, column, action):
    """Cells (row, column) that a move in rain may lead to: 0.8, 0.1 and 0.1.

    Gymnasium 1.2's rule for Taxi-v3, which Gymnasium no longer ships: it checks fixed characters
    of the map around the cell that the drift leads to, and lets moves against the northern and
    southern border drift.
    """

    def towards(direction):
        step_row, step_column = direction
        return min(max(row + step_row, 0), 4), min(max(column + step_column, 0), 4)

    def drifted(direction, offset):
        to_row, to_column = towards(direction)
        return (
            (to_row, to_column)
            if TAXI_MAP[to_row][2 * to_column + offset] == ":"
            else (row, column)
        )

    headings = [
        ((1, 0), (0, -1), (0, 1)),
        ((-1, 0), (0, -1), (0, 1)),
        ((0, 1), (1, 0), (-1, 0)),
        ((0, -1), (1, 0), (-1, 0)),
    ]
    forward, left, right = headings[action]
    closed_east = action == 2 and TAXI_MAP[row][2 * column + 2] != ":"
    closed_west = action == 3 and TAXI_MAP[row][2 * column] != ":"
    if closed_east or closed_west:
        return [(row, column)] * 3
    return [towards(forward), drifted(left, 2), drifted(right, 0)]
