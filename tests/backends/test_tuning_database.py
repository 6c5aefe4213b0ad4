"""The tuning database: what counts as best, and what survives killed and parallel writers."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from planish.backends.choice import Choice
from planish.backends.choosing import TABLES, Table
from planish.backends.lower.strategies import STRATEGIES
from planish.backends.targets import find_target
from planish.backends.tuning.database import Database, Record, export_table
from planish.ir.errors import OptionError

TARGET = find_target("x86-64-v3")
WORKLOAD = '{"output":[1,8,8,16],"threads":1}'
BASE = ("direct", {"rows": 1})


def record(
    us: float | None,
    rows: int = 2,
    *,
    base_us: float = 100.0,
    workload: str = WORKLOAD,
    error: str | None = None,
) -> Record:
    return Record(workload, "direct", {"rows": rows}, BASE, us, base_us, 10, "local", error)


Make = Callable[..., Database]


@pytest.fixture
def database(tmp_path: Path) -> Make:
    """`database(records...)` makes one with these records and opens it again."""

    def make(*records: Record) -> Database:
        writer = Database(tmp_path / "db", TARGET, create=True)
        for each in records:
            writer.add(each)
        return Database(tmp_path / "db", TARGET, create=False)

    return make


def rows_of(found: Database) -> object:
    choice = found.find(WORKLOAD)
    return None if choice is None else choice.knobs["rows"]


def test_empty(database: Make) -> None:
    found = database()
    assert found.find(WORKLOAD) is None
    assert len(found) == 0
    assert found.notes == []


def test_records_come_back(database: Make) -> None:
    wanted = [record(100, 1), record(80, 2), record(None, 3, error="crashed its process")]
    found = database(*wanted)
    assert found.records(WORKLOAD) == wanted
    assert found.workloads == [WORKLOAD]
    assert found.known(WORKLOAD, Choice(*BASE)) == {each.choice for each in wanted}


@pytest.mark.parametrize(
    ("times", "best"),
    [
        ({1: 100, 2: 80, 3: 70}, 3),
        ({1: 100, 2: 99}, 1),  # less than the noise
        ({1: 100, 2: 97}, 2),
        ({1: 100, 3: 70, 2: 70}, 3),  # a tie: the first that was measured
        ({2: 97}, 2),
        ({2: 130}, 2),  # the rules' own choice was not measured
    ],
)
def test_best(database: Make, times: dict[int, float], best: int) -> None:
    found = database(*(record(us, rows) for rows, us in times.items()))
    assert rows_of(found) == best


def test_times_count_beside_the_rules_own_choice(database: Make) -> None:
    """The machine was half as fast while choice 2 was measured."""
    found = database(record(100, 1), record(160, 2, base_us=200), record(90, 3))
    assert rows_of(found) == 2
    assert found.measured(WORKLOAD)[record(1, 2).choice].ratio == 0.8


def test_several_records_of_a_choice_are_weighed_by_their_rounds(database: Make) -> None:
    lucky, longer = record(80, 2), replace(record(104, 2), rounds=40)
    found = database(record(100, 1), lucky, longer)
    assert found.measured(WORKLOAD)[lucky.choice].ratio == pytest.approx(0.992)
    assert rows_of(found) == 1


def test_errors_are_never_chosen(database: Make) -> None:
    found = database(record(100, 1), record(50, 2), record(None, 2, error="wrong numbers"))
    assert rows_of(found) == 1
    assert [each.error for each in found.errors(WORKLOAD)] == ["wrong numbers"]


def test_records_beside_other_rules_say_nothing(database: Make) -> None:
    old = replace(record(50, 2), base=("direct", {"rows": 9}))
    found = database(old, record(100, 1), record(95, 3))
    assert rows_of(found) == 3
    assert record(50, 2).choice not in found.known(WORKLOAD, Choice(*BASE))


def test_an_unfinished_record_is_left_out_and_writing_goes_on(database: Make) -> None:
    found = database(record(100, 1), record(80, 2))
    file = found.path / "records.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    again = Database(found.path, TARGET, create=False)
    assert rows_of(again) == 1
    assert again.notes == [f"1 unfinished record was left out of {found.path}"]
    again.add(record(70, 3))
    assert rows_of(Database(found.path, TARGET, create=False)) == 3


WRITER = """
import sys
from planish.backends.targets import find_target
from planish.backends.tuning.database import Database, Record
database = Database(sys.argv[1], find_target("x86-64-v3"), create=True)
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    knobs = {"rows": i, "text": "x" * 3000}
    database.add(Record('{"a":1}', "direct", knobs, ("direct", knobs), 1.0, 1.0, 1, "local"))
    print(i, flush=True)
"""


def writer(path: Path, first: int, end: int = 100_000) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", WRITER, str(path), str(first), str(end)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def numbers(found: Database) -> list[int]:
    return [each.knobs["rows"] for each in found.records('{"a":1}')]


def test_a_killed_writer_loses_no_finished_record(tmp_path: Path) -> None:
    path, dice, first = tmp_path / "db", random.Random(0), 0
    confirmed: list[int] = []
    for _ in range(8):
        process = writer(path, first)
        assert process.stdout is not None
        confirmed.append(int(process.stdout.readline()))
        time.sleep(dice.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        confirmed += map(int, process.communicate()[0].split())
        found = Database(path, TARGET, create=False)
        assert set(confirmed) <= set(numbers(found))
        assert found.notes == [] or "left out" in found.notes[0]
        first = max(numbers(found)) + 1
    assert len(confirmed) > 16


def test_two_writers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "db"
    both = [writer(path, 0, 40), writer(path, 1000, 1040)]
    assert [process.wait() for process in both] == [0, 0]
    found = Database(path, TARGET, create=False)
    assert sorted(numbers(found)) == [*range(40), *range(1000, 1040)]
    assert found.notes == []


def test_what_a_process_left_that_died_while_it_began(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / ".header.json.x1").write_text("{")
    assert len(Database(tmp_path, TARGET, create=True)) == 0
    assert len(Database(tmp_path, TARGET, create=False)) == 0


def test_another_target_is_refused(database: Make) -> None:
    path = database(record(100, 1)).path
    with pytest.raises(OptionError, match=r"'x86-64-v3', not 'x86-avx512vnni'.*another folder"):
        Database(path, find_target("x86-avx512vnni"), create=True)


def test_native_is_what_it_stands_for(database: Make) -> None:
    path = database().path
    Database(path, replace(TARGET, name="native"), create=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no tuning database.*planish tune makes one"),
        ("{", "can't read the header"),
        ("[]", "can't read the header"),
        ('{"format": 2, "target": {}, "versions": {}}', "format 2, this planish reads 1"),
    ],
)
def test_bad_headers(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "header.json").write_text(content)
    with pytest.raises(OptionError, match=message):
        Database(tmp_path, TARGET, create=False)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match=r"no tuning database.*a new folder"):
        Database(tmp_path, TARGET, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_other_versions_are_noted(database: Make) -> None:
    path = database().path
    header = json.loads((path / "header.json").read_text())
    header["versions"]["apache-tvm"] = "0.1"
    (path / "header.json").write_text(json.dumps(header))
    assert "apache-tvm 0.1" in Database(path, TARGET, create=False).notes[0]


def test_a_table_holds_what_beats_the_rules(database: Make, tmp_path: Path) -> None:
    other = WORKLOAD.replace("16", "32")
    found = database(
        record(100, 1), record(80, 2), record(100, 1, workload=other), record(99, 2, workload=other)
    )
    file = tmp_path / "table.json"
    file.write_text(export_table([found]))
    table = Table(file)
    best = table.find(WORKLOAD)
    assert best is not None
    assert (best.strategy, best.knobs, best.source) == ("direct", {"rows": 2}, "table")
    assert table.find(other) is None


def test_an_empty_table(database: Make, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.write_text(export_table([database()]))
    assert Table(file).find(WORKLOAD) is None


@pytest.mark.parametrize(
    "path", sorted(TABLES.glob("*.json")) or [pytest.param(None, marks=pytest.mark.skip)], ids=str
)
def test_shipped_tables_can_be_read(path: Path) -> None:
    rows = json.loads(path.read_text())
    assert rows
    for workload, (strategy, knobs) in rows.items():
        assert json.dumps(json.loads(workload), separators=(",", ":")) == workload
        assert strategy in STRATEGIES
        assert isinstance(knobs, dict)
