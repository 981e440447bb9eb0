"""What commands list: the version, presets, environments and their settings, fields."""

import argparse
import shutil
import sys
from typing import Any

import dqx
from dqx.cli import loading, shared


def add(subparsers: Any) -> None:
    """Makes the parsers of `dqx presets`, `dqx envs` and `dqx agents`."""
    listing = subparsers.add_parser("presets", help="list the presets", description="List presets.")
    listing.set_defaults(run=presets)
    parser = subparsers.add_parser(
        "envs",
        help="list the environments, or the settings of one",
        description="List the names that the field env takes, dqx's own environments and gymnax's; "
        "those of another suite (navix:); or the settings of one, which --set takes as "
        "env.NAME=VALUE.",
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="an environment, or a suite's prefix"
    )
    shared.add_import(parser)
    parser.set_defaults(run=envs)
    parser = subparsers.add_parser(
        "agents",
        help="list the agents, or the settings that one brings",
        description="List the names that the field agent takes, with the settings that each "
        "brings; or what the settings of one are. What other agents have too is in `dqx train "
        "--help`.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="an agent")
    shared.add_import(parser)
    parser.set_defaults(run=agents)


def version(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """`dqx --version`, and with ``-v`` what bits hang on and where compiled programs are kept."""
    if not options.version:
        parser.error("the following arguments are required: COMMAND")
    print(f"dqx {dqx.__version__}")
    if options.verbose:
        from dqx.compute.cache import cache_folder
        from dqx.study.host import checkout, versions
        from dqx.study.identity import processor, source

        found = {name: text for name, text in versions().items() if name != "dqx"}
        code = checkout()
        commit = code["git_commit"] or "not in a checkout"
        facts = {
            **found,
            "processor": processor(),
            "commit": f"{commit}, changed since" if code["git_modified"] else commit,
            "source": source(),
            "cache": cache_folder(),
        }
        for name, text in facts.items():
            print(f"{name}: {text}")
    return 0


def presets(options: argparse.Namespace) -> None:
    """`dqx presets`."""
    from dqx.settings import Config, preset_about, preset_names
    from dqx.settings.presets import preset_fields

    rows = [("PRESET", "ENVIRONMENT", "STEPS", "")]
    for name in preset_names():
        # Not as settings, which would load the agents that bring some of them, and JAX.
        fields = preset_fields(name)
        steps = fields.get("total_steps", Config().total_steps)
        rows.append((name, fields["env"], f"{steps:,}", preset_about(name).about))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, env, steps, about in rows:
        line = f"{name:<{widths[0]}}  {env:<{widths[1]}}  {steps:>{widths[2]}}  {about}".rstrip()
        if sys.stdout.isatty():
            columns = shutil.get_terminal_size().columns
            line = line if len(line) <= columns else line[: columns - 3].rstrip() + "..."
        print(line)


def envs(options: argparse.Namespace) -> None:
    """`dqx envs`, and `dqx envs NAME`."""
    loading.load("envs", own=options.modules)
    import envs as environments

    if options.name is not None:
        prefix = options.name.removesuffix(":")
        if prefix in environments.adapters.SUITES:
            _list_suite(prefix)
        else:
            if loading.is_of_module(options.name):
                loading.look_here()
            _describe(options.name)
        return
    own = environments.own_names()
    others = [name for name in environments.names() if name not in own]
    print("dqx's own:")
    print("\n".join(f"  {name}" for name in own))
    print("gymnax's (those with continuous actions cannot be trained):")
    print("\n".join(f"  {name}" for name in others))
    suites = ", ".join(f"{prefix}:" for prefix in environments.adapters.prefixes())
    print(f"other suites' by prefix, each an extra (`dqx envs navix:` lists one): {suites}")


def _list_suite(prefix: str) -> None:
    """Prints a suite's environments, and why others of it cannot be trained."""
    from dqx.settings import ConfigError
    from envs import adapters

    try:
        names, refused = adapters.names(prefix), adapters.refused(prefix)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print("\n".join(names))
    for why in dict.fromkeys(refused.values()):
        print(f"not trained, since {why}:")
        print("\n".join(f"  {name}" for name, reason in refused.items() if reason == why))


def _describe(name: str) -> None:
    import envs as environments
    from dqx.settings import ConfigError, show

    try:
        found = environments.describe(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print(f"{name}: {found.doc}" if found.doc else name)
    rows = [("SETTING", "TYPE", "DEFAULT", "UNIT", "")]
    for p in found.parameters:
        kind = p.type.__name__ + ("" if p.traced else ", compiled in")
        rows.append((f"env.{p.name}", kind, show(p.default), p.unit, p.doc))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if found.parameters else []:
        cells = zip(row, widths, strict=True)
        print("  " + "  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip())
    if not found.parameters:
        print("  it has no settings")


def agents(options: argparse.Namespace) -> None:
    """`dqx agents`, and `dqx agents NAME`."""
    loading.load("dqx.agents", own=options.modules)
    from dqx.settings import agent_help, agent_names, registry

    if options.name is not None:
        print("\n".join(agent_help(options.name)))
        return
    names = agent_names()
    width = max(map(len, names))
    for name in names:
        entry = registry.agent(name)
        settings = ", ".join(setting.name for setting in entry.settings)
        print(f"{name:<{width}}  {entry.doc}" + (f": {settings}" if settings else ""))


def field_help() -> str:
    """The fields that ``--set`` takes."""
    from dqx.settings import field_help as lines

    more = "`dqx agents` lists the settings that an agent brings, such as num_atoms of c51"
    return "\n".join([*lines(), "", more])
