//! A shop that stores an order, and sends messages to its customer and its warehouse in the same transaction.
//!
//! The example needs a database that `worker migrate` has prepared, and a `worker run` that serves it:
//!
//! ```sh
//! DATABASE_URL=postgres://user:password@host:5432/app cargo run --example producer
//! ```
//!
//! Your program depends on the package `signaling-producer`, and on the same version of sqlx.

use std::time::{Duration, Instant};

use signaling_producer::{EnqueueError, NewMessage, enqueue};
use sqlx::{PgPool, query, query_scalar};

/// Only this example waits for final statuses. An application need not wait.
const TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

const CREATE_ORDERS: &str = "
    create table if not exists app_order (
        id bigint generated always as identity primary key,
        customer text not null
    )";

/// With a dedupe key, a repeated insert adds no second message.
fn to_customer(order_id: i64, customer: &str) -> NewMessage {
    NewMessage {
        wait_for_ack: true,
        dedupe_key: Some(format!("order-{order_id}-confirmed")),
        ..NewMessage::to_peer("shop", customer, format!("Order {order_id} is confirmed"))
    }
}

fn to_warehouse(order_id: i64) -> NewMessage {
    NewMessage::to_channel("shop", "warehouse", format!("Pack order {order_id}"))
}

/// Stores the order and its messages, or nothing. Returns the IDs of the order and of the messages.
async fn place_order(pool: &PgPool, customer: &str) -> anyhow::Result<(i64, Vec<i64>)> {
    let mut transaction = pool.begin().await?;
    let order_id = query_scalar("insert into app_order (customer) values ($1) returning id")
        .bind(customer)
        .fetch_one(&mut *transaction)
        .await?;
    let messages = [to_customer(order_id, customer), to_warehouse(order_id)];
    let ids = enqueue(&mut transaction, &messages).await?;
    transaction.commit().await?;
    Ok((order_id, ids.into_iter().flatten().collect()))
}

/// Returns the final status, or `pending` after the timeout.
async fn wait_until_final(pool: &PgPool, message_id: i64) -> Result<String, sqlx::Error> {
    let begun = Instant::now();
    loop {
        let status: String =
            query_scalar("select status from signaling.delivery_status where id = $1")
                .bind(message_id)
                .fetch_one(pool)
                .await?;
        if status != "pending" || begun.elapsed() > TIMEOUT {
            return Ok(status);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    query(CREATE_ORDERS).execute(&pool).await?;

    let (order_id, messages) = place_order(&pool, "user-17").await?;
    println!("order {order_id} is stored, and messages {messages:?} with it");

    let again = enqueue(&pool, &[to_customer(order_id, "user-17")]).await?;
    match again[0] {
        None => println!("the repeated insert added no message"),
        Some(id) => println!("the repeated insert added message {id}"),
    }

    // The table refuses this message, so the transaction stores nothing. The error names a constraint.
    let Err(error) = place_order(&pool, "user/17").await else {
        anyhow::bail!("the table accepted an invalid destination");
    };
    match error.downcast_ref() {
        Some(EnqueueError::Refused { constraint }) => println!("refused: {constraint}"),
        _ => return Err(error),
    }

    for message in messages {
        let status = wait_until_final(&pool, message).await?;
        println!("message {message}: {status}");
        anyhow::ensure!(
            status != "pending",
            "no worker has sent message {message} within {TIMEOUT:?}"
        );
    }
    Ok(())
}
