//! Roles with privileges from `worker grant`: what each can do, and what it is refused.

mod granting;
mod migrated;
mod operator;
mod producer;
mod reader;
mod search_path;
mod worker;

use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{database_error, try_to};
use harness::{Worker, World, ask, execute as can, peer};

/// `insufficient_privilege`, PostgreSQL, appendix A.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// The kinds of roles.
const KINDS: [&str; 4] = ["producer", "worker", "operator", "reader"];

/// A role that can log in.
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) url: String,
}

impl Role {
    /// A new one, without any privilege. Roles belong to the cluster, so the name has that of the test's database in it.
    pub(crate) async fn new(world: &World, name: &str) -> Self {
        let database: String = world.ask("select current_database()::text").await;
        let name = format!("{name}_{database}");
        world
            .execute(&format!("create role {name} login password 'secret'"))
            .await;
        let (_, rest) = world.url.split_once('@').expect("a URL with a user");
        let url = format!("postgres://{name}:secret@{rest}");
        Self { name, url }
    }

    /// A new one with the privileges of a kind, given by the command.
    pub(crate) async fn granted(world: &World, kind: &str) -> Self {
        let role = Self::new(world, kind).await;
        world.run(&["grant", kind, &role.name]).await;
        role
    }

    /// A command with the privileges of this role.
    pub(crate) fn command(&self, arguments: &[&str]) -> Worker {
        Worker::on(&self.url, arguments)
    }

    async fn connect(&self) -> PgConnection {
        connect(&self.url).await
    }
}

/// A world whose schema belongs to a role for which policies can hold.
pub(crate) async fn owned_world() -> World {
    let mut world = World::new().await;
    let owner = Role::new(&world, "owner").await;
    let database: String = world.ask("select current_database()::text").await;
    world
        .execute(&format!(
            "drop schema signaling cascade; grant create on database {database} to {}",
            owner.name
        ))
        .await;
    world.url = owner.url;
    world.run(&["migrate"]).await;
    world
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("connected")
}

/// Asserts that a statement fails for want of a privilege, and not for anything else.
async fn can_not(connection: &mut PgConnection, statement: &str) {
    let done = try_to(connection, statement).await;
    let error = database_error(done.expect_err(statement));
    assert_eq!(error.code(), INSUFFICIENT_PRIVILEGE, "{statement}: {error}");
}

/// Asserts that no column of a table can be updated.
async fn can_not_update(world: &World, connection: &mut PgConnection, table: &str) {
    for column in columns(world, table).await {
        let statement = format!("update {table} set {column} = default");
        can_not(connection, &statement).await;
    }
}

/// The rows of a query with one column of text.
async fn list(world: &World, query: &str) -> Vec<String> {
    let rows: Vec<String> = world.column(query).await;
    assert!(!rows.is_empty(), "nothing: {query}");
    rows
}

async fn columns(world: &World, table: &str) -> Vec<String> {
    let query = format!(
        "select attname::text from pg_attribute
         where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped order by attnum"
    );
    list(world, &query).await
}

async fn tables(world: &World) -> Vec<String> {
    let query = "select oid::regclass::text from pg_class
                 where relnamespace = 'signaling'::regnamespace and relkind = 'r' order by 1";
    list(world, query).await
}

/// Tries what no role may do: to take away, to change what others rely on, to make anything in the schema.
async fn can_not_harm_the_schema(world: &World, connection: &mut PgConnection) {
    for table in tables(world).await {
        for statement in [
            "delete from {}",
            "truncate {} cascade",
            "drop table {} cascade",
            "alter table {} add column mine text",
            "alter table {} disable trigger all",
            "alter table {} owner to current_user",
            "create index on {} ((true))",
            "create trigger mine after insert on {} execute function signaling.notify_workers()",
            "create policy mine on {}",
            "create rule mine as on insert to {} do also select 1",
            "comment on table {} is 'mine'",
            "do $$ begin lock table {} in access exclusive mode; end $$",
            "do $$ begin lock table {} in share mode; end $$",
        ] {
            can_not(connection, &statement.replace("{}", &table)).await;
        }
    }
    let functions = "select oid::regprocedure::text from pg_proc
                     where pronamespace = 'signaling'::regnamespace";
    for function in list(world, functions).await {
        for statement in [
            "drop function {} cascade",
            "alter function {} reset search_path",
            "alter function {} owner to current_user",
        ] {
            can_not(connection, &statement.replace("{}", &function)).await;
        }
    }
    world
        .execute("grant create on schema public to public")
        .await;
    for statement in [
        "drop schema signaling cascade",
        "alter schema signaling rename to mine",
        "create table signaling.mine ()",
        "create view signaling.mine as select 1",
        "create type signaling.mine as enum ()",
        "create function signaling.mine() returns int language sql as 'select 1'",
        "create or replace view signaling.delivery_status as select 1",
        "drop view signaling.delivery",
        "drop index signaling.outbox_first_attempts",
        "insert into signaling.schema_migrations default values",
        "update signaling.schema_migrations set success = false",
        "select nextval('signaling.outbox_id_seq')",
        "select setval('signaling.outbox_id_seq', 1)",
        "create table public.mine (of bigint references signaling.outbox)",
    ] {
        can_not(connection, statement).await;
    }
    // Postgres only warns a role that has a privilege and may not grant it.
    let grant = "grant all on all tables in schema signaling to public; grant all on schema signaling to public";
    try_to(connection, grant).await.ok();
    let is_public =
        "select has_any_column_privilege('public', 'signaling.outbox', 'select, insert, update')";
    assert!(!ask::<bool>(connection, is_public).await, "granted");
}

/// A message that is due later.
async fn waiting_message(world: &World) -> i64 {
    let later = world.time_in(3_600_000).await;
    world.insert(peer(json!({"due_at": later}))).await
}
