"""The layer under every reader: moments at rest, lost connections, refused passwords, what is told of an address."""

import contextlib
import itertools
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import psycopg
import pytest

from outlay.flow.ledger import postgres_rows
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.charge import Basis
from outlay.flow.ledger.place import Database, LedgerPlace, name_of, place_of
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.ledger.rollup import Rollup
from outlay.flow.ledger.room_reader import RoomReader
from outlay.flow.ledger.rows import KEPT, NoLedger, Rows, Shelf, among, is_there, open_rows, total
from outlay.flow.scope import Identity
from outlay.kernel.clock import NANOS_PER_SECOND, ManualClock
from outlay.kernel.errors import ConfigError, NotFound, StoreError
from tests.postgres import Proxy, Server, fresh_ledger
from tests.store_contract.bench import Bench, budget
from tests.store_contract.rows import Failing, Shuffled

PLACES = ("sqlite", "postgres")
SECRET = "s3cret-of-this-test"
DAY = 86_400 * NANOS_PER_SECOND


def place_of_bench(bench: Bench) -> LedgerPlace:
    return Database(bench.url) if bench.kind == "postgres" else bench.path


@pytest.fixture(params=PLACES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    found = Bench(request.param, tmp_path, [budget("all", 100_000)])
    yield found
    found.leave()


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[Bench, Proxy]]:
    """Books that write at once, and a way for readers that can be cut."""
    found = Bench("postgres", tmp_path, [budget("all", 100_000)])
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, Proxy(found.url, Path(folder)) as proxy:
        yield found, proxy
    found.leave()


# -- one moment ------------------------------------------------------------------------------------------------------


def test_a_moment_stays_as_it_is_and_the_writer_writes_on(bench: Bench) -> None:
    bench.spend(5)
    with contextlib.closing(open_rows(place_of_bench(bench))) as rows:
        with rows.at_rest():
            assert rows.rows("SELECT count(*) FROM charges") == [(1,)]
            bench.spend(6)
            with rows.at_rest():
                assert rows.rows("SELECT count(*) FROM charges") == [(1,)]
            assert rows.rows(f"SELECT {total('cost_nanos')} FROM charges") == [(5,)]
        assert rows.rows("SELECT count(*) FROM charges") == [(2,)]


def test_rows_come_in_batches(bench: Bench) -> None:
    for _ in range(7):
        bench.spend(1)
    with contextlib.closing(open_rows(place_of_bench(bench))) as rows:
        sql = "SELECT id FROM charges WHERE cost_nanos % ? = 0 ORDER BY id"
        with rows.at_rest():
            found = list(rows.batches(sql, (1,), 3))
            assert next(rows.batches(sql, (1,), 2)) == found[0][:2], "the rest may be left"
        assert [len(batch) for batch in found] == [3, 3, 1]
        assert list(itertools.chain(*found)) == rows.rows(sql, (1,))
        with pytest.raises(StoreError):
            rows.rows("SELECT nonsense")
        assert rows.rows("SELECT 1") == [(1,)], "a mistake ends nothing"


def test_nothing_can_be_written_through_it(bench: Bench) -> None:
    with contextlib.closing(open_rows(place_of_bench(bench))) as rows:
        with pytest.raises(StoreError):
            rows.rows("DELETE FROM charges RETURNING 1")
        with rows.at_rest(), pytest.raises(StoreError):
            rows.rows("DELETE FROM limits RETURNING 1")
        assert rows.rows("SELECT count(*) FROM limits") != [(0,)]


def test_no_transaction_stays_open_between_reads(tmp_path: Path) -> None:
    bench = Bench("postgres", tmp_path, [budget("all", 100)])
    with RoomReader(Database(bench.url)) as reader:
        reader.accounts(bench.clock.now())
        reader.totals()
        with psycopg.connect(bench.url) as db:
            states = db.execute(
                "SELECT state FROM pg_stat_activity WHERE application_name = 'outlay' AND datname = current_database()"
                " AND query NOT LIKE '%pg_stat_activity%'"
            ).fetchall()
    assert {state for (state,) in states} == {"idle"}
    bench.leave()


def test_readers_beside_a_writer_see_whole_batches(bench: Bench) -> None:
    """Holds and spend move together: no reader ever sees a call that is neither or both."""
    bench.spend(3)
    stop = threading.Event()
    problems: list[object] = []
    looks = 0

    def look() -> None:
        nonlocal looks
        try:
            with RoomReader(place_of_bench(bench)) as reader:
                while not stop.is_set():
                    with reader.at_rest():
                        totals = reader.totals()
                        (view,) = reader.accounts(bench.clock.now())
                    if (view.spent_nanos, view.held_nanos) != (totals["spend_nanos"], totals["held_nanos"]):
                        problems.append((view, totals))
                    looks += 1
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(60):
        bench.spend(3)
    stop.set()
    thread.join()
    assert not problems
    assert looks > 3
    assert audit(place_of_bench(bench)).findings == ()


# -- connections that are lost -----------------------------------------------------------------------------------------


def test_a_reader_goes_on_after_a_lost_connection(proxied: tuple[Bench, Proxy]) -> None:
    bench, proxy = proxied
    bench.spend(5)
    with RoomReader(Database(proxy.url)) as reader:
        assert reader.totals()["charges"] == 1
        proxy.drop()
        bench.spend(5)
        assert reader.totals()["charges"] == 2, "asked again on a new connection"
        with reader.at_rest():
            proxy.drop()
            with pytest.raises(StoreError):
                reader.totals()
            with pytest.raises(StoreError, match="middle of a reading"):
                reader.totals()
        assert reader.totals()["charges"] == 2, "a moment that was lost is not taken up again in silence"
        proxy.is_down = True
        proxy.drop()
        with pytest.raises(StoreError, match="cannot be reached"):
            reader.totals()
        proxy.is_down = False
        assert len(reader.accounts(bench.clock.now())) == 1


def test_a_reader_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        bench = Bench("postgres", tmp_path, [budget("all", 100)], server.url)
        bench.spend(5)
        shelf = Shelf(Database(server.url))
        rollup = Rollup(shelf.place, bench.clock)
        since = bench.clock.now() // DAY * DAY
        with shelf.lent() as rows:
            assert RoomReader(rows).totals()["charges"] == 1
        assert len(rollup.cells(since, since + DAY, DAY)) == 1
        with LedgerReader(shelf.place) as reader:
            assert reader.totals()["charges"] == 1
            server.kill()
            bench.clock.advance(NANOS_PER_SECOND)
            for attempt in (reader.totals, rollup.step, shelf.lent().__enter__):
                with pytest.raises(StoreError):
                    attempt()
            server.start()
            assert reader.totals()["charges"] == 1
        with shelf.lent() as rows:
            assert RoomReader(rows).totals()["charges"] == 1
        assert len(rollup.cells(since, since + DAY, DAY)) == 1
        shelf.close()
        rollup.close()
        bench.leave()


def test_a_long_statement_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("postgres", tmp_path, [budget("all", 100)])
    monkeypatch.setattr(postgres_rows, "READ_MS", 50)
    with contextlib.closing(open_rows(Database(bench.url))) as rows:
        with pytest.raises(StoreError, match="could not be read within"):
            rows.rows("SELECT pg_sleep(5)")
        assert rows.rows("SELECT 1") == [(1,)]
    with contextlib.closing(open_rows(Database(bench.url), is_patient=True)) as rows:
        rows.rows("SELECT pg_sleep(0.1)")
    bench.leave()


# -- opening -----------------------------------------------------------------------------------------------------------


def test_a_ledger_that_is_not_there_yet(tmp_path: Path) -> None:
    for place in (tmp_path / "outlay.db", Database(fresh_ledger())):
        assert not is_there(place)
        for opened in (open_rows, LedgerReader, audit):
            with pytest.raises(NoLedger, match="`outlay up` makes it"):
                opened(place)  # type: ignore[operator]


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "outlay.db"
    path.touch()
    with pytest.raises(NoLedger, match="being made"):
        open_rows(path)
    database = apsw.Connection(str(path))
    database.execute("CREATE TABLE epochs (id)")
    with pytest.raises(NoLedger, match="being made"):
        open_rows(path)
    database.execute("DROP TABLE epochs; CREATE TABLE songs (id)")
    with pytest.raises(StoreError, match="is not an Outlay ledger"):
        open_rows(path)
    database.close()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="cannot read the ledger"):
        open_rows(path)


def test_a_ledger_that_is_there(bench: Bench) -> None:
    assert is_there(place_of_bench(bench))
    with contextlib.closing(open_rows(place_of_bench(bench))) as rows:
        assert rows.has("refusals")
        assert not rows.has("nonsense")
        assert rows.mark() == rows.mark()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    """A server with a ledger in it that asks the user `reader`, who may only read, for a password."""
    with Server(tmp_path) as server:
        bench = Bench("postgres", tmp_path, [budget("all", 100)], server.url)
        bench.spend(5)
        bench.leave()
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute(f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}'")
            db.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
            rules = tmp_path / "pg_hba.conf"
            rules.write_text("local all reader scram-sha-256\n" + rules.read_text())
            db.execute("SELECT pg_reload_conf()")
        yield server


def test_a_password_is_asked_for_and_never_told(guarded: Server) -> None:
    query = guarded.url.partition("?")[2]

    def place(password: str, database: str = "postgres") -> Database:
        found = place_of(f"postgresql://reader:{password}@/{database}?{query}")
        assert isinstance(found, Database)
        return found

    with LedgerReader(place(SECRET)) as reader:
        assert reader.totals()["charges"] == 1, "a user who may only read is enough"
        assert SECRET not in repr(reader.__dict__)
    for bad, said in (
        (place(f"{SECRET}-not"), "refuses this user's password"),
        (place(""), "refuses this user's password"),
        (place(SECRET, "nonsense"), "no such database or user"),
        (Database(f"postgresql://reader:{SECRET}@127.0.0.1:1/x"), "cannot be reached"),
        (Database(f"postgresql://reader:{SECRET}@h:nonsense/x"), "cannot be reached"),
        (Database(f"postgresql://reader:{SECRET}@h/x?nonsense=1"), "address cannot be read"),
        (Database(f"postgresql://reader:p/{SECRET}@h/x"), "ledger"),
        (Database(f"postgresql://reader:p@{SECRET}@h/x"), "cannot be reached"),
    ):
        for use in (LedgerReader, is_there, audit, lambda at: Rollup(at, ManualClock()).step()):
            with pytest.raises(StoreError, match=said) as caught:
                use(bad)  # type: ignore[operator]
            told = "".join(traceback.format_exception(caught.value))
            assert SECRET not in told
        assert SECRET not in f"{bad} {bad!r} {name_of(bad)}"


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "outlay.flow.ledger.postgres_rows")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'outlay\[postgres\]'"):
        open_rows(Database("postgresql://ada:secret@host/books"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "postgresql://ada:secret@db.example:5432/books?sslmode=require",
            "postgresql://ada@db.example:5432/books",
        ),
        ("postgres://db.example/books?password=secret", "postgresql://db.example/books"),
        ("postgresql://ada:secret@/books?host=/run/pg", "postgresql://ada@/books"),
        ("postgresql://ada:se%40cret@[::1]:5432/books", "postgresql://ada@[::1]:5432/books"),
        ("postgresql://ada:secret@a:1,b:2/books", "postgresql://..."),
        ("postgresql://ada:secret", "postgresql://..."),
        ("postgresql://ada:secret/x@h/books", "postgresql://..."),
        ("postgresql://ada:x?secret@h/books", "postgresql://..."),
        ("postgresql://ada:x#secret@h/books", "postgresql://..."),
        ("postgresql://ada:x@secret@h/books", "postgresql://..."),
        ("postgresql://ada:[secret@h/books", "postgresql://..."),
    ],
)
def test_what_is_shown_of_an_address(text: str, shown: str) -> None:
    place = place_of(text)
    assert isinstance(place, Database)
    assert (str(place), name_of(place)) == (shown, shown)
    assert repr(place) == f"Database('{shown}')"
    assert "secret" not in f"{place} {place!r}"
    assert place == Database(text) != Database(text + "x")
    assert len({place, Database(text)}) == 1


def test_a_path_is_a_path() -> None:
    assert place_of("data/outlay.db") == Path("data/outlay.db")
    assert name_of(Path("data/outlay.db")) == "outlay.db"


# -- what is true -----------------------------------------------------------------------------------------------------


def test_balances_are_those_of_the_books(tmp_path: Path) -> None:
    names = ("hour", "day", "rest")
    for kind in PLACES:
        bench = Bench(
            kind, tmp_path, [budget("hour", 900, "1h"), budget("day", 900, "day"), budget("rest", 900)]
        )
        bench.spend(70)
        for _ in range(8):
            bench.clock.advance(10 * 60 * NANOS_PER_SECOND)
            for nanos in (0, 3):
                hold = bench.hold(nanos) if nanos else None
                with RoomReader(place_of_bench(bench)) as reader:
                    views = {view.budget: view for view in reader.accounts(bench.clock.now())}
                assert {name: (views[name].spent_nanos, views[name].held_nanos) for name in names} == {
                    name: bench.balance(name) for name in names
                }
                if hold is not None:
                    bench.settle(hold, 5)
        assert bench.balance("hour")[0] < bench.balance("rest")[0], "some of it rolled away"
        bench.leave()


# -- what readers share ------------------------------------------------------------------------------------------------


def test_connections_are_kept_for_the_next_reader(bench: Bench) -> None:
    place = place_of_bench(bench)
    shelf = Shelf(place)
    with contextlib.ExitStack() as stack:
        lent: list[Rows] = [stack.enter_context(shelf.lent()) for _ in range(KEPT + 2)]
        assert len(set(map(id, lent))) == KEPT + 2, "one for each at a time"
    with shelf.lent() as rows:
        assert (rows in lent) == (bench.kind == "postgres")
        assert rows.rows("SELECT count(*) FROM charges") == [(0,)]
    shelf.close()
    for rows in lent if bench.kind == "postgres" else ():
        assert rows._db is None  # type: ignore[attr-defined]


def test_numbers_stand_in_the_text() -> None:
    assert among("id", (3, 1)) == "id IN (3,1)"
    assert among("id", ()) == "1 = 0"
    with pytest.raises(ValueError, match="invalid literal"):
        among("id", ("1) OR (1",))  # type: ignore[arg-type]


def test_what_is_not_there_is_said(bench: Bench) -> None:
    bench.spend(1)
    with RoomReader(place_of_bench(bench)) as reader:
        with pytest.raises(NotFound):
            reader.account_values(999)
        with pytest.raises(NotFound):
            reader.run_charges("nobody's")
        with pytest.raises(ConfigError, match="unknown dimension"):
            reader.charges_behind(0, 1, {"org' OR '1'='1": "x"})
        with pytest.raises(ConfigError, match="unknown group"):
            reader.spend(["org;"])
        assert reader.charges_behind(0, 2**62, {"team": "a\x00b"}) == []


# -- sums --------------------------------------------------------------------------------------------------------------


def summed(rollup: Rollup, bench: Bench) -> int:
    bench.clock.advance(NANOS_PER_SECOND)
    day = bench.clock.now() // DAY * DAY
    return sum(cell.figures.cost for cell in rollup.cells(day - DAY, day + DAY, DAY))


def looks_through(rollup: Rollup, place: LedgerPlace, change: Callable[[Rows], Rows]) -> None:
    """From here on the rollup reads through what `change` makes of its rows."""

    @contextlib.contextmanager
    def lent() -> Iterator[Rows]:
        with contextlib.closing(open_rows(place)) as rows:
            yield change(rows)

    rollup._shelf.lent = lent  # type: ignore[method-assign]


def test_a_look_that_fails_anywhere_counts_nothing_twice(bench: Bench) -> None:
    place = place_of_bench(bench)
    rollup = Rollup(place, bench.clock, settling_s=1)
    bench.spend(5)
    assert summed(rollup, bench) == 5
    right, failures = 5, 0
    for after in itertools.count():
        # one that was open when its time was added up, one of unknown outcome, a correction, and a new one
        holds = [bench.hold(2), bench.hold(3)]
        bench.clock.advance(2 * NANOS_PER_SECOND)
        assert summed(rollup, bench) == right
        bench.settle(holds[0], 2)
        bench.settle(holds[1], 3, Basis.OUTCOME_UNKNOWN)
        bench.clock.advance(2 * NANOS_PER_SECOND)
        bench.books.resolve(holds[1].id, 1, "ada", "")
        bench.spend(7)
        bench.settle(bench.hold(4), 4, Basis.OUTCOME_UNKNOWN)
        right += 2 + 1 + 7 + 4
        bench.clock.advance(2 * NANOS_PER_SECOND)
        looks_through(rollup, place, lambda rows, after=after: Failing(rows, after))  # type: ignore[misc]
        try:
            rollup.step()
        except StoreError:
            failures += 1
        else:
            break
        finally:
            looks_through(rollup, place, lambda rows: rows)
        assert summed(rollup, bench) == right, f"after a failure of statement {after}"
    assert summed(rollup, bench) == right
    assert failures > 8
    with LedgerReader(place) as reader:
        assert reader.totals()["spend_nanos"] == right
    rollup.close()


def test_rows_in_another_order_are_no_change(bench: Bench) -> None:
    place = place_of_bench(bench)
    for number in range(12):
        bench.spend(number, Identity(org="acme", user=f"u{number}"))
    rollup = Rollup(place, bench.clock)
    looks_through(rollup, place, Shuffled)
    assert summed(rollup, bench) == 66
    before = rollup.revision
    for _ in range(4):
        assert summed(rollup, bench) == 66
    assert rollup.revision == before


def test_another_ledger_in_the_same_place_is_noticed(bench: Bench, tmp_path: Path) -> None:
    rollup = Rollup(place_of_bench(bench), bench.clock)
    before = rollup.revision
    bench.spend(5)
    assert summed(rollup, bench) == 5
    # brought back from a backup that did not have the charge yet
    if bench.kind == "postgres":
        with psycopg.connect(bench.url) as db:
            db.execute("DELETE FROM charges")
    else:
        bench.store._db.execute("DELETE FROM charges")  # type: ignore[attr-defined]
    assert summed(rollup, bench) == 0
    bench.spend(9)
    assert summed(rollup, bench) == 9
    assert rollup.revision > before
    rollup.close()
