"""The settings of a run: declared once, and parsed, checked, shown and stored from that.

Nothing here imports JAX or anything else that takes long to load.
"""

from dqx.settings import environments
from dqx.settings.config import Config
from dqx.settings.declared import SETTINGS, setting
from dqx.settings.errors import ConfigError, ConfigWarning, brief, closest
from dqx.settings.field import Setting, declare, own_setting, show
from dqx.settings.hyper import Hyper
from dqx.settings.manual import agent_help, field_help
from dqx.settings.periods import evaluates_at, notes, rounded, row_steps
from dqx.settings.presets import PresetAbout, preset, preset_about, preset_names
from dqx.settings.registry import AgentEntry, agent, agent_names, register_agent
from dqx.settings.rules import validate
from dqx.settings.seeds import MAX_SEEDS, check_root_seed, check_seeds, parse_seeds
from dqx.settings.values import (
    complete,
    from_record,
    not_defaults,
    override,
    parse_assignments,
    to_record,
)

__all__ = [
    "MAX_SEEDS",
    "SETTINGS",
    "AgentEntry",
    "Config",
    "ConfigError",
    "ConfigWarning",
    "Hyper",
    "PresetAbout",
    "Setting",
    "agent",
    "agent_help",
    "agent_names",
    "brief",
    "check_root_seed",
    "check_seeds",
    "closest",
    "complete",
    "declare",
    "environments",
    "evaluates_at",
    "field_help",
    "from_record",
    "not_defaults",
    "notes",
    "override",
    "own_setting",
    "parse_assignments",
    "parse_seeds",
    "preset",
    "preset_about",
    "preset_names",
    "register_agent",
    "rounded",
    "row_steps",
    "setting",
    "show",
    "to_record",
    "validate",
]
