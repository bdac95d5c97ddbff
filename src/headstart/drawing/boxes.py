"""The boxes of a picture: nodes of a blueprint in words, collected in boxes and groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import Node, Shape
from headstart.core.counts import counted

FOLLOWERS = ("norm", "act")  # shown in the box of the node before them
LEADERS = ("conv", "dense", "norm", "add", "scale", "concat")

Group = tuple[str, ...]  # the names of a stage and of a block in it, or fewer


@dataclass(frozen=True, slots=True)
class Box:
    """Nodes in a chain that are drawn as one box; only the last is an input of others."""

    nodes: tuple[Node, ...]
    group: Group

    @property
    def inputs(self) -> tuple[str, ...]:
        """The nodes that are its inputs."""
        return self.nodes[0].inputs

    @property
    def kind(self) -> str:
        """The kind that decides its colour, a key of `KINDS`."""
        first = self.nodes[0]
        return "depthwise" if first.op == "conv" and first["groups"] > 1 else _KIND_OF.get(first.op, "pointwise")


KINDS = {
    "input": "input",
    "conv": "convolution",
    "depthwise": "depthwise or grouped convolution",
    "dense": "dense",
    "pool": "pooling",
    "join": "sum, scale, concat",
    "pointwise": "norm, activation, dropout, shape",
    "module": "module of another library",
}
_KIND_OF = {
    "input": "input",
    "conv": "conv",
    "dense": "dense",
    "module": "module",
    **dict.fromkeys(("pool", "max_pool"), "pool"),
    **dict.fromkeys(("add", "scale", "concat"), "join"),
}


def boxes_of(blueprint: Blueprint) -> list[Box]:
    """Boxes in the order of their first nodes, each after its inputs."""
    taken = Counter(name for node in blueprint.nodes for name in node.inputs)
    groups = _groups(blueprint)
    gathered: list[list[Node]] = []
    ending: dict[str, list[Node]] = {}  # boxes by their last node
    for node in blueprint.nodes:
        before = ending.get(node.inputs[0]) if node.op in FOLLOWERS else None
        alone = before is not None and taken[node.inputs[0]] == 1
        if before is not None and alone and before[0].op in LEADERS and groups[before[0].name] == groups[node.name]:
            del ending[before[-1].name]
            before.append(node)
        else:
            before = [node]
            gathered.append(before)
        ending[node.name] = before
    return [Box(tuple(nodes), groups[nodes[0].name]) for nodes in gathered]


def _groups(blueprint: Blueprint) -> dict[str, Group]:
    """The group of every node. A group is drawn once: nodes that return to it later are not in it."""
    names = set(blueprint.layers)
    found = {node.name: group_of(node.name, names) for node in blueprint.nodes}
    seen: set[Group] = set()
    last: Group = ()
    for name, group in found.items():
        kept = group
        while kept != last[: len(kept)] and kept in seen:
            kept = kept[:-1]
        found[name] = last = kept
        seen |= {kept[:depth] for depth in range(1, len(kept) + 1)}
    return _cut_at_pools(blueprint, found)


def group_of(name: str, names: set[str]) -> Group:
    """The stage and the block in a node's name: ("blocks.3", "blocks.3.0") of "blocks.3.0.se.pool".

    Only numbered parts are blocks ("bn1.act" is not in a group "bn1").
    """
    parts = name.split(".")
    depth = 1
    while depth < len(parts) and parts[depth].isdecimal():
        depth += 1
    depth = min(depth, len(parts) - 1)
    while depth and ".".join(parts[:depth]) in names:
        depth -= 1
    if depth == 0:
        return ()
    block = ".".join(parts[:depth])
    return (block,) if depth == 1 else (".".join(parts[: depth - 1]), block)


def _cut_at_pools(blueprint: Blueprint, groups: dict[str, Group]) -> dict[str, Group]:
    """Where a stage is a plain chain with several max pools, as in VGG, each of its blocks ends with a max pool."""
    chains: dict[str, list[Node]] = {}
    for node in blueprint.nodes:
        if groups[node.name]:
            chains.setdefault(groups[node.name][0], []).append(node)
    found = dict(groups)
    for stage, nodes in chains.items():
        pools = [place for place, node in enumerate(nodes) if node.op == "max_pool"]
        if len(pools) < 2 or any(len(groups[node.name]) > 1 for node in nodes):
            continue
        starts = [0, *(place + 1 for place in pools if place + 1 < len(nodes)), len(nodes)]
        for start, end in pairwise(starts):
            title = f"{nodes[start].name}–{nodes[end - 1].name.removeprefix(f'{stage}.')}"
            found |= {node.name: (stage, title) for node in nodes[start:end]}
    return found


def short_name(box: Box, node: Node) -> str:
    """A node's name without the title of its frame."""
    return node.name.removeprefix(f"{box.group[-1]}.") if len(box.group) > 1 else node.name


def describe(node: Node) -> str:
    """An op with its main attributes."""
    match node.op:
        case "input":
            return counted(node["channels"], "channel")
        case "conv":
            each = node["groups"] == node["filters"] > 1
            groups = f", {node['groups']} groups" if node["groups"] > 1 and not each else ""
            return f"{'depthwise' if each else 'conv'} {_window(node)}, {counted(node['filters'], 'filter')}{groups}"
        case "max_pool":
            return f"max pool {_window(node)}"
        case "norm":
            return "batch norm"
        case "act" | "pool":
            return str(node["kind"]).replace("_", " ")
        case "add":
            return "sum"
        case "scale":
            return "scale: channels × gate"
        case "pad_channels":
            return f"zeros: {counted(node['before'], 'channel')} before, {node['after']} after"
        case "luma":
            return "grey: the luma of 3 channels"
        case "dropout":
            return f"dropout {node['rate']:g}"
        case "dense":
            return f"dense, {counted(node['units'], 'unit')}"
        case "module":
            return f"module {node['source']}"
    return node.op


def _window(node: Node) -> str:
    stride = f", stride {node['stride']}" if node["stride"] > 1 else ""
    return "×".join(map(str, node["kernel"])) + stride


def details(node: Node, shape: Shape, parameters: int) -> str:
    """All about a node, in one line: shown when the pointer rests on it."""
    known = [f"{key} {value}" for key, value in node.attrs.items() if key in ("padding", "bias", "epsilon", "ceil")]
    text = ", ".join([describe(node), *known])
    return f"{node.name}: {text} → {shape_text(shape)}" + (f"; {parameters:,} parameters" if parameters else "")


def shape_text(shape: Shape) -> str:
    """Channels × height × width, or features."""
    return "×".join(map(str, shape))


_WIDTHS = {  # of letters, relative to their size
    **dict.fromkeys(" !'(),-./:;IJ[\\]fijlrt|", 0.42),
    **dict.fromkeys('"$*0123456789?EFKLPSTY_`abcdeghknopqsuvxyz{}–', 0.66),
    **dict.fromkeys("#&+<=>ABCDGHNOQRUVXZ^w~×→", 0.84),
    **dict.fromkeys("%@MWm…", 1.0),
}


def text_width(text: str, size: float) -> float:
    """An upper estimate of the width of a text in the widest of the usual fonts (Verdana, DejaVu Sans)."""
    return size * sum(_WIDTHS.get(sign, 1.1) for sign in text)


def fitted(text: str, width: float, size: float) -> str:
    """A text, shortened at its end to a width."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"


def clean(texts: Sequence[str] | str) -> str:
    """Text that XML allows: without control characters, and only what UTF-8 can encode."""
    text = texts if isinstance(texts, str) else "\n".join(texts)
    signs = (s if (s.isprintable() or s == "\n") else s.encode("unicode_escape").decode() for s in text)
    return "".join(signs)
