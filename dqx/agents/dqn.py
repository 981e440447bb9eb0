"""DQN, with any target rule, and with rescaled values if wanted.

Source: Mnih et al. 2015; of the rules, see `dqx.core.targets`.
"""

from dqx.agents import BASIC, Variant, kit, register
from dqx.core import losses
from dqx.core.agent import Agent, Spec
from dqx.core.types import Array, PyTree, Transition
from dqx.settings import Config, Hyper


def build(config: Config, spec: Spec) -> Agent:
    """The agent; see `kit.value_agent` for what is raised."""
    scale = losses.rescaling(config.value_rescaling)

    def loss(
        outputs: kit.Outputs, step: Transition, hyper: Hyper, draws: PyTree
    ) -> tuple[Array, Array]:
        assert outputs.next_target is not None and outputs.weight is not None  # named in `reads`
        error = losses.expected_q_learning(
            outputs.now, step.action, step.reward, step.discount, outputs.next_target,
            outputs.weight, scale,
        )  # fmt: skip
        return kit.scalar_loss(config, spec, error, hyper), error

    return kit.value_agent(
        config, spec, loss, reads=("next_target", "weight"), values=scale.inverse
    )


register(
    Variant(
        "dqn",
        build,
        has=(*BASIC, "target rule", "rescaled values"),
        about="a network trained by gradients towards a target network",
    )
)
