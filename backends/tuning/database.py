"""The tuning database: a folder of records that survives being killed and being shared.

`header.json` says what the folder is for. `records.jsonl` has one line for each measurement; lines
are only ever appended, each with one write that is on the disk before the next measurement begins.
A process that is killed while it writes leaves at most a line without an end: the next one to write
ends it, and readers pass over it. A lock on `lock` keeps the lines of several processes apart.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from planish.ir.errors import OptionError
from planish.ir.files import write_beside

from ..choice import Choice
from ..target import Target
from ..targets import BEST_FIRST, find_target

FORMAT = 1
# A choice takes the place of the rules' own only if it saves more than this: less is noise.
NOISE = 0.02

Key = tuple[str, str]


def choice_key(strategy: str, knobs: Mapping[str, Any]) -> str:
    """Return a choice in one fixed spelling."""
    return json.dumps([strategy, dict(knobs)], sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        workload: What was measured, as `choosing.workload` spells it.
        strategy: Of the choice.
        knobs: Of the choice.
        base: The rules' own choice, [strategy, knobs], measured in turns with this one.
        us: Microseconds of one call, the fastest round; None if there is an error.
        base_us: The same of the rules' own choice.
        rounds: How many rounds were measured.
        device: "local", or the key of a device behind an RPC tracker.
        error: Why the choice is never taken: it can't be built or run, or its numbers are wrong.
    """

    workload: str
    strategy: str
    knobs: Mapping[str, Any]
    base: tuple[str, Mapping[str, Any]]
    us: float | None
    base_us: float | None
    rounds: int
    device: str
    error: str | None = None

    @property
    def choice(self) -> str:
        """The choice in one fixed spelling."""
        return choice_key(self.strategy, self.knobs)

    @property
    def base_choice(self) -> str:
        """The rules' own choice in the same spelling."""
        return choice_key(*self.base)

    def to_line(self) -> bytes:
        """Return the record as one line of JSON."""
        data = {**asdict(self), "workload": json.loads(self.workload)}
        return json.dumps(data, separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> Record:
        """Read a line.

        Raises:
            ValueError: It is no record.
        """
        try:
            data = json.loads(line)
            data["workload"] = json.dumps(data["workload"], separators=(",", ":"))
            data["base"] = (data["base"][0], data["base"][1])
            record = Record(**data)
            for name, value in (("us", record.us), ("base_us", record.base_us)):
                if record.error is None and not (isinstance(value, int | float) and value > 0):
                    raise ValueError(f"{name} is {value!r}, no time")
            return record
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True)
class Measured:
    """What all records of one choice say together.

    Attributes:
        choice: The choice.
        ratio: Its time by that of the rules' own choice, measured in turns; below 1 is faster.
        us: Its time where the rules' own choice takes the median of its times.
    """

    choice: Choice
    ratio: float
    us: float


class Database:
    """Measured choices for one target.

    Attributes:
        path: The folder.
        notes: What was odd about its files, for the user to read.
    """

    def __init__(self, path: str | os.PathLike[str], target: Target, *, create: bool) -> None:
        """Open a database.

        Args:
            path: The folder.
            target: What its choices are for.
            create: Whether to begin an empty database where there is none.

        Raises:
            OptionError: There is no database, it can't be read, or it is for another target.
        """
        self.path = Path(path)
        self.notes: list[str] = []
        self._target = target
        self._records: dict[str, list[Record]] = {}
        if create and not (self.path / "header.json").exists():
            self._begin()
        self._check_header()
        self._load()

    def _begin(self) -> None:
        """Write the header, unless another process that begins at the same moment was faster."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = [entry for entry in self.path.iterdir() if not _is_ours(entry.name)]
        except (FileExistsError, NotADirectoryError):
            foreign = [self.path]
        except OSError as error:
            raise OptionError(
                f"can't make the folder: {error.strerror}", where=str(self.path)
            ) from error
        if foreign and not (self.path / "header.json").exists():
            raise OptionError(
                "this is no tuning database",
                where=str(self.path),
                cure="give an empty or a new folder",
            )
        with self._locked():
            if not (self.path / "header.json").exists():
                text = json.dumps(_header(self._target), indent=1) + "\n"
                write_beside(self.path / "header.json", text.encode())

    def _check_header(self) -> None:
        header = self.path / "header.json"
        try:
            found = json.loads(header.read_text())
            kind, versions = dict(found["target"]), dict(found["versions"])
        except FileNotFoundError as error:
            raise OptionError(
                "no tuning database", where=str(self.path), cure="planish tune makes one"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(f"can't read the header: {error}", where=str(header)) from error
        if found.get("format") != FORMAT:
            raise OptionError(
                f"the database has format {found.get('format')}, this planish reads {FORMAT}",
                where=str(self.path),
                cure="tune into a new folder",
            )
        wanted = _header(self._target)
        if kind["code"] != wanted["target"]["code"]:
            raise OptionError(
                f"the database is for target {kind['name']!r}, not {self._target.name!r}",
                where=str(self.path),
                cure=f"name {kind['name']!r}, or tune for {self._target.name!r} in another folder",
            )
        if versions != wanted["versions"]:
            self.notes.append(f"{self.path} was begun by {_versions_text(versions)}")

    def _load(self) -> None:
        try:
            content = (self.path / "records.jsonl").read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise OptionError(
                f"can't read the records: {error.strerror}", where=str(self.path)
            ) from error
        damaged = 0
        for line in content.split(b"\n"):
            if line.strip():
                try:
                    self._keep(Record.from_line(line))
                except ValueError:
                    damaged += 1
        if damaged:
            what = "1 unfinished record was" if damaged == 1 else f"{damaged} damaged records were"
            self.notes.append(f"{what} left out of {self.path}")

    def _keep(self, record: Record) -> None:
        self._records.setdefault(record.workload, []).append(record)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def add(self, record: Record) -> None:
        """Write a record; it is on the disk when this returns.

        Raises:
            OSError: The disk is full, or the folder is gone.
        """
        with self._locked():
            handle = os.open(
                self.path / "records.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666
            )
            try:
                end = os.lseek(handle, 0, os.SEEK_END)
                torn = end > 0 and os.pread(handle, 1, end - 1) != b"\n"
                line = (b"\n" if torn else b"") + record.to_line()
                while line:
                    line = line[os.write(handle, line) :]
                os.fsync(handle)
            finally:
                os.close(handle)
        self._keep(record)

    def find(self, workload: str) -> Choice | None:
        """Return the best choice for a workload, or None if nothing of it was measured."""
        best = self.best(workload)
        return best.choice if best else None

    def best(self, workload: str) -> Measured | None:
        """Return the best choice; the rules' own unless another one is faster beyond the noise."""
        measured = self.measured(workload)
        if not measured:
            return None
        base = self._records_now(workload)[-1].base_choice
        order = list(measured)
        fastest = min(order, key=lambda key: (measured[key].ratio, order.index(key)))
        if measured[fastest].ratio <= 1 - NOISE or base not in measured:
            return measured[fastest]
        return measured[base]

    def measured(self, workload: str) -> dict[str, Measured]:
        """Return the choices with valid measurements, in the order of their first record."""
        records = self._records_now(workload)
        bad = {record.choice for record in records if record.error is not None}
        found: dict[str, list[Record]] = {}
        for record in records:
            if record.choice not in bad and record.us and record.base_us:
                found.setdefault(record.choice, []).append(record)
        times = sorted(r.base_us for rs in found.values() for r in rs if r.base_us)
        middle = times[len(times) // 2] if times else 0.0
        return {key: _together(records, middle) for key, records in found.items()}

    def known(self, workload: str, base: Choice) -> set[str]:
        """Return the choices with a record, good or bad, beside this choice of the rules."""
        wanted = choice_key(base.strategy, base.knobs)
        records = self._records.get(workload, [])
        return {record.choice for record in records if record.base_choice == wanted}

    def records(self, workload: str) -> list[Record]:
        """Return all records of a workload, in their order."""
        return list(self._records.get(workload, []))

    def errors(self, workload: str) -> list[Record]:
        """Return the records of what could not be measured."""
        return [r for r in self._records_now(workload) if r.error is not None]

    @property
    def workloads(self) -> list[str]:
        """What was measured, in the order of the first records."""
        return list(self._records)

    def _records_now(self, workload: str) -> list[Record]:
        """Return the records beside what the rules chose last: ratios to others say nothing."""
        records = self._records.get(workload, [])
        base = records[-1].base_choice if records else ""
        return [record for record in records if record.base_choice == base]

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))


def _is_ours(name: str) -> bool:
    """Whether a file is of a database that is being begun, or was when a process died."""
    return name == "lock" or name.startswith(".header.json.")


def _together(records: list[Record], base_us: float) -> Measured:
    rounds = sum(record.rounds for record in records)
    ratios = [(r.us or 0.0) / (r.base_us or 1.0) * r.rounds for r in records]
    first = records[0]
    # The rules' own choice was measured in turns with itself.
    ratio = 1.0 if first.choice == first.base_choice else sum(ratios) / rounds
    choice = Choice(first.strategy, first.knobs, "database")
    return Measured(choice, ratio, ratio * base_us)


def _header(target: Target) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "target": {"name": _public_name(target), "code": _code(target)},
        "versions": {name: version(name) for name in ("planish", "apache-tvm")},
    }


def _code(target: Target) -> dict[str, Any]:
    """Return what decides about the code: "native" has that of what it stands for here."""
    return {
        "tvm": target.tvm_target,
        "instruction": target.instruction,
        "vector_bits": target.vector_bits,
    }


def _public_name(target: Target) -> str:
    """Return the name of the registered target with this code, else the target's own."""
    same = (name for name in BEST_FIRST if _code(find_target(name)) == _code(target))
    return next(same, target.name)


def _versions_text(versions: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {number}" for name, number in versions.items())


def export_table(databases: Iterable[Database]) -> str:
    """Return the JSON of a table that planish ships: choices that beat the rules.

    One workload a line, sorted, so that changes read well.
    """
    rows: dict[str, str] = {}
    for database in databases:
        for workload in database.workloads:
            best = database.best(workload)
            if best is not None and best.ratio < 1:
                row = json.dumps([best.choice.strategy, dict(best.choice.knobs)])
                rows.setdefault(workload, f"{json.dumps(workload)}: {row}")
    return "\n".join(["{", ",\n".join(rows[key] for key in sorted(rows)), "}", ""])
