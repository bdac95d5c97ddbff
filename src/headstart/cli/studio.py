"""`headstart studio`: the whole flow in a browser."""

from __future__ import annotations

from typing import Annotated

import typer


def studio(
    project: Annotated[
        str, typer.Argument(metavar="FOLDER", help="The project: photos, model and report lie in it.")
    ] = "headstart-project",
    host: Annotated[str, typer.Option(metavar="HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="On which port; 0: one that is free.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Sort photos, fit, look and try in a browser, on this machine alone, until Ctrl-C."""
    from headstart.studio.run import studio as run

    run(project, host=host, port=port, browser=browser)
