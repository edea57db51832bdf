"""No password or token of an address reaches a terminal or a log, in whatever form it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands.machine import Finding
from harness.errors import has_secret, masked
from harness.tracking.store import Store, StoreError
from tests.conftest import of_each

SECRET = "hush4SECRET"
FORMS = (
    "postgresql://me:{}@db/x",
    "postgresql://me:{}@db:5432/x?sslmode=require",
    "postgresql+psycopg2://me:{}@db/x",
    "mysql+pymysql://me:{}@db/x",
    "HTTP://ME:{}@H",
    "http://{}@h:5000",
    "http://{}:@h",
    "https://{}:x-oauth-basic@h/x",
    "postgresql://me:a@b@{}@db/x",
    "postgresql://me:{}/x?y@db/x",
    "postgresql://me:{}#x@db/x",
    "postgresql://me:%70{}%40@db/x",
    "s3://AKIA:{}@bucket",
    "postgresql://db/x?user=me&password={}",
    "postgresql://db/x?PASSWORD={}&a=1",
    "postgresql:///x?host=/tmp&sslpassword={}",
    "jdbc:postgresql://db/x?user=me&password={}",
    "http://h/?token={}",
    "http://h/x?Access_Token={}#f",
    "http://h/?pass%77ord={}",
    "http://h/?a=1;passwd={}",
    "http://h?sig={}",
    "http://h/?api_key={}",
    "host=db user=me password={}",
    "host=db password='{} b' user=me",
    "password = {} host=db",
    "postgresql://db/x?options=-c%20password%3D{}",
    "mssql+pyodbc:///?odbc_connect=Driver%3D%7Bx%7D%3BUID%3Dme%3BPWD%3D{}",
    "DRIVER={{x}};UID=me;PWD={{{} b}};",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={}==;E=b",
    "databricks://token:{}@host?http_path=/x",
    "databricks+connector://token:{}@h:443/d",
    "databricks://h?token={}&http_path=x",
    '{{"password": "{}"}}',
    "{{'token': '{}'}}",
    "Authorization: Bearer {}",
    "Authorization: Basic {}",
    "MLFLOW_TRACKING_URI=postgresql://me:{}@db/x",
    "MLFLOW_TRACKING_TOKEN={}",
)
PLAIN = (
    "sqlite:////home/a@b/x=1/mlflow.db",
    "sqlite:////a?b/#c%20/mlflow.db",
    "http://127.0.0.1:5000",
    "file:///a/b@c",
    "databricks://profile",
    'password authentication failed for user "me"',
    "bypass=1 passes=3",
    "delete /x/y and run `harness sync`: it is a mirror",
)


@of_each(FORMS)
def test_a_secret_is_masked_in_every_form_of_an_address(form: str):
    uri = form.format(SECRET)
    assert SECRET not in masked(uri)
    assert SECRET not in masked(f"cannot open ({uri}): it does not answer")
    assert has_secret(uri)
    assert masked(masked(uri)) == masked(uri)


@of_each(PLAIN)
def test_a_text_without_a_secret_is_as_it_was(text: str):
    assert masked(text) == text
    assert not has_secret(text)


def test_a_server_is_still_named():
    assert masked("postgresql://me:x@db.example.org:5432/runs") == "postgresql://***@db.example.org:5432/runs"


@pytest.mark.parametrize("form", ["postgresql://me:{}@db/x", "postgresql://db/x?password={}", "http://{}@h"])
def test_what_a_driver_says_of_a_password_is_masked_too(form: str):
    """It may say the password with its %-signs resolved, and far from any address."""
    assert masked("refused: p&ss w0rd", form.format("p%26ss%20w0rd")) == "refused: ***"


@of_each(FORMS)
def test_no_error_and_no_finding_shows_one(form: str):
    uri = form.format(SECRET)
    store = Store(uri, Path("runs"))
    assert SECRET not in store.shown
    error = StoreError(f"cannot open the tracking store {uri}")
    assert SECRET not in f"{error} {error.message} {error.problems}"
    assert SECRET not in str(Finding("mlflow", "fail", f"{uri} does not answer", f"correct {uri}"))
