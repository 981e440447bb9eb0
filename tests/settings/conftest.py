"""The agents that the tests of the settings know: three like our own, and made-up ones."""

import pytest

from dqx.settings import own_setting, register_agent, registry


@pytest.fixture(autouse=True)
def agents(request, monkeypatch):
    """A registry of its own for each test, so that the agents there really are do not matter."""
    registry._modules.cache_clear()
    if "real_agents" not in request.fixturenames:
        monkeypatch.setattr(registry, "_AGENTS", {})
        monkeypatch.setattr(registry, "_PACKAGE", "no_such_package")
        losses = ("scalar target", "TD error", "Huber delta", "target rule", "rescaled values")
        register_agent("dqn", has=("network", "gradient", "target", *losses))
        register_agent("qr", has=("network", "gradient", "target", "target rule", "Huber delta"))
        register_agent("tabular", has=("table", "TD error"))


@pytest.fixture
def real_agents():
    """Asks for the agents there really are."""


@pytest.fixture
def roller():
    """An agent without a replay."""
    return register_agent("roller", has=("rollout",))


@pytest.fixture
def c99():
    return register_agent(
        "c99",
        has=("network", "gradient"),
        settings=[
            own_setting("num_bars", 51, "bars of the histogram", low=2, high=200),
            own_setting("bar_shape", "flat", "shape of a bar", choices=("flat", "round")),
            own_setting("bar_widths", (1, 2), "widths of the bars", low=1),
            own_setting("bar_limit", 10, "largest bar", traced=True, above=0),
            own_setting("bar_decay", 0.5, "decay of a bar", traced=True, low=0, high=1),
        ],
        doc="an agent of tests",
    )
