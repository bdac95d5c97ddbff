"""A server is run: bound, loaded, told of, reloaded on a signal, and stopped when it has finished what it took."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

from headstart.core.arguments import PATH, PRECISION, YES_NO, Rule, checks, text, whole
from headstart.core.errors import UsageError, needs
from headstart.core.text import say
from headstart.data.sources import PathLike
from headstart.model.classifier import Classifier
from headstart.server.settings import RULES, Settings, read_token

LOCAL = ("127.0.0.1", "localhost", "::1")
STOPPING = 30  # seconds that requests which were taken have to finish
BACKLOG = 2048


def _models(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _model(each) for name, each in value.items()}
    alone = isinstance(value, str | bytes | os.PathLike | Classifier) or not isinstance(value, Iterable)
    return [_model(value)] if alone else [_model(each) for each in cast("Iterable[object]", value)]


def _model(value: object) -> str | Classifier:
    return value if isinstance(value, Classifier) else cast("str", PATH.take(value))


MODELS = Rule("models of photos: folders, names of networks or classifiers; or a dictionary of them by name", _models)


@checks(
    models=MODELS,
    host=text("a host's name or address"),
    port=whole(0, 65535),
    token_file=PATH,
    precision=PRECISION,
    watch=YES_NO,
    **RULES,
)
def serve(
    models: Mapping[str, PathLike | Classifier] | Iterable[PathLike | Classifier] | PathLike | Classifier,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: PathLike | None = None,
    precision: str = "auto",
    max_megabytes: float = 32,
    max_megapixels: float = 100,
    max_images: int = 64,
    queue: int = 256,
    wait: float = 2,
    timeout: float = 30,
    watch: bool = True,
    log: str = "json",
) -> None:
    """Serve models of photos over HTTP until a signal ends it: see `docs/serve.md`.

    Args:
        models: folders, names of networks or classifiers, one or several; "NAME=PATH" or a dictionary names them.
        port: 0 takes one that is free.
        token_file: a file with the bearer token that requests must show; else that of HEADSTART_TOKEN, if there is one.
        max_megabytes: of a request's body.
        max_megapixels: of an image.
        max_images: of a request.
        queue: images that wait; more are refused with 429.
        wait: milliseconds that images wait for others that are on their way.
        timeout: seconds for a body to arrive, and again for its answer.
        watch: whether a model whose folder changes is loaded again, as it is on SIGHUP.
        log: "json", a line on standard error for each request; or "none".

    Raises:
        UsageError: there is no such model, or the address cannot be had.
        CheckError: a model is damaged.
    """
    with needs("fastapi, uvicorn and prometheus_client", "serve", "The server"):
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    from headstart.server.models import Models, named

    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise UsageError("A notebook, or another event loop, runs here already. Serve from a terminal: headstart serve")
    token = read_token(None if token_file is None else str(token_file))
    settings = Settings(
        max_megabytes=max_megabytes, max_megapixels=max_megapixels, max_images=max_images, queue=queue, wait=wait,
        timeout=timeout, token=token, log=log,
    )  # fmt: skip
    opened = Models(named(models), precision)  # type: ignore[arg-type]
    if host not in LOCAL and not token:
        say(f"{host} is open to others, and no token is asked for: --token-file FILE")
    with _bound(host, port) as listening:
        secret = "$HEADSTART_TOKEN" if token_file is None else f"$(cat {shlex.quote(str(token_file))})"
        _run(opened, settings, listening, secret, watch=watch)


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{host}:{port} cannot be served at: {reason}. Choose another: --host, --port") from error
    with listening:
        yield listening


def server_of(app: Any, settings: Settings) -> Any:
    """uvicorn's server for the application, which says that it stops before it does."""
    import uvicorn

    from headstart.server.connections import protocol_of

    config = uvicorn.Config(
        app, http=protocol_of(settings.timeout), log_config=None, log_level="critical", access_log=False,
        server_header=False, date_header=False, proxy_headers=False, ws="none", lifespan="on",
        timeout_graceful_shutdown=STOPPING,
    )  # fmt: skip

    class Stoppable(uvicorn.Server):
        """Told of a signal, it is not ready any more."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            app.state.server.stop()
            super().handle_exit(sig, frame)

    return Stoppable(config)


def _run(models: Any, settings: Settings, listening: socket.socket, secret: str, *, watch: bool) -> None:
    from headstart.server.app import create_app

    app = create_app(models, settings, watch=watch)
    server, running = app.state.server, server_of(app, settings)

    def loaded() -> None:
        if server.failure is None:
            _tell(listening, models.sources, secret if settings.token else "")
            _reload_on_signal(server)
        else:
            running.should_exit = True

    server.when_loaded = loaded
    with _signals_end_well():
        running.run(sockets=[listening])
    if server.failure is not None:
        raise server.failure


def _tell(listening: socket.socket, names: Iterable[str], secret: str) -> None:
    """Where it is, what is served, and a command that works."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    names = list(names)
    token = f' -H "Authorization: Bearer {secret}"' if secret else ""
    address = f"http://{host}:{port}/predict"
    if len(names) > 1:  # in quotes: a question mark is a pattern for some shells
        address = f"'{address}?model={names[0]}'"
    say(f"serving {', '.join(names)} at http://{host}:{port}")
    say(f"try: curl{token} -F image=@photo.jpg {address}")


def _reload_on_signal(server: Any) -> None:
    """SIGHUP loads all models again, where the system has it and this is the main thread."""
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        loop, tasks = asyncio.get_running_loop(), set()

        def reload() -> None:
            task = loop.create_task(server.reload())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        with suppress(NotImplementedError):
            loop.add_signal_handler(signal.SIGHUP, reload)


@contextmanager
def _signals_end_well() -> Iterator[None]:
    """SIGTERM and Ctrl-C, which uvicorn raises again in the end, are no error; SIGHUP does not end what is loading."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {name: getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)}
    before = {number: signal.signal(number, lambda *_: None) for number in kept.values()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.stderr.flush()
