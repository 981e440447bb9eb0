"""Agents by name: registered, found among modules, and what they bring."""

import sys

import pytest

from dqx.settings import (
    SETTINGS,
    Config,
    ConfigError,
    Hyper,
    agent,
    agent_names,
    field_help,
    override,
    own_setting,
    parse_assignments,
    register_agent,
    registry,
    setting,
    validate,
)


def test_the_built_in_agents(real_agents):
    assert {"c51", "dqn", "iqn", "qr", "tabular"} <= set(agent_names())
    assert set(agent("dqn").has) == {
        "network", "gradient", "target", "scalar target", "TD error", "Huber delta",
        "target rule", "rescaled values",
    }  # fmt: skip
    assert set(agent("tabular").has) == {"table", "TD error"}


def test_every_module_that_is_no_agent_is_known_as_such(real_agents):
    """A shared module that counted as an agent would break every list of all settings."""
    registry.load_all()
    assert {entry.name for entry in registry.registered()} >= set(agent_names())


def test_an_unknown_agent_names_the_closest_and_all():
    with pytest.raises(ConfigError, match="unknown agent 'dqm'; the closest are dqn; known are"):
        agent("dqm")
    with pytest.raises(ConfigError, match="known are .*dqn, .*tabular"):
        agent("zzzz")
    with pytest.raises(ConfigError, match="agent must be one of .*dqn.*, got 'dqm'; the closest"):
        validate(Config(agent="dqm"), Hyper())
    with pytest.raises(AttributeError, match="agent dqm has no setting 'num_bars'"):
        Config(agent="dqm").num_bars  # noqa: B018


def test_a_registered_agent_is_a_choice_with_settings(c99):
    assert agent_names() == ("c99", "dqn", "qr", "tabular") and agent("c99") is c99
    assert SETTINGS["agent"].check("c99") == "c99"
    assert "one of c99, dqn, qr, tabular" in SETTINGS["agent"].help()
    found = setting("num_bars")
    assert found.of == ("agent", "c99") and found.own and not found.traced
    assert setting("bar_limit").traced and setting("bar_limit").default == 10.0
    assert (
        found.help() == "bars of the histogram (int, between 2 and 200; for agent c99; default 51)"
    )
    assert registry.owners("num_bars") == ("c99",) and registry.owners("gamma") == ()
    assert parse_assignments(["num_bars=7", "bar_limit=2"]) == {"num_bars": 7, "bar_limit": 2.0}
    with pytest.raises(ConfigError, match="unknown field 'num_bar'; the closest are num_bars"):
        setting("num_bar")


def test_own_settings_are_listed_in_a_section_of_their_own(c99):
    lines = field_help(100)
    start = lines.index("settings of agent c99, an agent of tests:")
    listed = [line.split()[0] for line in lines[start + 1 :] if line]
    assert listed == ["num_bars", "bar_shape", "bar_widths", "bar_limit", "bar_decay"]
    registry.forget("c99")
    # Without it there is no such section, and one choice of agent less.
    shorter = "\n".join(lines[: start - 1]).replace("one of c99, dqn", "one of dqn")
    assert "\n".join(field_help(100)) == shorter


def test_forgotten_agents_are_gone(c99):
    registry.forget("c99")
    assert "c99" not in agent_names()
    for use in (lambda: setting("num_bars"), lambda: override(Config(), Hyper(), num_bars=3)):
        with pytest.raises(ConfigError, match="unknown field 'num_bars'"):
            use()


def test_to_register_again_changes_nothing_unless_the_content_differs(c99):
    register_agent(c99.name, has=[*c99.has, "network"], settings=c99.settings, doc=c99.doc)
    assert agent("c99") == c99
    for change in ({"has": ("table",)}, {"settings": ()}, {"doc": "another"}):
        content = {"has": c99.has, "settings": c99.settings, "doc": c99.doc, **change}
        with pytest.raises(ConfigError, match="agent c99 is registered with other content"):
            register_agent("c99", **content)
    assert agent("c99") == c99


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a b", {"has": ()}, "must be a word such as dqn, got 'a b'"),
        ("_kit", {"has": ()}, "must be a word"),
        (3, {"has": ()}, "must be a word"),
        ("new", {"has": "network"}, "has of agent new must be a list"),
        ("new", {"has": (), "settings": ("gamma",)}, "new cannot bring gamma"),
        ("new", {"has": (), "settings": ("extra",)}, "new cannot bring extra"),
        ("new", {"has": (), "settings": ("seeds",)}, "new cannot bring seeds"),
        ("new", {"has": (), "settings": ("size", "size")}, "new brings size twice"),
        (
            "new",
            {"has": (), "settings": ("num_bars",)},
            "declares num_bars otherwise than agent c99",
        ),
    ],
)
def test_agents_that_cannot_be(c99, name, content, words):
    own = [own_setting(each, 1, "words") for each in content.get("settings", ())]
    with pytest.raises(ConfigError, match=words):
        register_agent(name, **{**content, "settings": own})
    assert agent_names() == ("c99", "dqn", "qr", "tabular")


def test_agents_may_share_a_setting_that_they_declare_alike(c99):
    shared = own_setting("num_bars", 51, "other words", low=2, high=200)
    register_agent("d99", has=("table",), settings=[shared])
    assert registry.owners("num_bars") == ("c99", "d99")
    for name in ("c99", "d99"):
        validate(*override(Config(), Hyper(), agent=name, num_bars=3))
    config, hyper = override(Config(), Hyper(), num_bars=3)
    with pytest.raises(
        ConfigError, match="num_bars belongs to agents c99 and d99, and agent is dqn"
    ):
        validate(config, hyper)


MODULES = {
    "__init__": "raise RuntimeError('imported for a list of names')",
    "kit/__init__": "raise RuntimeError('no agent')",
    "_private": "raise RuntimeError('no agent')",
    "e99": """
from dqx.settings import own_setting, register_agent
register_agent("e99", has=["network"], settings=[own_setting("num_quants", 32, "quants", low=1)])
""",
    "silent": "",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Stands for dqx.agents, whose modules register themselves when they are imported."""
    folder = tmp_path / "made_up_agents"
    (folder / "kit").mkdir(parents=True)
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_PACKAGE", "made_up_agents")
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "made_up_agents"]:
        del sys.modules[name]


def test_modules_are_agents_and_are_not_imported_for_their_names(package):
    assert agent_names() == ("dqn", "e99", "qr", "silent", "tabular")
    SETTINGS["agent"].check("e99")
    assert not any(name.startswith("made_up_agents") for name in sys.modules)


def test_a_module_is_imported_when_its_agent_is_asked_for(package):
    (package / "__init__.py").write_text("")
    (package / "silent.py").unlink()
    assert Config(agent="e99").num_quants == 32
    assert "made_up_agents.e99" in sys.modules and "made_up_agents.kit" not in sys.modules
    assert agent("e99").has == ("network",)
    assert agent_names() == ("dqn", "e99", "qr", "tabular")


def test_the_agent_is_chosen_before_its_settings_are_looked_for(package):
    # The module `silent` would fail, so that e99 alone can have been imported.
    (package / "__init__.py").write_text("")
    config, _ = override(Config(), Hyper(), num_quants=8, agent="e99")
    assert config.num_quants == 8


def test_settings_are_found_in_modules_that_nobody_has_imported(package):
    (package / "__init__.py").write_text("")
    (package / "silent.py").unlink()
    config, hyper = override(Config(), Hyper(), num_quants=8)
    with pytest.raises(ConfigError, match="num_quants belongs to agent e99, and agent is dqn"):
        validate(config, hyper)
    validate(*override(config, hyper, agent="e99"))


def test_a_module_that_registers_nothing_is_named(package):
    (package / "__init__.py").write_text("")
    with pytest.raises(ConfigError, match="made_up_agents.silent does not register agent silent"):
        agent("silent")


def test_without_the_package_there_are_the_registered_agents(monkeypatch):
    for name in ("no_such_package", "no_such_package.agents", "json.decoder"):
        monkeypatch.setattr(registry, "_PACKAGE", name)
        assert agent_names() == ("dqn", "qr", "tabular")
