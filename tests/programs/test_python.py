"""Interpreters and databases: large dynamically linked programs with their own allocators and many files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.run import loadstone, same

SCRIPTS = Path(__file__).parent / "scripts"


def scripts(language: str) -> list[object]:
    """The programs of `scripts/LANGUAGE`, each with its name as the test's."""
    return [pytest.param(path.read_text(), id=path.stem) for path in sorted((SCRIPTS / language).iterdir())]


@pytest.mark.parametrize("script", scripts("python"))
def test_python(script: str, here: Path) -> None:
    same("/usr/bin/python3", "-c", script, "arg", cwd=here, stdin=b"words on standard input\n")


def test_python_isolated_has_the_faults_of_a_large_program() -> None:
    same("/usr/bin/python3", "-I", "-S", "-E", "-c", "import sys; print(len(sys.modules) > 10)")


SQL = """
create table t(id integer primary key, name text, score real);
insert into t(name, score) values ('alpha', 1.5), ('beta', 2.25), ('gamma', null);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
  insert into t(name, score) select 'n' || i, i / 7.0 from n;
create index by_name on t(name);
select count(*), sum(score), avg(score), max(name) from t;
select name, round(score, 3) from t where name like 'n99%' order by score desc limit 5;
select json_group_array(id) from (select id from t limit 5);
select * from missing;
"""


def test_sqlite_in_memory(find_program: Callable[[str], str]) -> None:
    same(find_program("sqlite3"), ":memory:", stdin=SQL.encode())


def test_sqlite_in_a_file_of_the_overlay(here: Path, find_program: Callable[[str], str]) -> None:
    """The database is written, journalled, locked and read back; the host's directory stays empty."""
    sqlite = find_program("sqlite3")
    script = b"begin; create table t(x); insert into t values (1), (2); commit;\n"
    script += b"select sum(x) from t; pragma integrity_check;"
    got = loadstone("run", sqlite, "file.db", stdin=script, cwd=here)
    assert (got.stdout, got.status) == (b"3\nok\n", 0), got.errors
    assert list(here.iterdir()) == []


def test_sqlite_with_rw_leaves_a_database_the_host_can_read(here: Path, find_program: Callable[[str], str]) -> None:
    import sqlite3

    sqlite = find_program("sqlite3")
    script = b"create table t(x); insert into t values (1), (2), (39);"
    got = loadstone("run", "--rw", str(here), sqlite, "file.db", stdin=script, cwd=here)
    assert got.status == 0, got.errors
    database = sqlite3.connect(here / "file.db")
    assert database.execute("select sum(x) from t").fetchall() == [(42,)]
    database.close()


@pytest.mark.parametrize("script", scripts("perl"))
def test_perl(script: str, here: Path, find_program: Callable[[str], str]) -> None:
    same(find_program("perl"), "-e", script, "arg", cwd=here, stdin=b"the cat the dog\nthe end\n")


@pytest.mark.parametrize("script", scripts("awk"))
@pytest.mark.parametrize("program", ["mawk", "gawk"])
def test_awk(program: str, script: str, find_program: Callable[[str], str]) -> None:
    same(find_program(program), script, stdin=b"the cat the dog\nthe end\n")
