"""Families of architectures: functions that return a blueprint and read like the paper's table."""
