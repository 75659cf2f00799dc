"""Opens every Tink AEAD ciphertext of a table with the Python package `tink`.

Environment: DATABASE_URL (sqlite:PATH or postgres://…). Prints the plaintexts' {"values", "nulls", "digest"}, "per_key" (values for each
key id that they name) and "unreadable" ([id, column] of each). Exit code 1 when a value is unreadable.
"""

import argparse
import collections
import json
import sys

import tink

import customers
import tink_values

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
tink_values.add_arguments(arguments)
given = arguments.parse_args()

primitive = tink_values.load(given.keyset)
per_key = collections.Counter()
unreadable = []


def read(number, column, value):
    if value is None:
        return None
    sealed = tink_values.from_stored(value)
    try:
        plaintext = primitive.decrypt(sealed, tink_values.associated_data(given.aad, number, column)).decode()
    except tink.TinkError:
        unreadable.append([number, column])
        return False
    per_key[str(int.from_bytes(sealed[1:5], "big"))] += 1
    return plaintext


report = customers.digest_of(
    (number, *(read(number, column, value) for column, value in zip(customers.ENCRYPTED, values)))
    for number, *values in customers.stored(given.table)
)
print(json.dumps(report | {"per_key": per_key, "unreadable": unreadable}))
sys.exit(1 if unreadable else 0)
