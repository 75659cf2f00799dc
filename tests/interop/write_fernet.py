"""Creates a table of Fernet tokens, as an application with the Python package `cryptography` writes them.

Environment: DATABASE_URL (sqlite:PATH or postgres://…), FERNET_KEY. Prints {"values", "nulls", "digest"} of the plaintexts.
"""

import argparse
import os

from cryptography.fernet import Fernet

import customers

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--table", default="customers")
arguments.add_argument("--rows", type=int, default=1000)
arguments.add_argument("--first-timestamp", type=int, default=1_600_000_000, help="row N is sealed N seconds later")
given = arguments.parse_args()

fernet = Fernet(os.environ["FERNET_KEY"])
customers.write(
    given.table,
    given.rows,
    lambda number, _column, plaintext: fernet.encrypt_at_time(plaintext, given.first_timestamp + number).decode(),
    binary=False,
)
