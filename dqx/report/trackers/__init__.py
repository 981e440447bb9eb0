"""Trackers: sinks that hand rows of metrics on to other programs, loaded when asked for."""
