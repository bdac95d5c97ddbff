"""Nodes and blueprints made for tests."""

from __future__ import annotations

from typing import Any

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import Node

CONV = {"filters": 4, "kernel": (3, 3), "stride": 1, "padding": "same", "groups": 1, "bias": False}


INPUT = Node("input", "input", (), {"channels": 3})


def conv(name: str, x: str, **changes: Any) -> Node:
    return Node(name, "conv", (x,), CONV | changes)


def pool(name: str, x: str) -> Node:
    return Node(name, "pool", (x,), {"kind": "global_average"})


def dense(name: str, x: str) -> Node:
    return Node(name, "dense", (x,), {"units": 10})


def add(name: str, *inputs: str) -> Node:
    return Node(name, "add", inputs)


def net(*nodes: Node, size: int = 8) -> Blueprint:
    return Blueprint("net", (INPUT, *nodes), size)


SMALL = (conv("a", "input"), conv("b", "a"), add("c", "a", "b"), pool("pooled", "c"), dense("logits", "pooled"))
