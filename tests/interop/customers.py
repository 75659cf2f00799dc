"""The table that the peers write and read: customers(id, name, email, note), where email and note are encrypted and note may be NULL.

The database comes from the environment variable DATABASE_URL: sqlite:PATH or postgres://….
"""

import contextlib
import hashlib
import json
import os
import sqlite3

import psycopg

ENCRYPTED = ("email", "note")
ROWS_A_BATCH = 1000


@contextlib.contextmanager
def connect():
    """A connection whose transaction commits when the block ends without an error; and the mark of its parameters."""
    url = os.environ["DATABASE_URL"]
    if url.startswith("sqlite:"):
        connection, mark = sqlite3.connect(url.removeprefix("sqlite:")), "?"
    else:
        connection, mark = psycopg.connect(url), "%s"
    with contextlib.closing(connection):
        yield connection, mark
        connection.commit()


def plaintexts(rows):
    """(id, name, email, note) of every row: text of many lengths, beyond ASCII, empty and NULL."""
    for number in range(1, rows + 1):
        note = None if number % 10 == 0 else "Grüße an Zoë · " * (number % 7) + ("" if number % 7 == 0 else str(number))
        yield number, f"Customer {number}", f"customer{number}@example.com", note


def write(table, rows, seal, binary):
    """Creates the table and fills it; seal(id, column, plaintext bytes) gives the stored value."""
    with connect() as (connection, mark):
        postgres = mark == "%s"
        kind = "text" if not binary else "bytea" if postgres else "blob"
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, name text NOT NULL, email {kind}, note {kind})")
        insert = f"INSERT INTO {table} (id, name, email, note) VALUES ({', '.join([mark] * 4)})"
        batch = []
        for number, name, *clear in plaintexts(rows):
            sealed = [None if text is None else seal(number, column, text.encode()) for column, text in zip(ENCRYPTED, clear)]
            batch.append((number, name, *sealed))
            if len(batch) == ROWS_A_BATCH:
                cursor.executemany(insert, batch)
                batch.clear()
        if batch:
            cursor.executemany(insert, batch)
    print(json.dumps(digest_of((number, *clear) for number, _, *clear in plaintexts(rows))))


def stored(table):
    """(id, email, note) as stored, in the order of id."""
    with connect() as (connection, _):
        cursor = connection.cursor()
        cursor.execute(f"SELECT id, email, note FROM {table} ORDER BY id")
        for number, *values in cursor:
            yield number, *(bytes(value) if isinstance(value, memoryview) else value for value in values)


def digest_of(rows):
    """Counts and one SHA-256 over (id, plaintexts): writer and reader agree when no value was lost, altered or swapped.

    A value is text, None for NULL, or False where it could not be opened.
    """
    hashed, values, nulls = hashlib.sha256(), 0, 0
    for row in rows:
        hashed.update(json.dumps(row).encode() + b"\n")
        values += sum(isinstance(value, str) for value in row[1:])
        nulls += sum(value is None for value in row[1:])
    return {"values": values, "nulls": nulls, "digest": hashed.hexdigest()}
