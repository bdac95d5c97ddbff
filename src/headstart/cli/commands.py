"""The commands: the name of each, which is its module's and its function's, and what the list of them says of it."""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {  # what it does, and an example
    "check": ("Look for unreadable, repeated and wrongly named images.", "headstart check photos"),
    "fit": ("Fit a classifier on labelled photos, measure and save it.", "headstart fit photos --out model"),
    "compare": ("Compare networks and sizes on your photos.", "headstart compare photos --pixels 96,160,224"),
    "evaluate": ("Measure a model on labelled photos.", "headstart evaluate model photos/test"),
    "report": ("Write a page on a model, with its worst mistakes.", "headstart report model photos"),
    "predict": ("Say what is on photos.", "headstart predict model a.jpg b.jpg"),
    "explain": ("Show why a model answers what it does.", "headstart explain model cat.jpg --class cat"),
    "finetune": ("Train more of a model than its head.", "headstart finetune model photos --recipe fast"),
    "train": ("Train a small network from random weights.", "headstart train digits"),
    "attack": (
        "Fool a model with a changed photo, or measure how robust it is.",
        "headstart attack model dog.jpg --target cats",
    ),
    "imagine": ("Make a network's ideal image of a class.", "headstart imagine model --class cat"),
    "export": ("Write a model for another runtime.", "headstart export model --to onnx"),
    "serve": ("Answer requests over HTTP.", "headstart serve model"),
    "studio": ("All of it in a browser, on this machine.", "headstart studio"),
    "show": ("Show the layers of a network, or draw it.", "headstart show resnet50 --graph resnet50.svg"),
    "backbones": ("List the networks to start from.", "headstart backbones"),
    "cache": ("Show or empty the cache of features and weights.", "headstart cache --prune --days 90"),
}
