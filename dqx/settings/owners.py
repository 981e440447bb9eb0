"""Whose a setting is: that of the agents, or choices of another setting, that have a trait."""

NETWORK = ("agent", "network")
GRADIENT = ("agent", "gradient")
TARGET = ("agent", "target")
REPLAY = ("agent", "replay")
TABLE = ("agent", "table")
SOFT = ("target", "soft policy")
SCALAR = ("agent", "scalar target")
PRIORITIES = ("sampling", "priorities")
