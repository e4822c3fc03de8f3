"""The same shop with Django, in one file.

    DATABASE_URL=postgres://user:password@host:5432/app .venv/bin/python producer_django.py
"""

import os
import sys
import time
from urllib.parse import unquote, urlsplit

import django
from django.conf import settings

url = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.path.lstrip("/"),
            "USER": unquote(url.username or ""),
            "PASSWORD": unquote(url.password or ""),
            "HOST": url.hostname or "",
            "PORT": url.port or "",
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.db import IntegrityError, connection, models, transaction  # noqa: E402  (models need the settings)

# Only this example waits for final statuses. An application need not wait.
TIMEOUT_S = 30
POLL_INTERVAL_S = 0.2


class Order(models.Model):
    customer = models.TextField()

    class Meta:
        app_label = "shop"
        db_table = "app_order"


class Message(models.Model):
    """A row of the outbox. `worker migrate` creates the table, and `db_default` leaves other columns to Postgres."""

    sender = models.TextField()
    destination = models.TextField(null=True)
    channel_name = models.TextField(null=True)
    payload = models.TextField()
    wait_for_ack = models.BooleanField(default=False)
    dedupe_key = models.TextField(null=True)

    class Meta:
        app_label = "shop"
        # Django quotes the whole name, so the inner quotes separate the schema from the table.
        db_table = 'signaling"."outbox'
        managed = False


def notify_customer(order: Order) -> None:
    """Inserts the message, unless it exists."""
    message = Message(
        sender="shop",
        destination=order.customer,
        payload=f"Order {order.id} is confirmed",
        wait_for_ack=True,
        dedupe_key=f"order-{order.id}-confirmed",
    )
    Message.objects.bulk_create([message], ignore_conflicts=True)


def place_order(customer: str) -> tuple[int, list[int]]:
    """Stores the order and its messages, or nothing."""
    with transaction.atomic():
        order = Order.objects.create(customer=customer)
        notify_customer(order)
        # With ignore_conflicts, Django does not read the id of an inserted row.
        to_customer = Message.objects.get(dedupe_key=f"order-{order.id}-confirmed")
        to_warehouse = Message.objects.create(
            sender="shop", channel_name="warehouse", payload=f"Pack order {order.id}"
        )
    return order.id, [to_customer.id, to_warehouse.id]


def wait_until_final(message_id: int) -> str:
    """Returns the final status, or `pending` after the timeout."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        with connection.cursor() as cursor:
            cursor.execute("select status from signaling.delivery_status where id = %s", [message_id])
            (status,) = cursor.fetchone()
        if status != "pending" or time.monotonic() > deadline:
            return status
        time.sleep(POLL_INTERVAL_S)


def main() -> int:
    # An application uses Django's migrations for its own tables.
    if Order._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Order)

    order_id, messages = place_order("user-17")
    print(f"order {order_id} is stored, and messages {messages} with it")

    before = Message.objects.count()
    notify_customer(Order(id=order_id, customer="user-17"))
    print("the repeated insert added", "no message" if Message.objects.count() == before else "a second message")

    try:
        place_order("user/17")
    except IntegrityError as error:
        # The transaction stored nothing, not even the order.
        # The name of the constraint says what is wrong with the message.
        print("refused:", error.__cause__.diag.constraint_name)

    statuses = [wait_until_final(message) for message in messages]
    for message, status in zip(messages, statuses):
        print(f"message {message}: {status}")
    return 1 if "pending" in statuses else 0


if __name__ == "__main__":
    sys.exit(main())
