"""A PostgreSQL of the tests' own."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import psycopg

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
    Path(found) for found in [shutil.which("initdb")] if found
]


class Postgres:
    """A PostgreSQL cluster in a folder, listening on a socket in it; started as another user where this one is root."""

    def __init__(self, folder):
        self.folder, self.programs = folder, PROGRAMS[-1].parent
        self.user = "postgres" if os.geteuid() == 0 else None
        self.data = folder / "data"
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self.do("initdb", "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.url = f"postgresql://postgres@/postgres?host={folder}"

    def do(self, program, *options):
        command = [str(self.programs / program), "-D", str(self.data), *options]
        group = pwd.getpwnam(self.user).pw_gid if self.user else None
        subprocess.run(
            command, user=self.user, group=group, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    def start(self):
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self.do("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self):
        self.do("pg_ctl", "stop", "-w", "-m", "immediate")

    def clear(self):
        with psycopg.connect(self.url) as connection:
            connection.execute("drop schema public cascade")
            connection.execute("create schema public")

    def rows(self, query):
        with psycopg.connect(self.url) as connection:
            return connection.execute(query).fetchall()

    def table(self, name):
        return self.rows(f"select 1 from pg_tables where tablename = '{name}'")
