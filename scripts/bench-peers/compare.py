"""Runs Reseal and its Python peers on the same table of Fernet tokens, in turn, and prints medians of the ratios.

Environment: RESEAL_TEST_POSTGRES. The table is made anew before each run: 150-byte plaintexts, an index, vacuumed, checkpointed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

import psycopg
from cryptography.fernet import Fernet

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--rows", type=int, default=200_000)
arguments.add_argument("--rounds", type=int, default=3)
arguments.add_argument("--connections", type=int, default=4)
given = arguments.parse_args()

here = os.path.dirname(os.path.abspath(__file__))
database = os.environ["RESEAL_TEST_POSTGRES"]
old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def fill():
    cipher = Fernet(old)
    with psycopg.connect(database) as connection:
        connection.execute("DROP TABLE IF EXISTS tf_source")
        connection.execute("CREATE TABLE tf_source (id int8, tenant_id int4, email text, updated_at timestamptz)")
        with connection.cursor().copy("COPY tf_source (id, tenant_id, email, updated_at) FROM STDIN") as copy:
            for number in range(1, given.rows + 1):
                token = cipher.encrypt((f"note of customer {number} " * 10)[:150].encode()).decode()
                copy.write_row((number, number * 31 % 1000, token, "2026-01-01"))


def fresh():
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS tf")
        connection.execute("DROP SCHEMA IF EXISTS reseal CASCADE")
        connection.execute("CREATE TABLE tf (id int8 PRIMARY KEY, tenant_id int4, email text, updated_at timestamptz)")
        connection.execute("INSERT INTO tf SELECT * FROM tf_source ORDER BY id")
        connection.execute("CREATE INDEX ON tf (tenant_id)")
        connection.execute("VACUUM ANALYZE tf")
        connection.execute("CHECKPOINT")


def reseal():
    environment = {"DATABASE_URL": database, "OLD": old, "NEW": new}
    command = ["target/release/reseal", "rotate", "--table", "tf", "--column", "email", "--format", "fernet", "--from", "env:OLD"]
    command += ["--to", "env:NEW", "--dual-read-confirmed", "--yes", "--json", "--workers", str(given.connections)]
    report = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    assert report["verified"], report
    return report["rows_per_second"], given.rows / report["elapsed_seconds"]


def peer(script):
    environment = {**os.environ, "DATABASE_URL": database, "FERNET_KEYS": f"{new},{old}"}
    command = [sys.executable, os.path.join(here, script), "--table", "tf", "--column", "email"]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)["rows_per_second"]


fill()
ratios = {"batch": [], "orm": []}
for _ in range(given.rounds):
    fresh()
    ours, whole = reseal()
    for name in ratios:
        fresh()
        theirs = peer(f"{name}.py")
        ratios[name].append(ours / theirs)
        print(f"Fernet, PostgreSQL, {given.rows} rows: reseal {ours:.0f} rows/s ({whole:.0f} to verified), {name}.py {theirs} rows/s, ratio {ours / theirs:.1f}")
for name, values in ratios.items():
    print(f"Fernet, PostgreSQL: MEDIAN ratio over {name}.py {statistics.median(values):.1f}")
with psycopg.connect(database, autocommit=True) as connection:
    connection.execute("DROP TABLE tf, tf_source")
