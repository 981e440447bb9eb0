"""Float64 NumPy twins of the environments, written from the published equations.

Every function takes a batch: states [N, fields], actions [N], all float64 or int.
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
