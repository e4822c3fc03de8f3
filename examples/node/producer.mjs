// A shop that stores an order, and sends messages to its customer and its warehouse in the same transaction.
//
// The example needs a database that `worker migrate` has prepared, and a `worker run` that serves it:
//
//     npm ci
//     DATABASE_URL=postgres://user:password@host:5432/app node producer.mjs

import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

// Only this example waits for final statuses. An application need not wait.
const TIMEOUT_MS = 30_000;
const POLL_INTERVAL_MS = 200;
// SQLSTATE of a row that a constraint refuses.
const CHECK_VIOLATION = '23514';

const CREATE_ORDERS = `
  create table if not exists app_order (
    id bigint generated always as identity primary key,
    customer text not null
  )`;

// With a dedupe_key, a repeated insert adds no second message, and returns no row.
const NOTIFY_CUSTOMER = `
  insert into signaling.outbox (sender, destination, payload, wait_for_ack, dedupe_key)
  values ('shop', $1, $2, true, $3)
  on conflict do nothing
  returning id`;

const NOTIFY_WAREHOUSE = `
  insert into signaling.outbox (sender, channel_name, payload)
  values ('shop', 'warehouse', $1)
  returning id`;

/** Runs `work` in a transaction on one connection, and undoes everything if `work` throws. */
async function inTransaction(pool, work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query('begin');
    const result = await work(client);
    await client.query('commit');
    return result;
  } catch (error) {
    // A connection that can't roll back must not return to the pool.
    await client.query('rollback').catch((failure) => (broken = failure));
    throw error;
  } finally {
    client.release(broken);
  }
}

/** Returns the id of the message, or undefined if the message exists. Ids are bigint, which pg reads as text. */
async function notifyCustomer(db, orderId, customer) {
  const { rows } = await db.query(NOTIFY_CUSTOMER, [
    customer,
    `Order ${orderId} is confirmed`,
    `order-${orderId}-confirmed`,
  ]);
  return rows[0]?.id;
}

/** Stores the order and its messages, or nothing. */
function placeOrder(pool, customer) {
  return inTransaction(pool, async (client) => {
    const order = await client.query('insert into app_order (customer) values ($1) returning id', [customer]);
    const orderId = order.rows[0].id;
    const toCustomer = await notifyCustomer(client, orderId, customer);
    const toWarehouse = await client.query(NOTIFY_WAREHOUSE, [`Pack order ${orderId}`]);
    return { orderId, messages: [toCustomer, toWarehouse.rows[0].id] };
  });
}

/** Returns the final status, or `pending` after the timeout. */
async function waitUntilFinal(pool, messageId) {
  const deadline = performance.now() + TIMEOUT_MS;
  for (;;) {
    const { rows } = await pool.query('select status from signaling.delivery_status where id = $1', [messageId]);
    const { status } = rows[0];
    if (status !== 'pending' || performance.now() > deadline) return status;
    await sleep(POLL_INTERVAL_MS);
  }
}

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
// Without a listener, a server that closes an idle connection ends the process.
pool.on('error', (error) => console.error('idle connection lost:', error.message));
try {
  await pool.query(CREATE_ORDERS);

  const { orderId, messages } = await placeOrder(pool, 'user-17');
  console.log(`order ${orderId} is stored, and messages [${messages.join(', ')}] with it`);

  const again = await notifyCustomer(pool, orderId, 'user-17');
  console.log('the repeated insert added', again === undefined ? 'no message' : `message ${again}`);

  try {
    await placeOrder(pool, 'user/17');
  } catch (error) {
    if (error.code !== CHECK_VIOLATION) throw error;
    // The transaction stored nothing, not even the order.
    // The name of the constraint says what is wrong with the message.
    console.log('refused:', error.constraint);
  }

  for (const message of messages) {
    const status = await waitUntilFinal(pool, message);
    console.log(`message ${message}: ${status}`);
    if (status === 'pending') process.exitCode = 1;
  }
} finally {
  await pool.end();
}
