"""A file at a URL -> its bytes, asked for in pieces, with time limits, and with retries that end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PIECE = 8 << 20  # bytes asked for at once; what a failed attempt can lose
SMALLEST_PIECE = 64 << 10  # pieces halve at every failure, so that slow and flaky servers get through too
PIP = 'pip install "fastface[remote]"'
CREDENTIALS = (
    "give credentials the usual way: AWS_ACCESS_KEY_ID and its kin or ~/.aws for s3 (FSSPEC_S3_ANON=true for "
    "public buckets), ~/.netrc for http, or ~/.config/fsspec/*.json"
)


class Patience(NamedTuple):
    """How long a server is waited for."""

    timeout_s: float = 30.0  # for a connection, and then for every next byte
    deadline_s: float = 300.0  # since the last whole piece, over all attempts; then it is an error
    attempts: int = 8  # failures in a row; then it is an error
    pause_s: float = 0.5  # before the second attempt; doubles up to 30 s; times 0.5 to 1.5, at random


PATIENCE = Patience()


class Stopped(ValueError):
    """Nobody waits for this file any more."""


def is_url(place: str | Path) -> bool:
    """Tell 'https://host/set' and 's3://bucket/set' from a folder."""
    return "://" in str(place)


class Server:
    """The files below one URL, read through fsspec: http, https, s3, or what else is installed for it.

    fsspec's own patience is 5 minutes for a whole answer over http, and up to 25 silent repetitions over s3; so
    limits on connecting and on every read are handed to the client below it, and repetition is done here, where
    it can be counted, told and ended.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        parts = urlsplit(url)
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(
                f"data.shards: {parts.scheme}://{parts.netloc.split('@')[-1]}{parts.path} must be given without "
                f"user, password, ? and #: URLs are written to logs and checkpoints; {CREDENTIALS}"
            )
        self.url, self.patience = url.rstrip("/"), patience or PATIENCE
        self._files = _file_system(self.url, parts.scheme, self.patience)

    def read(self, name: str) -> bytes:
        """Return the whole of a small file whose size is not known. ValueError says what went wrong."""
        trouble = _Trouble(f"{self.url}/{name}", self.patience, threading.Event())
        while True:
            try:
                return self._ask(name, None, None, trouble)
            except Exception as error:
                trouble.take(error, 0)

    def download(self, name: str, size: int, target: Path, stop: threading.Event) -> None:
        """Append to `target` what it lacks of a file of `size` bytes; nothing is verified.

        ValueError says what the server did, OSError what the disk did; Stopped once `stop` is set.
        """
        with open(target, "ab") as file:
            for data in self._pieces(name, file.tell(), size, stop):
                file.write(data)

    def _pieces(self, name: str, start: int, size: int, stop: threading.Event) -> Iterator[bytes]:
        """Yield the bytes from `start` to `size`, in order."""
        trouble, length = _Trouble(f"{self.url}/{name}", self.patience, stop), PIECE
        while start < size:
            end = min(start + length, size)
            try:
                data = self._ask(name, start, end, trouble)
                if len(data) == size:  # the server ignores Range, as http.server does, and sent everything
                    data = data[start:]
                elif not 0 < len(data) <= end - start:
                    raise OSError(f"{len(data):,} bytes came where {end - start:,} were asked for")
            except Exception as error:
                trouble.take(error, start)
                length = max(length // 2, SMALLEST_PIECE)
                continue
            trouble.over()
            start += len(data)
            yield data

    def _ask(self, name: str, start: int | None, end: int | None, trouble: _Trouble) -> bytes:
        """Ask once for the bytes [start, end) of a file, or for all."""
        files, path = self._files, f"{self.url}/{name}"
        if not files.async_impl:
            return files.cat_file(path, start=start, end=end)
        future = asyncio.run_coroutine_threadsafe(files._cat_file(path, start=start, end=end), files.loop)
        try:
            while True:
                done, _ = concurrent.futures.wait([future], timeout=0.1)
                if done:
                    return future.result()
                trouble.check()
        finally:
            future.cancel()


class _Trouble:
    """What has gone wrong with one file since its last good piece."""

    def __init__(self, url: str, patience: Patience, stop: threading.Event) -> None:
        self._url, self._patience, self._stop = url, patience, stop
        self.over()

    def over(self) -> None:
        """Begin to count anew: a piece has come."""
        self._attempts, self._since = 0, time.monotonic()

    def check(self) -> None:
        """Raise Stopped or TimeoutError where waiting has no sense any more."""
        if self._stop.is_set():
            raise Stopped(self._url)
        if time.monotonic() - self._since > self._patience.deadline_s:
            raise TimeoutError(f"no whole piece within {self._patience.deadline_s:g} s")

    def take(self, error: Exception, offset: int) -> None:
        """Sleep after a failure that may pass; raise a ValueError after one that will not, or one too many."""
        if isinstance(error, Stopped):
            raise error
        self._attempts += 1
        where, seconds = f"{self._url} at byte {offset:,}", time.monotonic() - self._since
        if advice := _hopeless(error):
            raise ValueError(f"{where}: {_text(error)} (attempt {self._attempts}, not repeated): {advice}") from None
        patience = self._patience
        if self._attempts >= patience.attempts or seconds > patience.deadline_s:
            raise ValueError(
                f"{where}: given up after attempt {self._attempts} and {seconds:.1f} s; the last one failed with: "
                f"{_text(error)}. Check the server and the way to it, then start again with --resume: what has "
                "arrived is kept in the cache"
            ) from None
        pause = min(patience.pause_s * 2 ** (self._attempts - 1), 30.0) * random.uniform(0.5, 1.5)
        warnings.warn(
            f"{where}: attempt {self._attempts} of {patience.attempts} failed with: {_text(error)}; "
            f"trying again in {pause:.1f} s",
            stacklevel=2,
        )
        self._stop.wait(pause)


def _text(error: Exception) -> str:
    """Describe an error without the address that clients put in: after a redirect it can hold a signature."""
    status = getattr(error, "status", None)
    if status:
        return f"HTTP {status} {getattr(error, 'message', '')}".strip()
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"{type(error).__name__} {error}".strip().split(", url=")[0]


def _hopeless(error: Exception) -> str | None:
    """Say what to do about an error that will come again; None for one that may pass."""
    status, kind = getattr(error, "status", None), type(error).__name__
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return (
            "check data.shards, and that the set was uploaded whole (meta.json last). Of a set with splits "
            "name one, such as .../train"
        )
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in kind:
        return CREDENTIALS
    if status == 416 or "InvalidRange" in str(error):
        return "the file there ends before it should: it was cut or replaced after the set was made; upload it again"
    if status and 400 <= status < 500 and status not in (408, 425, 429):
        return "the server refuses this request: check data.shards"
    if "Certificate" in kind or isinstance(error, (ValueError, TypeError, ImportError)):
        return "check data.shards and the configuration of fsspec"
    return None


def _file_system(url: str, scheme: str, patience: Patience) -> Any:
    """Build fsspec's file system for a URL, with the user's own options where fsspec's configuration has some."""
    try:
        import fsspec
        from fsspec.config import conf

        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            import aiohttp  # pyright: ignore[reportMissingImports]

            limits = aiohttp.ClientTimeout(total=None, sock_connect=patience.timeout_s, sock_read=patience.timeout_s)
            ours: dict[str, Any] = {"timeout": limits, "trust_env": True, "headers": {"Accept-Encoding": "identity"}}
            options["client_kwargs"] = ours | conf.get(scheme, {}).get("client_kwargs", {})
        elif scheme in ("s3", "s3a"):
            ours = {"connect_timeout": patience.timeout_s, "read_timeout": patience.timeout_s}
            ours["retries"] = {"max_attempts": 0}
            options["config_kwargs"] = ours | conf.get(scheme, {}).get("config_kwargs", {})
        files = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    except ImportError as error:
        raise ValueError(f"{url}: shards at {scheme}:// need more packages ({error}): {PIP}") from None
    except ValueError as error:  # a protocol nobody knows
        raise ValueError(f"{url}: fsspec cannot read from {scheme}:// ({error})") from None
    if scheme in ("s3", "s3a"):
        files.retries = 1  # of s3fs's own loop, which tells nobody
    return files
