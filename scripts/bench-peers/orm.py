"""The rotation that Airflow's `rotate-fernet-key` does: SQLAlchemy objects over psycopg2, MultiFernet.rotate on each, one commit at the end.

Environment: DATABASE_URL (postgres://…), FERNET_KEYS ("new,old"). Prints {"rows", "seconds", "rows_per_second"}.
"""

import argparse
import json
import os
import time

from cryptography.fernet import Fernet, MultiFernet
from sqlalchemy import BigInteger, String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--table", default="customers")
arguments.add_argument("--column", default="email")
given = arguments.parse_args()


class Base(DeclarativeBase):
    pass


class Record(Base):
    __tablename__ = given.table
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    token: Mapped[str | None] = mapped_column(given.column, String)


keys = MultiFernet([Fernet(key) for key in os.environ["FERNET_KEYS"].split(",")])
engine = create_engine("postgresql+psycopg2://" + os.environ["DATABASE_URL"].split("://", 1)[1])

rows = 0
started = time.perf_counter()
with Session(engine) as session:
    for record in session.scalars(select(Record).where(Record.token.is_not(None)).execution_options(yield_per=1000)):
        record.token = keys.rotate(record.token.encode()).decode()
        rows += 1
    session.commit()
seconds = time.perf_counter() - started
print(json.dumps({"rows": rows, "seconds": round(seconds, 3), "rows_per_second": round(rows / seconds)}))
