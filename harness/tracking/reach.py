"""Whether a tracking store that is no file can be reached, asked once and within seconds.

MLflow itself asks a database that refuses ten times in 100 s, and a server that is not there for minutes.
"""

from __future__ import annotations

import atexit
import importlib.util
import re
import shutil
import socket
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

WAIT_S = 10.0  # for a connection
HTTP_PORTS = {"http": 80, "https": 443}
SQLITE = "sqlite:///"
_URI_SIGNS = re.compile("[?#%]")
DRIVERS = {
    "psycopg": "psycopg2-binary",
    "psycopg2": "psycopg2-binary",
    "pymysql": "pymysql",
    "MySQLdb": "mysqlclient",
}  # module -> package


def is_server(uri: str) -> bool:
    """Whether the URI is that of a server that speaks HTTP: it then also keeps the files."""
    return urlsplit(uri).scheme in HTTP_PORTS or uri.partition(":")[0] == "databricks"


def sqlite_uri(database: Path, generation: int = 0) -> str:
    """The URI by which MLflow opens a SQLite file; each generation is another URI of the same file.

    In a URI a ? begins the options, and versions of SQLAlchemy differ in whether they resolve %-signs: a path
    with one of these is opened through a link in a folder of this process.
    """
    path = _link(database) if _URI_SIGNS.search(str(database)) else database
    return f"{SQLITE}{path.parent}{'/.' * generation}/{path.name}"


@cache
def _link(database: Path) -> Path:
    """A path without signs of a URI to the file, until this process ends."""
    place = Path(tempfile.mkdtemp(prefix="harness-store-"))  # for this user alone
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    link = place / "mlflow.db"
    link.symlink_to(database)
    return link


def usable(uri: str) -> str:
    """The URI of a PostgreSQL database with an installed driver and a limit to how long connecting may take.

    SQLAlchemy reads `postgresql:` as psycopg2 up to version 2.0 and as psycopg from 2.1, installed or not.
    Other URIs are given back as they are.
    """
    parts = urlsplit(uri)
    scheme = "postgresql" + parts.scheme.removeprefix("postgresql").removeprefix("postgres")
    if scheme.partition("+")[0] != "postgresql":
        return uri
    installed = [name for name in ("psycopg2", "psycopg") if importlib.util.find_spec(name)]
    if "+" not in scheme and installed:
        scheme = f"postgresql+{installed[0]}"
    query = urlencode({"connect_timeout": round(WAIT_S), **dict(parse_qsl(parts.query))})
    return urlunsplit(parts._replace(scheme=scheme, query=query))


def check(uri: str) -> None:
    """Connect once.

    Raises:
        OSError: a tracking server does not answer within `WAIT_S`.
        Exception: what SQLAlchemy and the driver say of a database, among them ModuleNotFoundError.
    """
    parts = urlsplit(uri)
    if parts.scheme in HTTP_PORTS:
        proxied = parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")
        if not proxied:  # else only the proxy knows
            socket.create_connection((parts.hostname, parts.port or HTTP_PORTS[parts.scheme]), WAIT_S).close()
    elif "://" in uri and not is_server(uri) and parts.scheme.partition("+")[0] in _DATABASES:
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def check_file(database: Path) -> None:
    """Open a SQLite file once; MLflow tries for 100 s.

    Raises:
        sqlite3.Error: it is no database, or damaged where its tables are listed.
    """
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def in_words(error: Exception) -> str:
    """What went wrong, in one line, and what to install where it is a driver."""
    text = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
    package = DRIVERS.get(error.name or "") if isinstance(error, ModuleNotFoundError) else None
    return f"{text}; install it with pip install {package}" if package else text


_DATABASES = frozenset({"postgresql", "mysql", "mssql"})
