"""Uses a key pair that Reseal generated, with `cryptography` and PyJWT: sign with the private key, verify with PEM and JWKS.

Arguments: algorithm, private PEM, public PEM, JWKS.
"""

import json
import sys

import jwt
from cryptography.hazmat.primitives import serialization

algorithm, private_path, public_path, jwks_path = sys.argv[1:]
with open(private_path, "rb") as file:
    private_pem = file.read()
with open(public_path, "rb") as file:
    public_pem = file.read()
with open(jwks_path) as file:
    keys = json.load(file)

private = serialization.load_pem_private_key(private_pem, password=None)
public = serialization.load_pem_public_key(public_pem)
spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
assert private.public_key().public_bytes(*spki) == public.public_bytes(*spki), "PEM files do not match"

(jwk,) = keys["keys"]
token = jwt.encode({"sub": "ada"}, private_pem, algorithm=algorithm, headers={"kid": jwk["kid"]})
assert jwt.decode(token, public_pem, algorithms=[algorithm])["sub"] == "ada"
key = jwt.PyJWKSet.from_dict(keys)[jwk["kid"]]
assert jwt.decode(token, key, algorithms=[algorithm])["sub"] == "ada"
print(jwk["kid"])
