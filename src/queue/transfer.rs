//! Everything that is kept in a database, as lines of JSON, to move it to a database of the other kind.
//!
//! The first line says what the file is and the last how many rows it holds, so that one that was cut is known; each
//! between them is a row, the tables in a fixed order. Both databases make and
//! take the rows by their own functions for JSON. What was read is what stood there at one moment; what is written appears
//! at one moment, in a database that held nothing before.

use std::io::{self, BufRead, Lines, Write};

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use super::{StoreError, is_postgres, open, open_existing, retry::RetryPolicy};

/// Changes when rows are written in another way.
const FORMAT: u32 = 1;
/// What stands in the place of a table's name in the last line; its row is the number of rows before it.
const END: &str = "end";

struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    order: &'static str,
}

/// In an order in which rows come after those they name.
const TABLES: [Table; 6] = [
    Table {
        name: "jobs",
        columns: &[
            "id",
            "tenant",
            "spec",
            "status",
            "progress",
            "progress_at",
            "stage_started_at",
            "attempt",
            "retries",
            "crashes_in_a_row",
            "cancel_requested",
            "pause_requested",
            "created_at",
            "available_at",
            "started_at",
            "finished_at",
            "worker",
            "lease_expires_at",
            "error_code",
            "error_message",
            "request_id",
            "traceparent",
            "priority",
            "memory_needed",
        ],
        order: "id",
    },
    Table { name: "events", columns: &["job", "seq", "at", "type", "data"], order: "job, seq" },
    Table {
        name: "idempotency_keys",
        columns: &["tenant", "key", "fingerprint", "job", "created_at"],
        order: "tenant, key",
    },
    Table {
        name: "keys",
        columns: &["id", "tenant", "scopes", "hash", "created_at", "expires_at", "revoked_at"],
        order: "id",
    },
    Table {
        name: "datasets",
        columns: &["id", "tenant", "name", "format", "bytes", "sha256", "created_at"],
        order: "id",
    },
    Table { name: "webhook_deliveries", columns: &["id", "job", "seq", "attempts", "due_at"], order: "id" },
];
/// What PostgreSQL keeps in columns and SQLite reads out of the spec.
const OF_THE_SPEC: [&str; 3] = ["model", "webhook_url", "metadata"];

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    graspd_export: u32,
}

/// Any other line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<Row> {
    table: String,
    row: Row,
}

/// How many rows were moved, by table.
pub type Moved = Vec<(&'static str, u64)>;

/// Writes all rows of the database at `location`. A service may be at work meanwhile; what it does then is not in the file.
///
/// # Errors
/// [`StoreError`] when there is no way to the database, [`StoreError::Transfer`] when the file cannot be written.
pub async fn export(location: &str, mut file: impl Write) -> Result<Moved, StoreError> {
    // Brings it to this version's schema.
    open_existing(location).await?.close().await;
    let mut link = Link::to(location).await?;
    link.execute("BEGIN".to_owned(), None).await?;
    if matches!(link, Link::Postgres(_)) {
        link.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY".to_owned(), None).await?;
    }
    writeln!(file, "{}", json!(Head { graspd_export: FORMAT })).map_err(|error| unwritten(&error))?;
    let mut moved = Moved::new();
    for table in &TABLES {
        let mut rows = 0;
        let select = link.select(table);
        link.each(select, |row| {
            rows += 1;
            writeln!(file, r#"{{"table":"{}","row":{row}}}"#, table.name)
        })
        .await?;
        moved.push((table.name, rows));
    }
    let end = Line { table: END.to_owned(), row: moved.iter().map(|(_, rows)| rows).sum::<u64>() };
    writeln!(file, "{}", json!(end)).map_err(|error| unwritten(&error))?;
    link.execute("COMMIT".to_owned(), None).await?;
    file.flush().map_err(|error| unwritten(&error))?;
    Ok(moved)
}

/// Takes what [`export`] wrote into the database at `location`, all or nothing.
///
/// # Errors
/// [`StoreError::NotEmpty`] when jobs, keys or data sets are there already, and [`StoreError::Transfer`] with the line that
/// cannot be taken.
pub async fn import(location: &str, file: impl BufRead) -> Result<Moved, StoreError> {
    open(location, 2, RetryPolicy::default()).await?.close().await;
    let mut link = Link::to(location).await?;
    link.execute("BEGIN".to_owned(), None).await?;
    for table in TABLES.iter().filter(|table| ["jobs", "keys", "datasets"].contains(&table.name)) {
        let mut found = false;
        link.each(format!("SELECT {} FROM {} LIMIT 1", table.columns[0], table.name), |_| {
            found = true;
            Ok(())
        })
        .await?;
        if found {
            return Err(StoreError::NotEmpty { table: table.name });
        }
    }
    let moved = Reader::new(file)?.fill(&mut link).await?;
    link.execute("COMMIT".to_owned(), None).await?;
    Ok(moved)
}

fn unwritten(error: &io::Error) -> StoreError {
    StoreError::Transfer { line: None, what: error.to_string() }
}

/// The rows of a file, one after the other.
struct Reader<F> {
    lines: Lines<F>,
    number: u64,
    next: Option<Line<Value>>,
}

impl<F: BufRead> Reader<F> {
    fn new(file: F) -> Result<Self, StoreError> {
        let mut reader = Self { lines: file.lines(), number: 1, next: None };
        let head = reader.lines.next().transpose().map_err(|error| reader.wrong(&error))?.unwrap_or_default();
        match serde_json::from_str(&head) {
            Ok(Head { graspd_export: FORMAT }) => {}
            Ok(Head { graspd_export }) => {
                return Err(reader.wrong(&format!("format {graspd_export} is not known here: use a newer graspd")));
            }
            Err(_) => return Err(reader.wrong(&"the file does not come from `graspd export`")),
        }
        reader.step()?;
        Ok(reader)
    }

    fn wrong(&self, what: &dyn ToString) -> StoreError {
        StoreError::Transfer { line: Some(self.number), what: what.to_string() }
    }

    fn step(&mut self) -> Result<(), StoreError> {
        self.number += 1;
        self.next = match self.lines.next() {
            None => None,
            Some(Err(error)) => return Err(self.wrong(&error)),
            Some(Ok(line)) => Some(serde_json::from_str(&line).map_err(|error| self.wrong(&error))?),
        };
        Ok(())
    }

    async fn fill(mut self, link: &mut Link) -> Result<Moved, StoreError> {
        let mut moved = Moved::new();
        for table in &TABLES {
            // Triggers wrote rows of those tables when the rows before were filled in.
            link.execute(format!("DELETE FROM {}", table.name), None).await?;
            let insert = link.insert(table);
            let mut rows = 0;
            while let Some(line) = self.next.take_if(|line| line.table == table.name) {
                let row = link.row(table, line.row).map_err(|error| self.wrong(&error))?;
                link.execute(insert.clone(), Some(row)).await.map_err(|error| self.wrong(&error))?;
                rows += 1;
                self.step()?;
            }
            moved.push((table.name, rows));
        }
        let total: u64 = moved.iter().map(|(_, rows)| rows).sum();
        match &self.next {
            None => Err(self.wrong(&"the file ends before its last line: it was cut, export once more")),
            Some(Line { table, row }) if table == END && *row == total => Ok(moved),
            Some(Line { table, row }) if table == END => {
                Err(self.wrong(&format!("the file held {row} rows and has {total}: export once more")))
            }
            Some(line) => Err(self.wrong(&format!("a row of `{}` is unknown here or out of its order", line.table))),
        }
    }
}

/// As PostgreSQL takes it: it has no place for the character NUL.
fn without_nul(value: Value) -> Value {
    let plain = |text: String| text.replace('\0', "\u{fffd}");
    match value {
        Value::String(text) => Value::String(plain(text)),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (plain(name), without_nul(value))).collect(),
        other => other,
    }
}

/// A connection of its own, without the limits of those that a service uses.
enum Link {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Link {
    async fn to(location: &str) -> Result<Self, StoreError> {
        Ok(if is_postgres(location) {
            Self::Postgres(PgConnection::connect(location).await?)
        } else {
            Self::Sqlite(super::sqlite::connect(location).await?)
        })
    }

    /// A statement that gives each row as JSON.
    fn select(&self, table: &Table) -> String {
        let (function, end) = match self {
            Self::Sqlite(_) => ("json_object", ""),
            Self::Postgres(_) => ("json_build_object", "::text"),
        };
        let value = |column: &&str| match (self, *column) {
            (Self::Sqlite(_), "hash") => r"'hash', '\x' || lower(hex(hash))".to_owned(),
            (Self::Postgres(_), "hash") => r"'hash', '\x' || encode(hash, 'hex')".to_owned(),
            (Self::Postgres(_), "cancel_requested" | "pause_requested") => format!("'{column}', {column}::int"),
            _ => format!("'{column}', {column}"),
        };
        let values: Vec<_> = table.columns.iter().map(value).collect();
        format!("SELECT {function}({}){end} FROM {} ORDER BY {}", values.join(", "), table.name, table.order)
    }

    /// A statement that takes a row as JSON.
    fn insert(&self, table: &Table) -> String {
        let (name, columns) = (table.name, table.columns.join(", "));
        match self {
            Self::Sqlite(_) => {
                let value = |column: &&str| match *column {
                    "hash" => "unhex(substr(?1 ->> '$.hash', 3))".to_owned(),
                    column => format!("?1 ->> '$.{column}'"),
                };
                let values: Vec<_> = table.columns.iter().map(value).collect();
                format!("INSERT INTO {name} ({columns}) VALUES ({})", values.join(", "))
            }
            Self::Postgres(_) => {
                let more = if name == "jobs" { format!(", {}", OF_THE_SPEC.join(", ")) } else { String::new() };
                format!(
                    "INSERT INTO {name} ({columns}{more}) \
                     SELECT {columns}{more} FROM json_populate_record(NULL::{name}, $1::json)"
                )
            }
        }
    }

    /// A row as the statement takes it.
    fn row(&self, table: &Table, mut row: Value) -> Result<String, serde_json::Error> {
        if matches!(self, Self::Sqlite(_)) {
            return serde_json::to_string(&row);
        }
        if table.name == "jobs" {
            let spec: Value = serde_json::from_str(row["spec"].as_str().unwrap_or_default())?;
            for name in OF_THE_SPEC {
                row[name] = spec[name].clone();
            }
        }
        serde_json::to_string(&without_nul(row))
    }

    async fn execute(&mut self, statement: String, row: Option<String>) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(link) => {
                let query = sqlx::query(AssertSqlSafe(statement));
                let query = if let Some(row) = row { query.bind(row) } else { query };
                query.execute(link).await.map(drop)
            }
            Self::Postgres(link) => {
                let query = sqlx::query(AssertSqlSafe(statement));
                let query = if let Some(row) = row { query.bind(row) } else { query };
                query.execute(link).await.map(drop)
            }
        }
    }

    /// Hands over each text that a statement gives.
    async fn each(
        &mut self,
        statement: String,
        mut take: impl FnMut(String) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let query = AssertSqlSafe(statement);
        match self {
            Self::Sqlite(link) => {
                let mut rows = sqlx::query_scalar(query).fetch(link);
                while let Some(row) = rows.try_next().await? {
                    take(row).map_err(|error| unwritten(&error))?;
                }
            }
            Self::Postgres(link) => {
                let mut rows = sqlx::query_scalar(query).fetch(link);
                while let Some(row) = rows.try_next().await? {
                    take(row).map_err(|error| unwritten(&error))?;
                }
            }
        }
        Ok(())
    }
}
