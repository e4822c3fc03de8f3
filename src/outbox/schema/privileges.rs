//! Which rights a role lacks: what `grant/` would give it, and it does not have.

use crate::outbox::pool::statement::Statement;
use crate::outbox::{Outbox, RoleKind};

/// One right, as a line of `grant/` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Privilege {
    kind: &'static str,
    privilege: String,
    object: String,
    column: String,
}

/// The rights that statements give. They are those of this binary, in one form: `grant PRIVILEGE [(columns)] on
/// [schema|function] objects to ROLE`.
fn privileges(statements: &str) -> Vec<Privilege> {
    let without_comments: String = statements
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .flat_map(|line| [line, " "])
        .collect();
    without_comments.split(';').flat_map(of_statement).collect()
}

fn of_statement(statement: &str) -> Vec<Privilege> {
    let words = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((what, rest)) = words
        .strip_prefix("grant ")
        .and_then(|words| words.split_once(" on "))
    else {
        return Vec::new();
    };
    let objects = rest
        .rsplit_once(" to ")
        .map_or(rest, |(objects, _)| objects);
    let (privilege, columns) = match what.split_once(" (") {
        Some((privilege, columns)) => (privilege, columns.trim_end_matches(')')),
        None => (what, ""),
    };
    let (kind, objects) = [("schema", "schema "), ("function", "function ")]
        .into_iter()
        .find_map(|(kind, prefix)| Some((kind, objects.strip_prefix(prefix)?)))
        .unwrap_or((
            if columns.is_empty() {
                "table"
            } else {
                "column"
            },
            objects,
        ));
    objects
        .split(", ")
        .flat_map(|object| {
            columns.split(", ").map(move |column| Privilege {
                kind,
                privilege: privilege.to_owned(),
                object: object.to_owned(),
                column: column.to_owned(),
            })
        })
        .collect()
}

impl Outbox {
    /// The rights of a kind that the role of this connection lacks, in words. The schema has to be up to date.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn missing_privileges(&self, kind: RoleKind) -> Result<Vec<String>, sqlx::Error> {
        let privileges = privileges(kind.grants());
        let column = |of: fn(&Privilege) -> &str| -> Vec<String> {
            privileges
                .iter()
                .map(|right| of(right).to_owned())
                .collect()
        };
        let missing: Vec<(String, String, String)> = self
            .pool()
            .run(Statement::Read, async |session| {
                let may_look: bool = sqlx::query_scalar(
                    "select coalesce(has_schema_privilege(to_regnamespace('signaling'), 'usage'), false)",
                )
                .persistent(false)
                .fetch_one(&mut **session)
                .await?;
                if !may_look {
                    return Ok(vec![(
                        "usage".to_owned(),
                        "the schema signaling".to_owned(),
                        String::new(),
                    )]);
                }
                sqlx::query_as(
                    "select privilege, object, coalesce(string_agg(nullif(column_name, ''), ', ' order by place), '')
                     from unnest($1::text[], $2::text[], $3::text[], $4::text[])
                          with ordinality as needed (kind, privilege, object, column_name, place)
                     where not coalesce(
                         case kind
                             when 'schema' then has_schema_privilege(to_regnamespace(object), privilege)
                             when 'function' then has_function_privilege(to_regproc(object), privilege)
                             when 'table' then has_table_privilege(to_regclass(object), privilege)
                             else has_column_privilege(to_regclass(object), column_name, privilege)
                         end, false)
                     group by privilege, object order by min(place)",
                )
                .persistent(false)
                .bind(column(|right| right.kind))
                .bind(column(|right| &right.privilege))
                .bind(column(|right| &right.object))
                .bind(column(|right| &right.column))
                .fetch_all(&mut **session)
                .await
            })
            .await?;
        Ok(missing
            .into_iter()
            .map(|(privilege, object, columns)| {
                if columns.is_empty() {
                    format!("{privilege} on {object}")
                } else {
                    format!("{privilege} ({columns}) on {object}")
                }
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_a_statement_are_told_apart() {
        let told: Vec<_> = privileges(
            "-- A comment; with a semicolon.
             grant usage on schema signaling to :\"role\";
             grant update (a,
                           b) on signaling.t to :\"role\";
             grant select on signaling.t, signaling.u to :\"role\";
             grant execute on function signaling.f to :\"role\";",
        )
        .into_iter()
        .map(|right| {
            let Privilege {
                kind,
                privilege,
                object,
                column,
            } = right;
            format!("{kind} {privilege} {object} {column}")
        })
        .collect();
        assert_eq!(
            told,
            [
                "schema usage signaling ",
                "column update signaling.t a",
                "column update signaling.t b",
                "table select signaling.t ",
                "table select signaling.u ",
                "function execute signaling.f ",
            ]
        );
    }

    #[test]
    fn every_statement_of_every_kind_is_understood() {
        for kind in [RoleKind::Producer, RoleKind::Worker, RoleKind::Reader] {
            let statements: String = kind
                .grants()
                .lines()
                .filter(|line| !line.starts_with("--"))
                .flat_map(|line| [line, "\n"])
                .collect();
            for statement in statements.split(';').filter(|text| !text.trim().is_empty()) {
                let privileges = of_statement(statement);
                assert!(!privileges.is_empty(), "{statement}");
                for Privilege {
                    kind,
                    privilege,
                    object,
                    column,
                } in privileges
                {
                    assert!(
                        privilege.chars().all(|c| c.is_ascii_lowercase()),
                        "{statement}"
                    );
                    assert!(
                        object == "signaling" || object.starts_with("signaling."),
                        "{statement}"
                    );
                    assert_eq!(kind == "column", !column.is_empty(), "{statement}");
                }
            }
        }
    }
}
