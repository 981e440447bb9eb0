"""Returns by brute force in float64: from whole histories of episodes, step by step."""

import numpy as np


def histories(rng, layouts, steps, envs, lowest=-2, highest=3):
    """Random episodes of ``layouts x envs`` environments, ``[layouts, steps, envs]`` by name.

    Ends are frequent, and terminations as frequent as truncations. The observation is a number of
    its own for every state that is ever seen, and what is seen after an end is no one's else.
    """
    shape = (layouts, steps, envs)
    ends = rng.random(shape) < rng.choice([0.0, 0.1, 0.4, 1.0], (layouts, 1, 1))
    terminated = ends & (rng.random(shape) < 0.5)
    age = np.zeros(shape, np.int32)
    for t in range(1, steps):
        age[:, t] = np.where(ends[:, t - 1], 0, age[:, t - 1] + 1)
    obs = np.arange(np.prod(shape)).reshape(shape) * 2
    following = np.concatenate([obs[:, 1:], obs[:, -1:] + 1], axis=1)
    return {
        "obs": obs,
        "action": rng.integers(0, 4, shape).astype(np.int32),
        "reward": rng.integers(lowest, highest, shape).astype(np.float32),
        "terminated": terminated,
        "ends": ends,
        "age": age,
        "next_obs": np.where(ends, obs + 1, following),
    }


def n_step(history, layout, env, start, n, gamma):
    """The return of up to n steps from ``start`` on, walked step by step.

    Returns:
        rewards summed with their discounts, the discount of what follows, what was observed then,
        and how many steps there were.
    """
    total, discount, steps = 0.0, 1.0, 0
    for t in range(start, min(start + n, history["reward"].shape[1])):
        total += discount * float(history["reward"][layout, t, env])
        discount *= gamma
        steps += 1
        if history["ends"][layout, t, env]:
            break
    t = start + steps - 1
    if history["terminated"][layout, t, env]:
        discount = 0.0
    return total, discount, history["next_obs"][layout, t, env], steps


def n_step_all(history, n, gamma):
    """As `n_step`, of every start at once: four arrays ``[layouts, steps, envs]``."""
    reward = history["reward"].astype(np.float64)
    length = reward.shape[1]
    total, steps = np.zeros_like(reward), np.zeros(reward.shape, int)
    going = np.ones(reward.shape, bool)
    last = np.tile(np.arange(length)[None, :, None], (reward.shape[0], 1, reward.shape[2]))
    starts = last.copy()
    for k in range(n):
        t = np.minimum(starts + k, length - 1)
        going &= starts + k < length
        total += np.where(going, gamma**k * np.take_along_axis(reward, t, axis=1), 0.0)
        steps += going
        last = np.where(going, t, last)
        going = going & ~np.take_along_axis(history["ends"], t, axis=1)
    terminated = np.take_along_axis(history["terminated"], last, axis=1)
    after = np.take_along_axis(history["next_obs"], last, axis=1)
    return total, np.where(terminated, 0.0, gamma**steps), after, steps


def lambda_return(history, values, layout, env, start, gamma, lambda_):
    """The lambda return by its definition, a mean of all n-step returns with falling weights.

    ``G = (1 - lambda) sum(lambda ** (n - 1) G_n) + lambda ** (N - 1) G_N``, where N steps are left
    in the episode or the trajectory; Sutton and Barto 2018, equations 12.2 and 12.3.
    """

    def of(n):
        total, discount, after, steps = n_step(history, layout, env, start, n, gamma)
        return total + (discount * values(after) if discount else 0.0), steps

    whole = of(history["reward"].shape[1])
    mean = sum((1 - lambda_) * lambda_ ** (n - 1) * of(n)[0] for n in range(1, whole[1]))
    return mean + lambda_ ** (whole[1] - 1) * whole[0]
