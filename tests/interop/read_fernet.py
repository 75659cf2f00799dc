"""Opens every value of a table of Fernet tokens with MultiFernet, as an application does while keys change.

Environment: DATABASE_URL (sqlite:PATH or postgres://…), FERNET_KEYS (comma-separated, newest first).
Prints the plaintexts' {"values", "nulls", "digest"}, "per_key" (values that each key opens, in the order given), "timestamps" (a digest
of the tokens' creation times) and "unreadable" ([id, column] of each). Exit code 1 when a value is unreadable.
"""

import argparse
import hashlib
import json
import os
import sys

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

import customers

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--table", default="customers")
given = arguments.parse_args()

keys = [Fernet(key) for key in os.environ["FERNET_KEYS"].split(",")]
reader = MultiFernet(keys)
per_key = [0] * len(keys)
timestamps = hashlib.sha256()
unreadable = []


def opens(key, token):
    try:
        key.decrypt(token)
    except InvalidToken:
        return False
    return True


def read(number, column, token):
    if token is None:
        return None
    try:
        plaintext = reader.decrypt(token).decode()
    except InvalidToken:
        unreadable.append([number, column])
        return False
    per_key[[opens(key, token) for key in keys].index(True)] += 1
    timestamps.update(f"{number}.{column}:{reader.extract_timestamp(token)}\n".encode())
    return plaintext


report = customers.digest_of(
    (number, *(read(number, column, token) for column, token in zip(customers.ENCRYPTED, tokens)))
    for number, *tokens in customers.stored(given.table)
)
print(json.dumps(report | {"per_key": per_key, "timestamps": timestamps.hexdigest(), "unreadable": unreadable}))
sys.exit(1 if unreadable else 0)
