//! What operators ask of a rotation that is under way, from whatever machine: pause, go slower, end.
//!
//! A request stands beside the rotation's progress until it is withdrawn or, where it is to end the rotation, obeyed. A rotation that
//! is started while a request stands heeds it.

use super::super::control::REQUESTS_SINCE;
use super::super::{Control, StoreError};
use super::{Dialect, Field, Fields, Row, said};

/// Whom a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The rotation of a table, by the id of its plan.
    Plan(String),
    /// The rotation of a keyset, with everything in it.
    Keyset(String),
}

/// What is asked, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whom it is for.
    pub subject: Subject,
    /// Wait, or end.
    pub order: Option<Order>,
    /// Rewrite no more rows in a second than this.
    pub rows_per_second: Option<u64>,
    /// Go about it as this profile says.
    pub profile: Option<String>,
    /// Who asked last.
    pub by: String,
    /// Database time at which they asked, RFC 3339.
    pub at: String,
}

/// Wait, or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Begin no batch until the request is withdrawn.
    Pause,
    /// End after the batch at hand.
    Abort,
}

/// What changes in a request; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Wait, end, or no longer.
    pub order: Option<Option<Order>>,
    /// A limit of rows a second and a profile, or none any more.
    pub speed: Option<(Option<u64>, Option<String>)>,
}

impl Asked {
    /// Whether this asks for something, and does not only take back what was asked.
    pub fn asks_something(&self) -> bool {
        let speed = self.speed.as_ref();
        self.order.flatten().is_some() || speed.is_some_and(|(rows, profile)| rows.is_some() || profile.is_some())
    }
}

impl Subject {
    /// The stored text.
    pub fn name(&self) -> String {
        match self {
            Self::Plan(id) => format!("plan {id}"),
            Self::Keyset(name) => format!("keyset {name}"),
        }
    }

    /// The id of the plan, or the name of the keyset.
    pub fn what(&self) -> &str {
        match self {
            Self::Plan(what) | Self::Keyset(what) => what,
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("plan", id) => Some(Self::Plan(id.to_owned())),
            ("keyset", name) => Some(Self::Keyset(name.to_owned())),
            _ => None,
        }
    }
}

impl Order {
    /// The stored text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Abort => "abort",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Pause, Self::Abort].into_iter().find(|order| order.as_str() == text)
    }
}

/// The requests of a database.
pub struct Requests<'c> {
    control: &'c mut dyn Control,
}

impl<'c> Requests<'c> {
    /// Those behind this connection.
    pub fn of(control: &'c mut dyn Control) -> Self {
        Self { control }
    }

    /// Records what is asked, beside what was asked before. The tables must exist. Asked again after a lost reply it says the same.
    pub async fn ask(&mut self, subject: &Subject, asked: &Asked, by: &str) -> Result<Request, StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "INSERT INTO {table} AS known (subject, action, rows_per_second, profile, said_by, said_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, {now}) \
             ON CONFLICT (subject) DO UPDATE SET \
             action = CASE WHEN ?6 = 1 THEN excluded.action ELSE known.action END, \
             rows_per_second = CASE WHEN ?7 = 1 THEN excluded.rows_per_second ELSE known.rows_per_second END, \
             profile = CASE WHEN ?7 = 1 THEN excluded.profile ELSE known.profile END, \
             said_by = excluded.said_by, said_at = excluded.said_at RETURNING {columns}",
            table = dialect.requests,
            now = dialect.now,
            columns = columns(dialect),
        );
        let (rows, profile) = asked.speed.clone().unwrap_or_default();
        let values = [
            Field::text(subject.name()),
            Field::Text(asked.order.flatten().map(|order| order.as_str().to_owned())),
            Field::Int(rows.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX))),
            Field::Text(profile),
            Field::text(by),
            Field::Int(Some(i64::from(asked.order.is_some()))),
            Field::Int(Some(i64::from(asked.speed.is_some()))),
        ];
        let rows = self.control.ledger(&said(&statement, dialect), &values).await?;
        rows.into_iter().next().map_or_else(|| Err(super::damaged()), read)
    }

    /// Takes away the request to end, which is obeyed, or has nobody to obey it any more.
    pub async fn obeyed(&mut self, subject: &Subject) -> Result<(), StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "UPDATE {} SET action = NULL WHERE subject = ?1 AND action = ?2",
            dialect.requests
        );
        let values = [Field::text(subject.name()), Field::text(Order::Abort.as_str())];
        self.control.ledger(&said(&statement, dialect), &values).await.map(drop)
    }

    /// What is asked of a rotation. Writes nothing.
    pub async fn of_subject(&mut self, subject: &Subject) -> Result<Option<Request>, StoreError> {
        let requests = self.select("WHERE subject = ?1", &[Field::text(subject.name())]).await?;
        Ok(requests.into_iter().next())
    }

    /// Everything that is asked. Writes nothing.
    pub async fn list(&mut self) -> Result<Vec<Request>, StoreError> {
        let mut requests = self.select("", &[]).await?;
        requests.retain(Request::says_anything);
        Ok(requests)
    }

    async fn select(&mut self, condition: &str, values: &[Field]) -> Result<Vec<Request>, StoreError> {
        if self.control.version().await?.is_none_or(|version| version < REQUESTS_SINCE) {
            return Ok(Vec::new());
        }
        let dialect = self.control.dialect();
        let statement = format!(
            "SELECT {} FROM {} {condition} ORDER BY subject",
            columns(dialect),
            dialect.requests
        );
        let rows = self.control.ledger(&said(&statement, dialect), values).await?;
        rows.into_iter().map(read).collect()
    }
}

impl Request {
    /// Whether anything is asked any more.
    pub fn says_anything(&self) -> bool {
        self.order.is_some() || self.rows_per_second.is_some() || self.profile.is_some()
    }
}

fn columns(dialect: &Dialect) -> String {
    format!(
        "subject, action, rows_per_second, profile, said_by, {}",
        (dialect.text)("said_at")
    )
}

fn read(row: Row) -> Result<Request, StoreError> {
    let mut fields = Fields::of(row);
    let subject = Subject::parse(&fields.text()?).ok_or_else(super::damaged)?;
    let order = fields.optional_text()?;
    Ok(Request {
        subject,
        order: order.map(|text| Order::parse(&text).ok_or_else(super::damaged)).transpose()?,
        rows_per_second: fields.optional_number()?,
        profile: fields.optional_text()?,
        by: fields.text()?,
        at: fields.text()?,
    })
}
