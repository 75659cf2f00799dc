"""A Django shop with encrypted customers and logins: what a rotation of its keys is tried on.

    shop.py prepare ROWS USERS   makes the tables, customers and users
    gunicorn shop:application    serves it; workers without threads, as keys are followed between requests
    shop.py load URL ROWS USERS  users log in, read and write until standard input ends; prints what happened
    shop.py alive URL            reads session ids from standard input, prints how many are logged in

Customers' e-mail addresses are Fernet tokens in PostgreSQL (DATABASE_URL), sessions are in Redis (REDIS_URL). SECRET_KEY and
SECRET_KEY_FALLBACKS are read from .env, FERNET_KEYS from keys.env, at the beginning of every request when a file has changed: so new
keys need no restart. With SHOP_KEYS=at-start they are read once, as most applications do, and every instance must be restarted.
"""

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import django
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from dotenv import dotenv_values

DATABASE = urllib.parse.urlsplit(os.environ.get("DATABASE_URL", ""))


def listed(text):
    return [part for part in (text or "").split(",") if part]


class Keys:
    """The keys as the files say now. Files are replaced whole, so that what is read belongs together."""

    stamp = None
    fernet = None

    @classmethod
    def follow(cls):
        if cls.stamp and os.environ.get("SHOP_KEYS") == "at-start":
            return
        stamp = tuple((status.st_ino, status.st_mtime_ns) for status in map(os.stat, (".env", "keys.env")))
        if stamp == cls.stamp:
            return
        values = dotenv_values(".env")
        settings.SECRET_KEY = values["SECRET_KEY"]
        settings.SECRET_KEY_FALLBACKS = listed(values.get("SECRET_KEY_FALLBACKS"))
        cls.fernet = MultiFernet([Fernet(key) for key in listed(dotenv_values("keys.env")["FERNET_KEYS"])])
        cls.stamp = stamp


def follow_keys(get_response):
    def answer(request):
        Keys.follow()
        return get_response(request)

    return answer


settings.configure(
    DEBUG=False,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="replaced before the first request",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    MIDDLEWARE=[
        f"{__name__}.follow_keys",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": os.environ.get("REDIS_URL", ""),
        }
    },
    # A test's users log in often; this is not how to store passwords.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": DATABASE.path.lstrip("/"),
            "USER": DATABASE.username,
            "PASSWORD": urllib.parse.unquote(DATABASE.password or ""),
            "HOST": DATABASE.hostname,
            "PORT": DATABASE.port,
            "CONN_MAX_AGE": 60,
        }
    },
)
django.setup()

from django.contrib.auth import authenticate, login  # noqa: E402
from django.contrib.sessions.exceptions import SessionInterrupted  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

application = get_wsgi_application()


def enter(request, name):
    user = authenticate(request, username=name, password=name)
    login(request, user)
    return HttpResponse("in")


def whoami(request):
    return HttpResponse(request.user.get_username() or "nobody")


def customer(request, number):
    """Reads a customer, and with ?write=1 gives it another address. 401 for whoever is not logged in, 500 for what does not open."""
    if not request.user.is_authenticated:
        return HttpResponse("log in", status=401)
    with connection.cursor() as cursor:
        cursor.execute("SELECT email FROM customers WHERE id = %s", [number])
        (email,) = cursor.fetchone()
        try:
            text = Keys.fernet.decrypt(email.encode()).decode()
        except InvalidToken:
            return HttpResponse("unreadable", status=500)
        if request.GET.get("write"):
            version = int(text.rsplit("-", 1)[1]) + 1
            sealed = Keys.fernet.encrypt(f"customer-{number}-{version}".encode()).decode()
            cursor.execute("UPDATE customers SET email = %s WHERE id = %s", [sealed, number])
    return JsonResponse({"text": text})


urlpatterns = [
    path("enter/<name>", enter),
    path("whoami", whoami),
    path("customer/<int:number>", customer),
]


INTERRUPTED = "the session ended before its login did"


def handler400(request, exception):
    return HttpResponse(INTERRUPTED if isinstance(exception, SessionInterrupted) else "bad request", status=400)


def prepare(rows, users):
    from django.contrib.auth.models import User
    from django.core.management import call_command

    Keys.follow()
    call_command("migrate", verbosity=0)
    for number in range(users):
        User.objects.create_user(f"user{number}", password=f"user{number}")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE customers (id integer PRIMARY KEY, email text NOT NULL)")
        sealed = [(number, Keys.fernet.encrypt(f"customer-{number}-0".encode()).decode()) for number in range(1, rows + 1)]
        cursor.executemany("INSERT INTO customers VALUES (%s, %s)", sealed)


def ask(url, session=None):
    """The status, the text, and the session that the answer gives."""
    request = urllib.request.Request(url, headers={"Cookie": f"sessionid={session}"} if session else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            given = answer.headers.get("Set-Cookie", "")
            given = given.split("sessionid=", 1)[1].split(";")[0] if "sessionid=" in given else None
            return answer.status, answer.read().decode(), given or session
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), session


class Load:
    def __init__(self, url, rows, users):
        self.url, self.rows = url, rows
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.result = {"requests": 0, "failed": 0, "logged_out": 0, "interrupted": 0, "why": [], "sessions": []}
        self.threads = [threading.Thread(target=self.user, args=(f"user{number}", number)) for number in range(users)]

    def count(self, name, why=None):
        with self.lock:
            self.result[name] += 1
            if why and len(self.result["why"]) < 10:
                self.result["why"].append(why)

    def user(self, name, seed):
        session, turn = None, seed
        while not self.stop.is_set():
            turn += 1
            number = turn * 7919 % self.rows + 1
            try:
                if session is None:
                    status, text, session = ask(f"{self.url}/enter/{name}")
                    self.count("requests")
                    if (status, text) == (400, INTERRUPTED):
                        self.count("interrupted")
                        session = None
                    elif status != 200:
                        self.count("failed", f"login: {status}")
                        session = None
                    continue
                # Every user writes customers of its own: this application does not compare before it writes.
                mine = number - number % len(self.threads) + seed
                write = "?write=1" if turn % 5 == 0 and 1 <= mine <= self.rows else ""
                number = mine if write else number
                status, text, session = ask(f"{self.url}/customer/{number}{write}", session)
                self.count("requests")
                if status == 401:
                    self.count("logged_out")
                    session = None
                elif status != 200 or not json.loads(text)["text"].startswith(f"customer-{number}-"):
                    self.count("failed", f"customer {number}: {status} {text[:80]}")
            except OSError as error:
                self.count("failed", str(error))
            time.sleep(0.002)
        with self.lock:
            self.result["sessions"].append(session)

    def run(self):
        for thread in self.threads:
            thread.start()
        sys.stdin.read()
        self.stop.set()
        for thread in self.threads:
            thread.join()
        print(json.dumps(self.result))


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "prepare":
        prepare(int(rest[0]), int(rest[1]))
    elif command == "load":
        Load(rest[0], int(rest[1]), int(rest[2])).run()
    else:
        sessions = json.load(sys.stdin)
        print(sum(ask(f"{rest[0]}/whoami", session)[1] != "nobody" for session in sessions))
