"""A shop that stores an order, and sends messages to its customer and its warehouse in the same transaction.

The example needs a database that `worker migrate` has prepared, and a `worker run` that serves it:

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
    DATABASE_URL=postgres://user:password@host:5432/app .venv/bin/python producer.py
"""

import os
import sys
import time

import psycopg

# Only this example waits for final statuses. An application need not wait.
TIMEOUT_S = 30
POLL_INTERVAL_S = 0.2

CREATE_ORDERS = """
    create table if not exists app_order (
        id bigint generated always as identity primary key,
        customer text not null
    )
"""

# With a dedupe_key, a repeated insert adds no second message, and returns no row.
NOTIFY_CUSTOMER = """
    insert into signaling.outbox (sender, destination, payload, wait_for_ack, dedupe_key)
    values ('shop', %(customer)s, %(payload)s, true, %(dedupe_key)s)
    on conflict do nothing
    returning id
"""

NOTIFY_WAREHOUSE = """
    insert into signaling.outbox (sender, channel_name, payload)
    values ('shop', 'warehouse', %s)
    returning id
"""


def notify_customer(connection: psycopg.Connection, order_id: int, customer: str) -> int | None:
    """Returns the id of the message, or None if the message exists."""
    row = connection.execute(
        NOTIFY_CUSTOMER,
        {
            "customer": customer,
            "payload": f"Order {order_id} is confirmed",
            "dedupe_key": f"order-{order_id}-confirmed",
        },
    ).fetchone()
    return row[0] if row else None


def place_order(connection: psycopg.Connection, customer: str) -> tuple[int, list[int]]:
    """Stores the order and its messages, or nothing."""
    with connection.transaction():
        (order_id,) = connection.execute(
            "insert into app_order (customer) values (%s) returning id", [customer]
        ).fetchone()
        messages = [notify_customer(connection, order_id, customer)]
        messages += connection.execute(NOTIFY_WAREHOUSE, [f"Pack order {order_id}"]).fetchone()
    return order_id, messages


def wait_until_final(connection: psycopg.Connection, message_id: int) -> str:
    """Returns the final status, or `pending` after the timeout."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        (status,) = connection.execute(
            "select status from signaling.delivery_status where id = %s", [message_id]
        ).fetchone()
        if status != "pending" or time.monotonic() > deadline:
            return status
        time.sleep(POLL_INTERVAL_S)


def main() -> int:
    # With autocommit, only `connection.transaction()` begins a transaction, and none is open while the example waits.
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(CREATE_ORDERS)

        order_id, messages = place_order(connection, "user-17")
        print(f"order {order_id} is stored, and messages {messages} with it")

        again = notify_customer(connection, order_id, "user-17")
        print("the repeated insert added", "no message" if again is None else f"message {again}")

        try:
            place_order(connection, "user/17")
        except psycopg.errors.CheckViolation as error:
            # The transaction stored nothing, not even the order.
            # The name of the constraint says what is wrong with the message.
            print("refused:", error.diag.constraint_name)

        statuses = [wait_until_final(connection, message) for message in messages]
        for message, status in zip(messages, statuses):
            print(f"message {message}: {status}")
        return 1 if "pending" in statuses else 0


if __name__ == "__main__":
    sys.exit(main())
