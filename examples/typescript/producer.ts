// The same shop in TypeScript: typed rows and statuses.
//
//     npm ci && npm run build
//     DATABASE_URL=postgres://user:password@host:5432/app npm start

import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

// Only this example waits for final statuses. An application need not wait.
const TIMEOUT_MS = 30_000;
const POLL_INTERVAL_MS = 200;
// SQLSTATE of a row that a constraint refuses.
const CHECK_VIOLATION = '23514';

type Status =
  | 'pending'
  | 'message_sent'
  | 'message_delivered'
  | 'message_offline'
  | 'failed'
  | 'expired'
  | 'cancelled'
  | 'unknown';

/** The columns that this application sets. A message has either a destination or a channel name. */
type Message = {
  sender: string;
  payload: string;
  dedupeKey?: string;
} & ({ destination: string; waitForAck?: boolean } | { channelName: string });

type Database = pg.Pool | pg.PoolClient;
/** Ids are bigint, which pg reads as text. */
type Id = string;

/** Returns the id of the message, or undefined if a message with its dedupe key exists. */
async function enqueue(db: Database, message: Message): Promise<Id | undefined> {
  const { rows } = await db.query<{ id: Id }>(
    `insert into signaling.outbox (sender, destination, channel_name, payload, wait_for_ack, dedupe_key)
     values ($1, $2, $3, $4, $5, $6)
     on conflict do nothing
     returning id`,
    [
      message.sender,
      'destination' in message ? message.destination : null,
      'channelName' in message ? message.channelName : null,
      message.payload,
      'destination' in message && (message.waitForAck ?? false),
      message.dedupeKey ?? null,
    ],
  );
  return rows[0]?.id;
}

/** Runs `work` in a transaction on one connection, and undoes everything if `work` throws. */
async function inTransaction<T>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query('begin');
    const result = await work(client);
    await client.query('commit');
    return result;
  } catch (error) {
    // A connection that can't roll back must not return to the pool.
    await client.query('rollback').catch((failure: Error) => (broken = failure));
    throw error;
  } finally {
    client.release(broken);
  }
}

function toCustomer(orderId: string, customer: string): Message {
  return {
    sender: 'shop',
    destination: customer,
    payload: `Order ${orderId} is confirmed`,
    waitForAck: true,
    dedupeKey: `order-${orderId}-confirmed`,
  };
}

/** Stores the order and its messages, or nothing. */
function placeOrder(pool: pg.Pool, customer: string) {
  return inTransaction(pool, async (client) => {
    const order = await client.query<{ id: Id }>('insert into app_order (customer) values ($1) returning id', [customer]);
    const orderId = order.rows[0]!.id;
    const messages = [
      await enqueue(client, toCustomer(orderId, customer)),
      await enqueue(client, { sender: 'shop', channelName: 'warehouse', payload: `Pack order ${orderId}` }),
    ];
    return { orderId, messages: messages.filter((id) => id !== undefined) };
  });
}

/** Returns the final status, or `pending` after the timeout. */
async function waitUntilFinal(pool: pg.Pool, messageId: Id): Promise<Status> {
  const deadline = performance.now() + TIMEOUT_MS;
  for (;;) {
    const query = 'select status from signaling.delivery_status where id = $1';
    const { rows } = await pool.query<{ status: Status }>(query, [messageId]);
    const status = rows[0]!.status;
    if (status !== 'pending' || performance.now() > deadline) return status;
    await sleep(POLL_INTERVAL_MS);
  }
}

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
// Without a listener, a server that closes an idle connection ends the process.
pool.on('error', (error) => console.error('idle connection lost:', error.message));
try {
  await pool.query(`
    create table if not exists app_order (
      id bigint generated always as identity primary key,
      customer text not null
    )`);

  const { orderId, messages } = await placeOrder(pool, 'user-17');
  console.log(`order ${orderId} is stored, and messages [${messages.join(', ')}] with it`);

  const again = await enqueue(pool, toCustomer(orderId, 'user-17'));
  console.log('the repeated insert added', again === undefined ? 'no message' : `message ${again}`);

  try {
    await placeOrder(pool, 'user/17');
  } catch (error) {
    if (!(error instanceof pg.DatabaseError) || error.code !== CHECK_VIOLATION) throw error;
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
