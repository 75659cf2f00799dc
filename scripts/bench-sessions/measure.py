"""Ends a million sessions and says how long it took, what other clients of the server noticed, and how much memory it needed.

measure.py [redis] [postgres] [sqlite] [--rows N] [--rounds N]

RESEAL_TEST_REDIS and RESEAL_TEST_POSTGRES name the servers. Goals, for a million: Redis 15 s with a p99 of other clients below 5 ms;
tables 30 s with batches below 100 ms; the same memory for a tenth of the sessions.
"""

import argparse
import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import time

RESEAL = os.path.join(os.path.dirname(__file__), "../../target/release/reseal")
TABLE = """CREATE TABLE django_session (
    session_key varchar(40) NOT NULL PRIMARY KEY, session_data text NOT NULL, expire_date timestamp NOT NULL)"""
# A signed session with a user, as Django writes it.
DATA = ".eJxVjDsOwjAQBe" + "x" * 200 + ":1tEr0L:q9fXnY"


def percentile(sorted_values, share):
    return sorted_values[min(int(len(sorted_values) * share), len(sorted_values) - 1)] if sorted_values else float("nan")


def probe(url, stop, answers):
    """Another client: reads and writes its own keys, about a thousand times a second, and measures every answer."""
    import redis

    client = redis.from_url(url)
    latencies = []
    number = 0
    while not stop.is_set():
        number += 1
        began = time.perf_counter()
        if number % 4:
            client.get(f"cache:{number % 1000}")
        else:
            client.set(f"cache:{number % 1000}", DATA)
        latencies.append(time.perf_counter() - began)
        time.sleep(0.001)
    latencies.sort()
    answers.put((len(latencies), percentile(latencies, 0.5), percentile(latencies, 0.99), latencies[-1]))


def run(folder, config, environment):
    with open(os.path.join(folder, "reseal.toml"), "w") as file:
        file.write(config)
    command = [RESEAL, "sessions", "invalidate", "--yes", "--json"]
    began = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    elapsed = time.perf_counter() - began
    if status != 0:
        sys.exit(f"it failed: {output.decode()}")
    (store,) = json.loads(output)["stores"]
    return elapsed, usage.ru_maxrss / 1024, store


def fill_redis(client, rows):
    for first in range(0, rows, 10_000):
        pipeline = client.pipeline(transaction=False)
        for number in range(first, min(first + 10_000, rows)):
            pipeline.set(f"session:{number:032x}", DATA, ex=86_400)
        pipeline.execute()
    for number in range(1000):
        client.set(f"cache:{number}", DATA)


def measure_redis(rows):
    import redis

    url = os.environ["RESEAL_TEST_REDIS"]
    client = redis.from_url(url)
    client.flushdb()
    fill_redis(client, rows)
    stop, answers = multiprocessing.Event(), multiprocessing.Queue()

    def probed(seconds):
        stop.clear()
        prober = multiprocessing.Process(target=probe, args=(url, stop, answers))
        prober.start()
        time.sleep(seconds)
        return prober

    prober = probed(2)
    stop.set()
    before = answers.get()
    prober.join()
    prober = probed(0.2)
    with tempfile.TemporaryDirectory() as folder:
        config = '[session.web]\nredis = "env:REDIS_URL"\nmatch = "session:*"\n'
        elapsed, memory, store = run(folder, config, {"REDIS_URL": url})
    stop.set()
    count, median, p99, worst = answers.get()
    prober.join()
    assert store["ended"] == rows and client.dbsize() == 1000, store
    print(
        f"redis     {rows:>9} sessions  {elapsed:6.1f} s   {memory:5.0f} MiB   other clients: p50 {median * 1e3:.2f}, p99 {p99 * 1e3:.2f}, "
        f"max {worst * 1e3:.1f} ms in {count} requests (before: p99 {before[2] * 1e3:.2f} ms)   decided by {store['decided_by']}",
        flush=True,
    )


def report_table(name, rows, elapsed, memory, store):
    assert store["ended"] == rows and store["left"] == 0, store
    print(
        f"{name:<9} {rows:>9} sessions  {elapsed:6.1f} s   {memory:5.0f} MiB   slowest batch {store['slowest_batch_ms']} ms",
        flush=True,
    )


CONFIG = '[database.main]\nurl = "env:DATABASE_URL"\n[session.web]\ndatabase = "main"\npreset = "django"\n'


def measure_postgres(rows):
    import psycopg

    url = os.environ["RESEAL_TEST_POSTGRES"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS django_session")
        connection.execute(TABLE)
        connection.execute(
            "INSERT INTO django_session SELECT md5(n::text), %s, now() + n * interval '1 ms' FROM generate_series(1, %s) n", (DATA, rows)
        )
        connection.execute("CREATE INDEX django_session_expire ON django_session (expire_date)")
        connection.execute(
            "CREATE INDEX django_session_like ON django_session (session_key varchar_pattern_ops)"
        )
        connection.execute("VACUUM ANALYZE django_session")
        connection.execute("CHECKPOINT")
        with tempfile.TemporaryDirectory() as folder:
            elapsed, memory, store = run(folder, CONFIG, {"DATABASE_URL": url})
        report_table("postgres", rows, elapsed, memory, store)
        connection.execute("DROP TABLE django_session")


def measure_sqlite(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "app.db")
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute(TABLE)
        connection.execute(
            "INSERT INTO django_session WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?) "
            "SELECT lower(hex(randomblob(16))), ?, datetime('now', n || ' seconds') FROM c",
            (rows, DATA),
        )
        connection.execute("CREATE INDEX django_session_expire ON django_session (expire_date)")
        connection.commit()
        connection.close()
        elapsed, memory, store = run(folder, CONFIG, {"DATABASE_URL": f"sqlite:{path}"})
        report_table("sqlite", rows, elapsed, memory, store)


parser = argparse.ArgumentParser()
parser.add_argument("stores", nargs="*")
parser.add_argument("--rows", type=int, default=1_000_000)
parser.add_argument("--rounds", type=int, default=1)
parser.add_argument("--connections", help=argparse.SUPPRESS)
arguments = parser.parse_args()
measures = {"redis": measure_redis, "postgres": measure_postgres, "sqlite": measure_sqlite}
for store in arguments.stores or measures:
    for _ in range(arguments.rounds):
        # A tenth first: memory must not grow with the sessions.
        measures[store](arguments.rows // 10)
        measures[store](arguments.rows)
