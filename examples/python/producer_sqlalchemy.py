"""The same shop with SQLAlchemy.

    DATABASE_URL=postgresql://user:password@host:5432/app .venv/bin/python producer_sqlalchemy.py
"""

import os
import sys
import time

from sqlalchemy import BigInteger, Boolean, Column, Identity, MetaData, Table, Text, create_engine, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

# Only this example waits for final statuses. An application need not wait.
TIMEOUT_S = 30
POLL_INTERVAL_S = 0.2

metadata = MetaData()
orders = Table(
    "app_order",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("customer", Text, nullable=False),
)
# The columns that this application uses. `worker migrate` creates the table, so it is not in `metadata`.
outbox = Table(
    "outbox",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("sender", Text),
    Column("destination", Text),
    Column("channel_name", Text),
    Column("payload", Text),
    Column("wait_for_ack", Boolean),
    Column("dedupe_key", Text),
    Column("status", Text),
    schema="signaling",
)


def notify_customer(connection: Connection, order_id: int, customer: str) -> int | None:
    """Returns the id of the message, or None if the message exists."""
    statement = (
        insert(outbox)
        .values(
            sender="shop",
            destination=customer,
            payload=f"Order {order_id} is confirmed",
            wait_for_ack=True,
            dedupe_key=f"order-{order_id}-confirmed",
        )
        .on_conflict_do_nothing()
        .returning(outbox.c.id)
    )
    return connection.scalar(statement)


def place_order(engine: Engine, customer: str) -> tuple[int, list[int]]:
    """Stores the order and its messages, or nothing."""
    with engine.begin() as connection:
        order_id = connection.scalar(insert(orders).values(customer=customer).returning(orders.c.id))
        to_customer = notify_customer(connection, order_id, customer)
        to_warehouse = connection.scalar(
            insert(outbox)
            .values(sender="shop", channel_name="warehouse", payload=f"Pack order {order_id}")
            .returning(outbox.c.id)
        )
    return order_id, [to_customer, to_warehouse]


def wait_until_final(engine: Engine, message_id: int) -> str:
    """Returns the final status, or `pending` after the timeout."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        with engine.connect() as connection:
            status = connection.scalar(select(outbox.c.status).where(outbox.c.id == message_id))
        if status != "pending" or time.monotonic() > deadline:
            return status
        time.sleep(POLL_INTERVAL_S)


def main() -> int:
    # SQLAlchemy names the driver in the scheme of the URL.
    _, _, rest = os.environ["DATABASE_URL"].partition("://")
    engine = create_engine(f"postgresql+psycopg://{rest}")
    metadata.create_all(engine)

    order_id, messages = place_order(engine, "user-17")
    print(f"order {order_id} is stored, and messages {messages} with it")

    with engine.begin() as connection:
        again = notify_customer(connection, order_id, "user-17")
    print("the repeated insert added", "no message" if again is None else f"message {again}")

    try:
        place_order(engine, "user/17")
    except IntegrityError as error:
        # The transaction stored nothing, not even the order.
        # The name of the constraint says what is wrong with the message.
        print("refused:", error.orig.diag.constraint_name)

    statuses = [wait_until_final(engine, message) for message in messages]
    for message, status in zip(messages, statuses):
        print(f"message {message}: {status}")
    return 1 if "pending" in statuses else 0


if __name__ == "__main__":
    sys.exit(main())
