"""Tokens of PyJWT and tokens for it.

tokens.py sign ALGORITHM KID SECRET_FILE       signs with an HMAC secret (base64) or an Ed25519 seed (base64)
tokens.py verify ALGORITHM KID SECRET_FILE     verifies the token on standard input with it
tokens.py verify-jwks KID JWKS_FILE            verifies it with the public key of that name
Prints the token, or its user.
"""

import base64
import json
import sys
import time

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

command, *rest = sys.argv[1:]


def key_of(algorithm, path):
    with open(path, "rb") as file:
        secret = base64.b64decode(file.read())
    return Ed25519PrivateKey.from_private_bytes(secret) if algorithm == "EdDSA" else secret


if command == "sign":
    algorithm, kid, path = rest
    now = int(time.time())
    claims = {"sub": "4711", "tenant": "acme", "iat": now, "exp": now + 600}
    print(jwt.encode(claims, key_of(algorithm, path), algorithm=algorithm, headers={"kid": kid}))
elif command == "verify":
    algorithm, kid, path = rest
    token = sys.stdin.read().strip()
    assert jwt.get_unverified_header(token)["kid"] == kid
    key = key_of(algorithm, path)
    key = key.public_key() if algorithm == "EdDSA" else key
    print(jwt.decode(token, key, algorithms=[algorithm], options={"require": ["iat", "exp"]})["sub"])
else:
    kid, path = rest
    token = sys.stdin.read().strip()
    with open(path) as file:
        keys = jwt.PyJWKSet.from_dict(json.load(file))
    assert jwt.get_unverified_header(token)["kid"] == kid
    print(jwt.decode(token, keys[kid], algorithms=["EdDSA"], options={"require": ["iat", "exp"]})["sub"])
