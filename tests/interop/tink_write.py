"""Creates a table of Tink AEAD ciphertexts, bound to table, column and id by their associated data.

Environment: DATABASE_URL (sqlite:PATH or postgres://…). Prints {"values", "nulls", "digest"} of the plaintexts.
"""

import argparse

import customers
import tink_values

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
tink_values.add_arguments(arguments)
arguments.add_argument("--rows", type=int, default=1000)
arguments.add_argument("--text", action="store_true", help="base64 in text columns instead of bytes")
arguments.add_argument("--create-keyset", action="store_true", help="write a new AES-256-GCM keyset to the file first")
given = arguments.parse_args()

if given.create_keyset:
    tink_values.create(given.keyset)
primitive = tink_values.load(given.keyset)


def seal(number, column, plaintext):
    sealed = primitive.encrypt(plaintext, tink_values.associated_data(given.aad, number, column))
    return tink_values.to_stored(sealed, given.text)


customers.write(given.table, given.rows, seal, binary=not given.text)
