"""What identifies a thing by all that decides it."""

import hashlib
import json

_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def content_id(content: object) -> str:
    """128 bits (32 hex digits) of anything JSON can say, whatever the order of its keys. Raises ValueError for NaN."""
    return hashlib.blake2b(_json(content).encode(), digest_size=16).hexdigest()
