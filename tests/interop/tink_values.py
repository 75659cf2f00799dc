"""What the Tink peers share: a cleartext JSON keyset, the associated data of a value, and its form in the column."""

import base64
import os

import tink
from tink import aead, secret_key_access


def load(path):
    """The AEAD of a cleartext keyset file."""
    aead.register()
    with open(path, encoding="utf-8") as file:
        return tink.json_proto_keyset_format.parse(file.read(), secret_key_access.TOKEN).primitive(aead.Aead)


def create(path):
    """Writes a new AES-256-GCM keyset, for its owner alone."""
    aead.register()
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    text = tink.json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def associated_data(template, number, column):
    """`{id}` and `{column}` of the template filled in."""
    return template.replace("{id}", str(number)).replace("{column}", column).encode()


def to_stored(sealed, text):
    return base64.b64encode(sealed).decode() if text else sealed


def from_stored(value):
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def add_arguments(arguments):
    arguments.add_argument("--table", default="customers")
    arguments.add_argument("--keyset", required=True, metavar="FILE", help="cleartext Tink keyset in JSON")
    arguments.add_argument("--aad", default="customers.{column}:{id}", metavar="TEMPLATE")
