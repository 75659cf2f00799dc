"""Prints, as JSON, what python-dotenv reads from an env file (argument), or PyYAML from the Secrets of a manifest (--manifest FILE)."""

import base64
import json
import sys

if sys.argv[1] == "--manifest":
    import yaml

    values = {}
    with open(sys.argv[2]) as file:
        for document in yaml.safe_load_all(file):
            if document and document.get("kind") == "Secret":
                for key, value in (document.get("data") or {}).items():
                    values[key] = base64.b64decode(value).decode()
                values.update(document.get("stringData") or {})
else:
    from dotenv import dotenv_values

    values = dotenv_values(sys.argv[1])
print(json.dumps(values))
