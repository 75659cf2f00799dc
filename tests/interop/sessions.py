"""Sessions as the real libraries keep them in Redis.

sessions.py write django|flask N   logs N clients in and prints what they hold: session keys, or cookies
sessions.py alive django|flask     reads that from standard input and prints how many are still logged in

REDIS_URL names the server.
"""

import json
import os
import sys

URL = os.environ["REDIS_URL"]


def django_store():
    import django
    from django.conf import settings

    backend = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": URL}
    settings.configure(
        CACHES={"default": backend},
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        SECRET_KEY="only signs what this test throws away",
    )
    django.setup()
    from django.contrib.sessions.backends.cache import SessionStore

    return SessionStore


def flask_client():
    import redis
    from flask import Flask, session
    from flask_session import Session

    app = Flask(__name__)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.from_url(URL))
    Session(app)

    @app.get("/login")
    def login():
        session["user"] = "ada"
        return "in"

    @app.get("/")
    def index():
        return session.get("user", "nobody")

    return app


def write(framework, count):
    if framework == "django":
        SessionStore = django_store()
        for _ in range(count):
            session = SessionStore()
            session["_auth_user_id"] = "4711"
            session.save()
            yield session.session_key
        return
    app = flask_client()
    for _ in range(count):
        client = app.test_client()
        client.get("/login")
        yield client.get_cookie("session").value


def is_alive(framework, held):
    if framework == "django":
        SessionStore = django_store() if not hasattr(is_alive, "store") else is_alive.store
        is_alive.store = SessionStore
        return SessionStore(held).get("_auth_user_id") == "4711"
    if not hasattr(is_alive, "app"):
        is_alive.app = flask_client()
    client = is_alive.app.test_client()
    client.set_cookie("session", held)
    return client.get("/").text == "ada"


command, framework = sys.argv[1:3]
if command == "write":
    print(json.dumps(list(write(framework, int(sys.argv[3])))))
else:
    print(sum(is_alive(framework, held) for held in json.load(sys.stdin)))
