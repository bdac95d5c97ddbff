"""The models of a server by their names, each replaced by a new version when its folder has one."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from headstart.core.errors import HeadstartError, UsageError, did_you_mean, listed, one_line
from headstart.model import stored
from headstart.model.classifier import Classifier
from headstart.server.logs import Log
from headstart.server.metrics import Metrics
from headstart.server.refused import Refused
from headstart.server.served import Served, open_served

Source = str | Classifier
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LOOK = 1.0  # seconds between two looks at the folders


def named(models: Mapping[str, Source] | Iterable[Source]) -> dict[str, Source]:
    """Models by the names under which they are served: of a folder its own, "NAME=PATH" chooses another.

    Raises:
        UsageError: there is none, a name cannot stand in an address, or two are alike.
    """
    if isinstance(models, Mapping):
        pairs = [(str(name), source) for name, source in models.items()]
    else:
        pairs = [_pair(source) for source in models]
    found: dict[str, Source] = {}
    for name, source in pairs:
        if not NAME.fullmatch(name):
            raise UsageError(
                f"'{name}' cannot be the name of a served model: letters, digits, '.', '_' and '-' can. Choose one: "
                "NAME=PATH"
            )
        if name in found:
            raise UsageError(f"Two models are called '{name}'. Choose another name for one: NAME=PATH")
        found[name] = source
    if not found:
        raise UsageError("Expected one model to serve, or more. Received: none.")
    return found


def _pair(source: Source) -> tuple[str, Source]:
    if isinstance(source, Classifier):
        return "model", source
    name, equals, path = source.partition("=")
    if equals and not os.path.exists(source):
        named_path = os.path.expanduser(path)
        if NAME.fullmatch(name) and not path:
            raise UsageError(f"'{source}' names a model, and no path comes after it. Expected NAME=PATH.")
        if NAME.fullmatch(name) or os.path.exists(named_path):
            return name, named_path
    whole = os.path.expanduser(source)
    return os.path.basename(os.path.abspath(whole) if os.path.isdir(whole) else whole), whole


class Models:
    """What is served now. It is asked and changed on one event loop; only opening a model is done beside it."""

    def __init__(self, sources: Mapping[str, Source], precision: str = "auto") -> None:
        self.sources, self.precision = dict(sources), precision
        self.served: dict[str, Served] = {}
        self._seen = {name: _look(source) for name, source in self.sources.items()}
        self._folders = {name for name, look in self._seen.items() if look}
        self._one_at_a_time = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether all of them can answer."""
        return len(self.served) == len(self.sources)

    def open_all(self) -> None:
        """Open each that is not open.

        Raises:
            UsageError, CheckError: one cannot be.
        """
        for name, source in self.sources.items():
            if name not in self.served:
                self.served[name] = open_served(name, source, self.precision)

    def of(self, name: str | None, version: str | None = None) -> Served:
        """The model of a name, which only a server of one model can do without.

        Raises:
            Refused: there is none, or none of this version, or it is not said which; or they are being loaded.
        """
        if name is not None and name not in self.sources:
            raise Refused(404, "no such model", f"There is no such model. {did_you_mean(name, self.sources)}")
        if not self.ready:
            raise Refused(503, "loading", "The models are being loaded.", {"Retry-After": "1"})
        if name is None and len(self.sources) > 1:
            raise Refused(
                422, "which model", f"Several models are served: {listed(self.sources)}. Say which: ?model=NAME"
            )
        found = self.served[name if name is not None else next(iter(self.served))]
        if version is not None and version != found.version:
            raise Refused(404, "no such version", f"The version that is served is {found.version}.")
        return found

    async def reload(self, names: Iterable[str], log: Log, metrics: Metrics) -> None:
        """Open models again, and put them in the place of the old ones, which finish what they took.

        One that cannot be opened is told in the log, and the old one stays.
        """
        async with self._one_at_a_time:
            for name in names:
                self._seen[name] = _look(self.sources[name])
                old = self.served.get(name)
                try:
                    if name in self._folders and not os.path.exists(str(self.sources[name])):
                        raise UsageError(f"The folder '{self.sources[name]}' is gone.")
                    new = await asyncio.to_thread(open_served, name, self.sources[name], self.precision)
                except (HeadstartError, OSError) as error:
                    metrics.reloads.labels(name, "refused").inc()
                    said = str(error) if isinstance(error, HeadstartError) else one_line(error)
                    log.say("model refused", level="error", model=name, reason=said, kept=old.version if old else None)
                    continue
                self.served[name] = new
                metrics.reloads.labels(name, "loaded").inc()
                metrics.load_seconds.labels(name).set(new.seconds)
                log.say("model loaded", model=name, version=new.version, before=old.version if old else None)

    async def watch(self, log: Log, metrics: Metrics) -> None:
        """Look at the folders for ever: one that changed, and then stayed as it is, is loaded again.

        One that is gone, or lacks a file, is told in the log once, and what was loaded stays.
        """
        before, gone = dict(self._seen), set[str]()
        while True:
            await asyncio.sleep(LOOK)
            now = {name: _look(source) for name, source in self.sources.items()}
            changed = [
                name for name in now if now[name] and now[name] == before[name] and now[name] != self._seen[name]
            ]
            for name, look in now.items():
                if look:
                    gone.discard(name)
                elif before[name] == look != self._seen[name] and name not in gone:
                    gone.add(name)
                    log.say("model folder gone", level="warning", model=name, kept=self.served[name].version)
            before = now
            await self.reload(changed, log, metrics)


def _look(source: Source) -> tuple[tuple[int, int, int], ...]:
    """By what a change of a model's folder is seen; empty where it is no folder, or not whole."""
    if isinstance(source, Classifier):
        return ()
    try:
        found = [os.stat(Path(source) / name) for name in (stored.CONFIG, stored.MODEL, stored.GOLDEN)]
    except OSError:
        return ()
    return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)
