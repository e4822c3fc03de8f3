//! Roles with privileges from `worker grant`: what each can do, and what it is refused.

mod granting;
mod migrated;
mod operator;
mod producer;
mod reader;
mod search_path;
mod worker;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use testkit::{Worker, World, ask, peer};

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
    /// A new one, without any right. Roles belong to the cluster, so the name has that of the test's database in it.
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

    /// A new one with the rights of a kind, given by the command.
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

async fn try_to(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await
        .map(|_| ())
}

async fn can(connection: &mut PgConnection, statement: &str) {
    try_to(connection, statement)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Asserts that a statement fails for want of a right, and not for anything else.
async fn can_not(connection: &mut PgConnection, statement: &str) {
    let error = try_to(connection, statement)
        .await
        .expect_err(&format!("{statement}: done"));
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    assert_eq!(
        code.as_deref(),
        Some(INSUFFICIENT_PRIVILEGE),
        "{statement}: {error}"
    );
}

/// The rows of a query with one column of text.
async fn list(world: &World, query: &str) -> Vec<String> {
    let rows: Vec<String> = world.column(query).await;
    assert!(!rows.is_empty(), "nothing: {query}");
    rows
}

async fn columns(world: &World, table: &str) -> Vec<String> {
    list(
        world,
        &format!(
            "select attname::text from pg_attribute
             where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped order by attnum"
        ),
    )
    .await
}

/// Tries what no role may do: to take away, to change what others rely on, to make anything in the schema.
async fn can_not_harm_the_schema(world: &World, connection: &mut PgConnection) {
    let tables = list(
        world,
        "select oid::regclass::text from pg_class where relnamespace = 'signaling'::regnamespace and relkind = 'r'",
    )
    .await;
    for table in &tables {
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
            can_not(connection, &statement.replace("{}", table)).await;
        }
    }
    for function in list(
        world,
        "select oid::regprocedure::text from pg_proc where pronamespace = 'signaling'::regnamespace",
    )
    .await
    {
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
    // Postgres warns a role that has a right and may not grant it.
    try_to(
        connection,
        "grant all on all tables in schema signaling to public; grant all on schema signaling to public",
    )
    .await
    .ok();
    for privilege in ["select", "insert", "update"] {
        let public: bool = ask(
            connection,
            &format!(
                "select has_any_column_privilege('public', 'signaling.outbox', '{privilege}')"
            ),
        )
        .await;
        assert!(!public, "everybody can {privilege} now");
    }
}

/// A message that is due later.
async fn waiting_message(world: &World) -> i64 {
    let later = world.time_in(3_600_000).await;
    world
        .insert(peer(
            serde_json::json!({"due_at": later, "dedupe_key": uuid::Uuid::new_v4().to_string()}),
        ))
        .await
}
