"""Where a store in a bucket lies: its address taken apart, and the folder of this machine that mirrors it."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

OPTIONS = {"s3": ("endpoint_override", "scheme", "region"), "gs": ("endpoint_override", "scheme")}
RULE = "a store in a bucket is s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"


@dataclass(frozen=True)
class Address:
    """The kind of bucket, s3 or gs; the bucket's name with the prefix in it; and options. Holds no secret."""

    kind: str
    path: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.kind}://{self.path}" + (f"?{urlencode(self.options, safe=':')}" if self.options else "")

    @property
    def bucket(self) -> str:
        """The bucket's name alone."""
        return self.path.partition("/")[0]

    @property
    def mirror(self) -> Path:
        """Where this user's cache holds what was needed of the store."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "idenctl" / f"{self.bucket}-{hashlib.sha256(str(self).encode()).hexdigest()[:12]}"


def is_address(text: str) -> bool:
    """Whether this names a bucket rather than a folder."""
    return "://" in text


def place(text: str) -> Path:
    """The folder that a text names. Raises ValueError for one that nobody means: none, or with a ~ left in."""
    if not text.strip():
        raise ValueError(f"a store is a folder or a bucket, got {text!r}; give its name")
    if text == "~" or text.startswith("~/"):
        raise ValueError(f"a folder's name has no ~ that a shell is to replace, got {text[:70]!r}; write $HOME")
    if slip := re.match("(s3|gs):", text):
        raise ValueError(f"{RULE}, got {text[:70]!r}; write {slip[1]}://")
    return Path(text)


def parsed(text: str) -> Address:
    """The address in a text. Raises ValueError for what is none; what may be a secret is not repeated."""
    kind, _, rest = text.partition("://")
    if kind not in OPTIONS:
        raise ValueError(f"{RULE}, got one that begins with {kind[:20]!r}; give such an address, or a folder")
    path, _, query = rest.partition("?")
    bucket, *prefix = path.removesuffix("/").split("/")
    if "@" in rest:
        raise ValueError(f"{RULE}, got one with credentials in it; take them out, they come from the environment")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", bucket):
        raise ValueError(f"{RULE}, got {bucket[:70]!r} as the bucket; give its name: 3 to 63 of a-z, 0-9, . _ and -")
    for part in prefix:
        if not re.fullmatch(r"[A-Za-z0-9_=+-][A-Za-z0-9._=+-]*", part) or len(path) > 500:
            raise ValueError(
                f"{RULE}, got {part[:70]!r} in the prefix; use letters, digits, _ = + - and dots within a name"
            )
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        if name not in OPTIONS[kind]:
            valid = ", ".join(OPTIONS[kind])
            raise ValueError(f"{RULE} with the options {valid}, got another, {name[:30]!r}; leave it out")
        if not re.fullmatch(r"[A-Za-z0-9.:_-]+", value):
            raise ValueError(f"{RULE}, {name} of letters, digits and . : _ -, got something else; mend it")
    return Address(kind, "/".join([bucket, *prefix]), options)


def resolved(address: Address) -> Address:
    """The same with the endpoint of the environment in it, so that it leads other machines to the same bucket."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if address.kind != "s3" or not url or "endpoint_override" in address.options:
        return address
    found = urlsplit(url)
    if found.scheme not in ("http", "https") or not found.netloc or found.path not in ("", "/"):
        raise ValueError("AWS_ENDPOINT_URL must be http://HOST:PORT or https://HOST, got something else; mend it")
    endpoint = {"scheme": found.scheme, "endpoint_override": found.netloc.rpartition("@")[2]}
    return replace(address, options={**address.options, **endpoint})
