"""A store in a bucket: its objects, and the mirror of those that this machine needs.

Whatever reads or writes a store works on the files of the mirror, a folder of this user's cache. `pull` brings it up to
date, `push` puts what was written there into the bucket, an object at a time, each whole or not there. A file of the
mirror that lies in the bucket is read-only and has its object's time of change; one that is still to be sent is
writable, so that nothing is lost where the bucket cannot be reached or the process dies: the next run sends it.
"""

import hashlib
import logging
import math
import mmap
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, TypeVar

from pyarrow import fs

from idennet_core import locks
from orchestrator.address import Address, resolved

PATIENCE = 600.0  # seconds for which a bucket that was reached before is tried again
LONGEST_WAIT = 30.0  # seconds between two tries
AT_ONCE = 8  # objects that are fetched together
BLOCK = 16 * 2**20  # bytes asked for at once
PART = 8 * 2**20  # bytes below which an object is sent in one piece
ABANDONED = 86400.0  # seconds since its last change after which what was to be fetched is nobody's
REFUSED = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|INVALID_TOKEN|UNRECOGNIZED_CLIENT|"
    "MISSING_AUTHENTICATION_TOKEN|INVALID_CLIENT_TOKEN_ID|PERMISSION_DENIED|UNAUTHENTICATED"
)
INCOMING = ".incoming/"  # what is sent in parts, before all of it is there
SENT, UNSENT = 0o444, 0o644
T = TypeVar("T")
log = logging.getLogger("idenctl")


class Bucket:
    """What a store needs of a bucket. Names are those of objects below the store's prefix, with slashes."""

    def __init__(self, address: Address, patience: float = 0.0, everywhere: Address | None = None) -> None:
        """Contacts nothing; `patience` is for how many seconds the bucket is tried again where it is not reached."""
        self.address, self.patience = address, patience
        self.everywhere = everywhere or resolved(address)
        self.path, self.mirror = address.path, self.everywhere.mirror
        self.tell: Callable[[str], None] = _warn  # what the bucket is waited for, and '' when it is there again
        self._away = False  # not reached when it was last tried
        self._read: dict[tuple[str, int, int], Any] = {}  # what was made of the objects that `starts` has read

    def __reduce__(self) -> tuple[Any, ...]:
        """Another machine finds its own credentials and mirror, and is patient from the start."""
        return Bucket, (self.address, PATIENCE, self.everywhere)

    def __str__(self) -> str:
        return str(self.address)

    def connect(self) -> None:
        """Find out whether the bucket can be read; from then on it is tried again where it is not reached.

        Raises FileNotFoundError for a bucket that is not there, PermissionError for one that may not be read and
        ConnectionError for one that cannot be reached.
        """
        if not self._call(lambda: self._files.get_file_info(fs.FileSelector(self.path, allow_not_found=True))):
            self._require_bucket()
        self.patience = PATIENCE
        for left in (self.mirror / ".incoming").glob("*"):  # by processes that were killed
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()

    def pull(self, *names: str, only: Sequence[str] = ("*",)) -> None:
        """Bring these files of the mirror, or folders (`data/`), up to date; with `only` the files in them called so.

        What is whole in the bucket comes whole, where its last part lies in the last of `names`: they are listed from
        the last to the first, and fetched from the first to the last. Files of which the object is gone are removed.
        """
        held = {name: self._held(name, only) for name in names}
        listed = {name: self._list(name, only) for name in reversed(names)}
        for name in reversed(names):
            for path in held[name] if listed[name] else ():  # an empty listing is no reason to forget all
                if self._name(path) not in listed[name]:
                    path.unlink(missing_ok=True)
        wanted = {name: [info for info in found.values() if self._differs(info)] for name, found in listed.items()}
        while any(wanted.values()):  # again where objects changed while they were fetched
            for name in names:
                self._call(partial(self._fetch, wanted[name]))
            again = {name: self._list(name, only) for name in reversed(names) if wanted[name]}
            wanted = {
                name: [again[name][key] for key in map(self._key, infos) if key in again.get(name, ())]
                for name, infos in wanted.items()
            }
            wanted = {name: list(filter(self._differs, infos)) for name, infos in wanted.items()}

    def push(self, *paths: Path, once: bool = False, later: bool = False) -> None:
        """Send files of the mirror, or folders, in which a JSON file says that they are whole: it comes last.

        With `once`, a folder that is whole in the bucket already stays as it is there. With `later`, nobody waits for a
        bucket that is not reached: the next run sends what was written.
        """
        for path in paths:
            files = sorted(_files_in(path), key=lambda file: (file.suffix == ".json", file))
            for file in files:
                file.chmod(UNSENT)
            if path.is_dir() and files:
                if once and self._info(files[-1]).type == fs.FileType.File:
                    for file in files:
                        self._mark(file, None)
                    continue
                self.remove(files[-1])
            with suppress(*([ConnectionError] if later else [])):
                for file in files:
                    self._send(file, 0 if later else None)

    def send(self, *names: str) -> None:
        """Send what earlier runs wrote to these folders of the mirror and did not come to send.

        As in `pull`, what is whole here comes whole into the bucket.
        """
        left = {name: list(filter(_is_unsent, _files_in(self.mirror / name))) for name in reversed(names)}
        if count := sum(map(len, left.values())):
            log.warning(f"{self}: sending {count} files that could not be sent before")
        for name in names:
            for path in sorted(left[name], key=lambda file: (file.suffix == ".json", file)):
                with suppress(FileNotFoundError):  # removed by another process
                    info = self._info(path)
                    if info.type == fs.FileType.File and info.mtime_ns > path.stat().st_mtime_ns:
                        self._mark(path, None)  # what somebody else wrote since counts
                    else:
                        self._send(path)

    def remove(self, path: Path, later: bool = False) -> None:
        """Remove the object of a file of the mirror, where there is one; with `later`, if the bucket is reached."""
        with suppress(FileNotFoundError, *([ConnectionError] if later else [])):
            self._call(lambda: self._files.delete_file(f"{self.path}/{self._name(path)}"), 0 if later else None)

    def starts(self, name: str, read: Callable[[IO[bytes], int], T]) -> dict[Path, T]:
        """What `read(file, size)` makes of the objects in this folder, of which only what it reads is fetched."""
        found = {}
        for key, info in self._list(name, ("*",)).items():
            mark = (key, info.size, info.mtime_ns)
            if mark not in self._read:
                with suppress(FileNotFoundError):
                    self._read[mark] = self._call(partial(self._started, info, read))
            if mark in self._read:
                found[self.mirror / key] = self._read[mark]
        return found

    def has(self, name: str) -> bool:
        """Whether the bucket holds an object of this name now, whatever the mirror holds."""
        return bool(self._list(name, ("*",)))

    def things(self, name: str, only: str = "*") -> dict[Path, tuple[int, float]]:
        """Bytes and time of change, in seconds since 1970, of what lies in a folder: objects, and whole folders."""
        found: dict[Path, tuple[int, float]] = {}
        for key, info in self._list(f"{name}/", (only,)).items():
            path = self.mirror / name / key.removeprefix(f"{name}/").partition("/")[0]
            size, changed = found.get(path, (0, 0.0))
            found[path] = (size + info.size, max(changed, info.mtime_ns / 1e9))
        return found

    def clear(self, path: Path) -> None:
        """Remove the object of a file of the mirror, or all of a folder's: first what says that it is whole."""
        name = self._name(path)
        keys = {**self._list(name, ("*",)), **self._list(f"{name}/", ("*",))}
        for key in sorted(keys, key=lambda key: (not key.endswith(".json"), key)):
            self.remove(self.mirror / key)

    def gone(self, name: str) -> list[Path]:
        """The files in a folder of the mirror that were in the bucket, and are no longer."""
        held, listed = self._held(f"{name}/", ("*",)), self._list(f"{name}/", ("*",))
        return [path for path in held if self._name(path) not in listed]

    def address_of(self, path: Path) -> str:
        """Where the object of a file of the mirror lies."""
        return f"{self.address.kind}://{self.path}/{self._name(path)}"

    def _started(self, info: fs.FileInfo, read: Callable[[IO[bytes], int], T]) -> T:
        with self._files.open_input_file(info.path) as file:
            return read(file, file.size())

    @cached_property
    def _files(self) -> fs.FileSystem:
        self.mirror.mkdir(parents=True, exist_ok=True, mode=0o700)
        options = dict(self.everywhere.options)
        if self.everywhere.kind == "gs":
            return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=20), **options)
        region = options.pop("region", None) or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region is None:
            here = "endpoint_override" in options
            region = "us-east-1" if here else fs.resolve_s3_region(self.address.bucket)
        return fs.S3FileSystem(
            region=region,
            connect_timeout=5,
            request_timeout=20,
            allow_delayed_open=True,  # a small object in one request
            background_writes=False,
            **options,
        )

    def _call(self, act: Callable[[], T], patience: float | None = None) -> T:
        """Do what may fail at the bucket; where it is not reached, again with growing waits, from then on."""
        ends, wait = math.inf, 1.0
        while True:
            try:
                done = act()
                if self._away:
                    self._away = False
                    self.tell("")
                return done
            except OSError as error:
                if error.errno is not None:  # of this machine's disk, or an object that is not there
                    raise
                self._refuse(str(error))
                reason = _reason(str(error))
            # a large file takes long, and who was stopped for a while finds no connection left
            ends = min(ends, time.monotonic() + (self.patience if patience is None else patience))
            if time.monotonic() + wait > ends:
                kept = f"what was written is kept in {self.mirror} and sent by the next run on this machine"
                step = kept if self.patience else "look at the network, and at the endpoint if there is one"
                raise ConnectionError(f"the store {self} must be reachable, it is not ({reason}); {step}")
            if not self._away:
                self.tell(f"{self} is not reached ({reason}): trying again for {self.patience / 60:.0f} minutes")
            self._away = True
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _refuse(self, error: str) -> None:
        """Raise what waiting does not mend; the bucket's own words are not shown, as nobody knows what they hold."""
        if "NO_SUCH_BUCKET" in error or re.search(r"Bucket '.*' not found", error):
            self._missing()
        if REFUSED.search(error):
            raise PermissionError(
                f"the store {self} must be readable and, to run, writable with this machine's credentials, "
                f"it is not ({_reason(error)}); give others, or another --store"
            )

    def _require_bucket(self) -> None:
        """Raise FileNotFoundError unless the bucket is there; one that does not say is taken to be."""
        with suppress(PermissionError):
            if self._call(lambda: self._files.get_file_info(self.address.bucket)).type == fs.FileType.NotFound:
                self._missing()

    def _missing(self) -> None:
        raise FileNotFoundError(f"a store's bucket must exist, {self} has none; create it, or give another --store")

    def _list(self, name: str, only: Sequence[str]) -> dict[str, fs.FileInfo]:
        """The objects in a folder, or the one of this name."""
        base = f"{self.path}/{name}"
        asked = [base]
        if name.endswith("/"):
            asked = fs.FileSelector(base.rstrip("/"), recursive=True, allow_not_found=True)
        found = self._call(lambda: self._files.get_file_info(asked))
        infos = {self._key(info): info for info in found if info.type == fs.FileType.File}
        infos = {key: info for key, info in infos.items() if _proper(key.removeprefix(INCOMING))}
        return {key: info for key, info in infos.items() if _is_called(key.rpartition("/")[2], only)}

    def _held(self, name: str, only: Sequence[str]) -> list[Path]:
        """The files in a folder of the mirror that are, or were, in the bucket."""
        found = [path for path in _files_in(self.mirror / name) if _is_called(path.name, only)]
        return [path for path in found if not _is_unsent(path)]

    def _differs(self, info: fs.FileInfo) -> bool:
        """Whether the mirror lacks the object as it is; what is still to be sent is left alone."""
        try:
            file = (self.mirror / self._key(info)).stat()
        except FileNotFoundError:
            return True
        same = (file.st_size, int(file.st_mtime)) == (info.size, info.mtime_ns // 10**9)
        return not same and not file.st_mode & 0o200

    def _fetch(self, infos: Sequence[fs.FileInfo]) -> None:
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for _ in pool.map(self._fetch_one, infos):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch_one(self, info: fs.FileInfo) -> None:
        """Fetch an object, unless another process of this machine does so now: then wait for it."""
        key = self._key(info)
        place, beside = self.mirror / key, self.mirror / ".incoming" / uuid.uuid4().hex
        with _locked(self.mirror / ".locks" / hashlib.sha256(key.encode()).hexdigest()[:2]):
            if not self._differs(info):
                return
            beside.parent.mkdir(parents=True, exist_ok=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._download(info.path, beside)
                self._mark(beside, info)
                beside.replace(place)
            except FileNotFoundError:  # removed since it was listed
                place.unlink(missing_ok=True)
            finally:
                beside.unlink(missing_ok=True)

    def _download(self, path: str, target: Path) -> None:
        with self._files.open_input_file(path) as source, target.open("wb") as file:
            while block := source.read(BLOCK):
                file.write(block)

    def _send(self, path: Path, patience: float | None = None) -> None:
        """Send a file; the note that it is sent goes to the very file that was, whatever took its place meanwhile."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            self._call(lambda: self._put(f"{self.path}/{self._name(path)}", content), patience)
            info = self._info(path)
            self._mark(file.fileno(), info if info.size == size else None)

    def _put(self, path: str, content: "bytes | mmap.mmap") -> None:
        """Write an object, whole or not at all.

        A stream that fails, or that Ctrl-C ends, completes what it has as an object when it is destroyed. So it writes
        in a thread, which Ctrl-C does not reach; and what goes in several parts goes to a place of its own first, and
        is copied where it belongs once it is all there.
        """
        place = path if len(content) < PART else f"{self.path}/{INCOMING}{uuid.uuid4().hex}"

        def write() -> None:
            stream = self._files.open_output_stream(place)
            stream.write(content)
            stream.close()

        with ThreadPoolExecutor(1) as thread:
            thread.submit(write).result()
        if place != path:
            if self._files.get_file_info(place).size != len(content):
                raise OSError("a part is missing")
            self._files.copy_file(place, path)
            with suppress(OSError):
                self._files.delete_file(place)

    def _mark(self, file: "Path | int", info: fs.FileInfo | None) -> None:
        """Note that a file is in the bucket, as it is there; without `info` in another form, which is to be fetched."""
        changed = info.mtime_ns if info else 0
        os.utime(file, ns=(changed, changed))
        os.chmod(file, SENT)  # noqa: PTH101  a descriptor has no Path

    def _info(self, path: Path) -> fs.FileInfo:
        return self._call(lambda: self._files.get_file_info(f"{self.path}/{self._name(path)}"))

    def _key(self, info: fs.FileInfo) -> str:
        return str(info.path).removeprefix(f"{self.path}/")

    def _name(self, path: Path) -> str:
        return path.relative_to(self.mirror).as_posix()


def _warn(text: str) -> None:
    if text:
        log.warning(text)


def _reason(error: str) -> str:
    """The bucket's error in a few words, without anything that it quotes."""
    code = re.search(r"(?:AWS Error |Status\()([A-Z_]+)", error)
    return code[1].lower().replace("_", " ").strip() if code else "an error without a name"


def _proper(key: str) -> bool:
    """Whether an object's name can be that of a file in the mirror, and not a hidden one."""
    return all(part and not part.startswith(".") for part in key.split("/")) and not re.search(r"[\\\0]", key)


def _is_called(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_unsent(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o200)
    except FileNotFoundError:  # another process has removed it
        return False


def _files_in(path: Path) -> list[Path]:
    """A file, or those in a folder that are not hidden or in hidden folders."""
    if path.is_file():
        return [path]
    found = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process or thread of this machine at a time; where there are no locks, by all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        locks.take(file, wait=True)
        yield
