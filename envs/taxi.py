"""Taxi: fetch a passenger from one of four places and bring them to another."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from envs._drawing import check_state
from envs._fields import setting
from envs._taxi_picture import picture
from envs.tabular import Outcomes

VERSIONS = ("v3", "v4")
MAP = ("|R: | : :G|", "| : | : : |", "| : : : : |", "| | : | : |", "|Y| : |B: |")
SIDE, IN_TAXI, NUM_STATES = 5, 4, 500
PADS = np.array(["".join(row[1::2] for row in MAP).index(pad) for pad in "RGYB"], np.int32)
SOUTH, NORTH, EAST, WEST, PICKUP, DROPOFF = range(6)


@struct.dataclass
class EnvState(environment.EnvState):
    """Where taxi and passenger are, where the passenger wants to go, and steps since reset.

    `taxi` is the cell, 5 * row + column; `passenger` 0 to 3 is the place R, G, Y or B, 4 is in
    the taxi; `destination` is one of the places; all of these and `time` are int32 []. `fickle`
    (bool []) says that the passenger is still to change the destination, on the first move with
    them aboard; the observation does not show it.
    """

    taxi: jax.Array
    passenger: jax.Array
    destination: jax.Array
    fickle: jax.Array


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Gymnasium's two variants with their probabilities, and the time limit in steps.

    If `is_rainy`, a move goes where it is meant to with `rainy_probability`, else to its left or
    right. If `fickle_passenger`, an episode's passenger is fickle with `fickle_probability`.
    """

    is_rainy: bool | jax.Array = setting(False, "", "whether moves may drift to the side")
    fickle_passenger: bool | jax.Array = setting(
        False, "", "whether passengers may change their destination on the way"
    )
    rainy_probability: float | jax.Array = setting(
        0.8, "", "probability that a move in rain goes where it is meant to"
    )
    fickle_probability: float | jax.Array = setting(
        0.3, "", "probability that the passenger of an episode is fickle"
    )
    max_steps_in_episode: int = setting(200, "steps", "time limit of an episode")


class Taxi(environment.Environment[EnvState, EnvParams]):
    """Taxi with the table of transitions, rewards and limits of Gymnasium's toy text.

    Observation int32 [], ((row * 5 + column) * 5 + passenger) * 4 + destination, below 500.
    Actions 0 south, 1 north, 2 east, 3 west, 4 pick up, 5 drop off. Reward float32 -1 a step, -10
    for picking up or dropping off where that is not possible, 20 for the delivery, which
    terminates. `info["action_mask"]` (int8 [6]) marks the actions that change the state the step
    led to; `action_mask` gives it for any state.

    `version` "v4" is Gymnasium 1.3's; "v3", Gymnasium 1.2's, differs only in the rain: a move
    north or south that the border stops still drifts, and the drift looks for walls on the wrong
    side of cells. An unknown version raises ValueError.

    Source: Dietterich 2000, "Hierarchical reinforcement learning with the MAXQ value function
    decomposition", section 2 and (rain, fickle passenger) 7.1.
    """

    def __init__(self, version: str = "v4") -> None:
        """Choose how rain works by `version`: "v3" or "v4"."""
        super().__init__()
        if version not in VERSIONS:
            raise ValueError(
                f"Taxi version {version!r} does not exist; choose one of {', '.join(VERSIONS)}"
            )
        self._version = version
        self._moves = _move_table(version)

    @property
    def default_params(self) -> EnvParams:
        """Dry weather and a constant passenger."""
        return EnvParams()

    def step_env(
        self,
        key: jax.Array,
        state: EnvState,
        action: int | float | jax.Array,
        params: EnvParams,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Advance one step, without time limit or reset.

        Returns observation () int32, state, reward () float32, terminated () bool and info.
        `key` draws the drift in rain and a fickle passenger's new destination.
        """
        key_drift, key_change = jax.random.split(key)
        intended = _intended_probability(params)
        luck = jax.random.uniform(key_drift)
        drift = (luck >= intended).astype(jnp.int32) + (luck >= (1 + intended) / 2)
        change = jax.random.randint(key_change, (), 0, 3, jnp.int32)
        next_state, reward, terminated = self._moved(state, action, drift, change)
        info = {
            "discount": 1.0 - terminated.astype(jnp.float32),
            "action_mask": self.action_mask(next_state),
        }
        obs = self.observe(key, next_state, action, params)
        return obs, next_state, reward, terminated, info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Draw one of 300 starts: any cell, passenger and destination at different places."""
        key_start, key_fickle = jax.random.split(key)
        state = _start(jax.random.randint(key_start, (), 0, 300, jnp.int32))
        is_fickle = jax.random.uniform(key_fickle) < params.fickle_probability
        state = state.replace(fickle=is_fickle & params.fickle_passenger)
        return self.observe(key, state, None, params), state

    def observe(
        self,
        key: jax.Array | None,
        state: EnvState,
        action: int | float | jax.Array | None,
        params: EnvParams | None,
    ) -> jax.Array:
        """Number the state as Gymnasium does, int32 []."""
        return (state.taxi * 5 + state.passenger) * 4 + state.destination

    def get_obs(
        self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Observe through the older hook, which gymnax's wrappers and pictures still call."""
        return self.observe(key, state, None, params)

    def action_mask(self, state: EnvState) -> jax.Array:
        """Mark the actions that change `state`: int8 [6], 1 or 0."""
        moves = jnp.asarray(self._moves)[state.taxi, :, 0] != state.taxi
        at_pad = state.taxi == PADS
        pickup = jnp.any(at_pad & (state.passenger == np.arange(4)))
        dropoff = jnp.any(at_pad) & (state.passenger == IN_TAXI)
        return jnp.concatenate([moves, jnp.stack([pickup, dropoff])]).astype(jnp.int8)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Say whether the passenger has arrived; () bool.

        No state before the end of an episode has the passenger at the destination.
        """
        return state.passenger == state.destination

    def start_states(self, params: EnvParams) -> tuple[EnvState, jax.Array]:
        """List all starts: states [S] and their probabilities [S], for `envs.tabular`."""
        constant = jax.vmap(_start)(jnp.arange(300, dtype=jnp.int32))
        fickle = constant.replace(fickle=jnp.ones(300, bool))
        share = jnp.where(params.fickle_passenger, params.fickle_probability, 0.0)
        states = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), constant, fickle)
        return states, jnp.repeat(jnp.stack([1 - share, share]) / 300, 300)

    def outcomes(self, state: EnvState, action: int | jax.Array, params: EnvParams) -> Outcomes:
        """List what a step may lead to: three drifts by three changes, for `envs.tabular`."""
        drift = jnp.repeat(jnp.arange(3, dtype=jnp.int32), 3)
        change = jnp.tile(jnp.arange(3, dtype=jnp.int32), 3)
        move = jax.vmap(self._moved, in_axes=(None, None, 0, 0))
        states, reward, terminated = move(state, action, drift, change)
        intended = _intended_probability(params)
        drifts = jnp.stack([intended, (1 - intended) / 2, (1 - intended) / 2])
        changes = jnp.where(states.destination != state.destination, 1 / 3, change == 0)
        return Outcomes(drifts[drift] * changes, states, reward, terminated)

    def render(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Picture one state for people, uint8 [400, 400, 3]; can be jitted.

        A chequered flag marks the destination; a passenger waits at a place or shows in the cab's
        window. Raises TypeError for another environment's state and ValueError for a batch.
        """
        check_state(self.name, state, EnvState)
        pads = tuple(PADS.tolist())
        return picture(state.taxi, state.passenger, state.destination, MAP, pads)

    @property
    def name(self) -> str:
        """The registered name, such as "Taxi-v4"."""
        return f"Taxi-{self._version}"

    @property
    def num_actions(self) -> int:
        """Six: four moves, pick up and drop off."""
        return 6

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Discrete(6): south, north, east, west, pick up, drop off."""
        return spaces.Discrete(6)

    def observation_space(self, params: EnvParams) -> spaces.Discrete:
        """Discrete(500); 404 of these numbers can occur."""
        return spaces.Discrete(NUM_STATES)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Describe the state: a Dict of its fields; `time` counts up to the limit itself."""
        return spaces.Dict(
            {
                "taxi": spaces.Discrete(SIDE * SIDE),
                "passenger": spaces.Discrete(5),
                "destination": spaces.Discrete(4),
                "fickle": spaces.Discrete(2),
                "time": spaces.Discrete(params.max_steps_in_episode + 1),
            }
        )

    def _moved(
        self, state: EnvState, action: int | float | jax.Array, drift: jax.Array, change: jax.Array
    ) -> tuple[EnvState, jax.Array, jax.Array]:
        """Next state, reward and termination if a move drifts (0 no, 1 left, 2 right).

        `change` (0 to 2) is the one of the three other destinations to which a fickle passenger
        would turn.
        """
        direction = jnp.asarray(action, jnp.int32)
        moved = jnp.asarray(self._moves)[state.taxi, jnp.minimum(direction, WEST), drift]
        taxi = jnp.where(direction <= WEST, moved, state.taxi)

        places = np.arange(4, dtype=np.int32)
        at_pad = state.taxi == PADS
        place = jnp.sum(at_pad * places, dtype=jnp.int32)
        aboard = state.passenger == IN_TAXI
        picks_up = (direction == PICKUP) & jnp.any(at_pad & (state.passenger == places))
        drops_off = (direction == DROPOFF) & aboard & jnp.any(at_pad)
        delivers = drops_off & (place == state.destination)
        fails = (direction >= PICKUP) & ~picks_up & ~drops_off

        turns = state.fickle & aboard & (taxi != state.taxi)
        other = (state.destination + 1 + change) % 4
        next_state = EnvState(
            taxi=taxi,
            passenger=jnp.where(picks_up, IN_TAXI, jnp.where(drops_off, place, state.passenger)),
            destination=jnp.where(turns, other, state.destination),
            fickle=state.fickle & ~turns,
            time=state.time + 1,
        )
        reward = jnp.where(delivers, 20.0, jnp.where(fails, -10.0, -1.0))
        return next_state, reward.astype(jnp.float32), delivers


def _intended_probability(params: EnvParams) -> jax.Array:
    return jnp.where(params.is_rainy, params.rainy_probability, 1.0)


def _start(number: jax.Array) -> EnvState:
    """The start of a number below 300, its passenger constant."""
    passenger = number % 4
    return EnvState(
        taxi=number // 12,
        passenger=passenger,
        destination=(passenger + 1 + number // 4 % 3) % 4,
        fickle=jnp.zeros((), bool),
        time=jnp.int32(0),
    )


def _move_table(version: str) -> np.ndarray:
    """Cells that moves lead to, int32 [25, 4, 3]: from a cell, in a direction, by a drift."""
    steps = {SOUTH: (1, 0), NORTH: (-1, 0), EAST: (0, 1), WEST: (0, -1)}
    sideways = {
        SOUTH: (EAST, WEST) if version == "v4" else (WEST, EAST),
        NORTH: (WEST, EAST),
        EAST: (NORTH, SOUTH) if version == "v4" else (SOUTH, NORTH),
        WEST: (SOUTH, NORTH),
    }

    def clipped(cell: int, direction: int) -> tuple[int, int]:
        row, column = cell // SIDE + steps[direction][0], cell % SIDE + steps[direction][1]
        return min(max(row, 0), SIDE - 1), min(max(column, 0), SIDE - 1)

    def is_open(row: int, boundary: int) -> bool:
        return MAP[row][boundary] == ":"

    def ahead(cell: int, direction: int) -> int:
        row, column = clipped(cell, direction)
        if direction == EAST and not is_open(row, 2 * (cell % SIDE) + 2):
            return cell
        if direction == WEST and not is_open(row, 2 * (cell % SIDE)):
            return cell
        return SIDE * row + column

    def v3_drift(cell: int, direction: int, boundary: int) -> int:
        # Whatever the direction, v3 looks at one fixed side of the cell that it drifts to.
        row, column = clipped(cell, direction)
        return SIDE * row + column if is_open(row, 2 * column + boundary) else cell

    table = np.empty((SIDE * SIDE, 4, 3), np.int32)
    for cell in range(SIDE * SIDE):
        for direction, (left, right) in sideways.items():
            forward = ahead(cell, direction)
            drifts = (ahead(cell, left), ahead(cell, right))
            if version == "v3":
                drifts = (v3_drift(cell, left, 2), v3_drift(cell, right, 0))
            stopped = forward == cell and not (version == "v3" and direction in (SOUTH, NORTH))
            table[cell, direction] = (forward, *((cell, cell) if stopped else drifts))
    return table
