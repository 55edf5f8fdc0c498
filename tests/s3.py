"""A server that speaks S3 (moto's), on a real port: what was asked of it can be counted, and it can be taken away."""

import logging
import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import boto3
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-read"}


class S3:
    """The server, with an empty bucket in it."""

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self.app = DomainDispatcherApplication(create_backend_app)
        self.asked = []  # (method, key, whether it asked for the bytes from the start) of each request
        self.fails = lambda method, key, query: False  # or what it says: "403 Forbidden"
        self.before = lambda method, key: None
        self.kept = socket.socket()  # keeps the port for this server while it is away
        self.kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.kept.bind(("127.0.0.1", 0))
        self.port = self.kept.getsockname()[1]
        self.start()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=BUCKET)

    def __call__(self, environ, start):
        method, key = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(f"/{BUCKET}").removeprefix("/")
        first = environ.get("HTTP_RANGE", "bytes=0-").startswith("bytes=0-")
        self.asked.append((method, key, first))
        self.before(method, key)
        if wrong := self.fails(method, key, parse_qs(environ["QUERY_STRING"], keep_blank_values=True)):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("500 Internal Server Error" if wrong is True else wrong, [("Content-Length", "0")])
            return [b""]
        return self.app(environ, start)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.server = make_server("127.0.0.1", self.port, self, threaded=True)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    @contextmanager
    def away(self):
        """Not reachable; back at the end."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def held(self, wanted):
        """The first request of which `wanted(method, key)` is so waits to the end, from when the event given is set."""
        reached, over = threading.Event(), threading.Event()

        def before(method, key):
            if not reached.is_set() and wanted(method, key):
                reached.set()
                over.wait()

        self.before = before
        try:
            yield reached
        finally:
            self.before = lambda *request: None
            over.set()

    def objects(self, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", ()) if each["Size"])

    def read(self, key):
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def age(self, key, seconds):
        """Let an object be as old as that."""
        found = s3_backends["123456789012"]["aws"].buckets[BUCKET].keys[key]
        found.last_modified = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seconds)

    def fetched(self):
        """How often each object was fetched."""
        counts = {}
        for method, key, first in self.asked:
            if method == "GET" and key and first:
                counts[key] = counts.get(key, 0) + 1
        return counts


def until(true, seconds=120.0):
    """Wait until something is so."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)
