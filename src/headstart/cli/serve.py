"""`headstart serve`: models over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.cli import options


def serve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Models' folders or backbones' names; NAME=PATH names one."),
    ],
    host: Annotated[str, typer.Option(metavar="HOST", help="Where to listen; 0.0.0.0: to all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="On which port; 0: one that is free.")] = 8000,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A bearer token that requests must show; or set HEADSTART_TOKEN."),
    ] = None,
    precision: options.Precision = "auto",
    max_megabytes: Annotated[float, typer.Option(metavar="N", help="The largest body of a request.")] = 32,
    max_megapixels: Annotated[float, typer.Option(metavar="N", help="The largest image.")] = 100,
    max_images: Annotated[int, typer.Option(metavar="N", help="Images of one request.")] = 64,
    queue: Annotated[int, typer.Option(metavar="N", help="Images that wait; more are refused with 429.")] = 256,
    wait: Annotated[float, typer.Option(metavar="MS", help="Milliseconds that images wait for others.")] = 2,
    timeout: Annotated[float, typer.Option(metavar="S", help="Seconds for a body to arrive, and to be answered.")] = 30,
    watch: Annotated[bool, typer.Option(help="Load a model again when its folder changes.")] = True,
    log: Annotated[str, typer.Option(metavar="KIND", help="json, a line for each request; or none.")] = "json",
) -> None:
    """Answer requests over HTTP, many clients at a time, until Ctrl-C or SIGTERM."""
    from headstart.server.run import serve as run

    run(
        models, host=host, port=port, token_file=token_file, precision=precision, max_megabytes=max_megabytes,
        max_megapixels=max_megapixels, max_images=max_images, queue=queue, wait=wait, timeout=timeout, watch=watch,
        log=log,
    )  # fmt: skip
