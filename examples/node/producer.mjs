// A shop that tells its customer and its warehouse of an order, in the transaction that stores the order.
//
// Run it, against a database that `worker migrate` has prepared and a `worker run` serves:
//
//     npm ci
//     DATABASE_URL=postgres://user:password@host:5432/app node producer.mjs

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

// How long the example waits for the messages to be final. An application need not wait.
const PATIENCE_MS = 30_000;
const POLL_INTERVAL_MS = 200;
// SQLSTATE of a constraint that says no.
const CHECK_VIOLATION = '23514';

const CREATE_ORDERS = `
  create table if not exists app_order (
    id bigint generated always as identity primary key,
    customer text not null
  )`;

// With a dedupe_key, a repeated insert is no second message: it returns no row.
const NOTIFY_CUSTOMER = `
  insert into signaling.outbox (sender, destination, payload, wait_for_ack, dedupe_key, traceparent)
  values ('shop', $1, $2, true, $3, $4)
  on conflict do nothing
  returning id`;

const NOTIFY_WAREHOUSE = `
  insert into signaling.outbox (sender, channel_name, payload)
  values ('shop', 'warehouse', $1)
  returning id`;

/** Runs `work` in a transaction: what it does is done if it returns, and undone if it throws. */
async function inTransaction(client, work) {
  await client.query('begin');
  try {
    const result = await work();
    await client.query('commit');
    return result;
  } catch (error) {
    await client.query('rollback');
    throw error;
  }
}

/** Resolves to the id of the message; undefined where it was inserted before. Ids are bigint, which pg reads as text. */
async function notifyCustomer(client, orderId, customer) {
  // An application that is traced passes on the context of its present span.
  const traceparent = `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`;
  const { rows } = await client.query(NOTIFY_CUSTOMER, [
    customer,
    `Order ${orderId} is confirmed`,
    `order-${orderId}-confirmed`,
    traceparent,
  ]);
  return rows[0]?.id;
}

/** The order and its messages, all of them or nothing. */
function placeOrder(client, customer) {
  return inTransaction(client, async () => {
    const order = await client.query('insert into app_order (customer) values ($1) returning id', [customer]);
    const orderId = order.rows[0].id;
    const toCustomer = await notifyCustomer(client, orderId, customer);
    const toWarehouse = await client.query(NOTIFY_WAREHOUSE, [`Pack order ${orderId}`]);
    return { orderId, messages: [toCustomer, toWarehouse.rows[0].id] };
  });
}

/** The final status, or `pending` where that takes too long. */
async function waitUntilFinal(client, messageId) {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const { rows } = await client.query('select status from signaling.delivery_status where id = $1', [messageId]);
    const { status } = rows[0];
    if (status !== 'pending' || performance.now() > deadline) return status;
    await sleep(POLL_INTERVAL_MS);
  }
}

const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();
try {
  await client.query(CREATE_ORDERS);

  const { orderId, messages } = await placeOrder(client, 'user-17');
  console.log(`order ${orderId} is stored, and messages ${messages.join(', ')} with it`);

  const again = await notifyCustomer(client, orderId, 'user-17');
  console.log('a repeat is', again === undefined ? 'no second message' : `message ${again}`);

  try {
    await placeOrder(client, 'user/17');
  } catch (error) {
    if (error.code !== CHECK_VIOLATION) throw error;
    // Nothing is stored, the order neither. The constraint's name says what is wrong.
    console.log('refused:', error.constraint);
  }

  for (const message of messages) {
    const status = await waitUntilFinal(client, message);
    console.log(`message ${message}: ${status}`);
    if (status === 'pending') process.exitCode = 1;
  }
} finally {
  await client.end();
}
