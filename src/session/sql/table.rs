//! How frameworks lay out their sessions in tables.

/// A table of sessions. Names are resolved against the catalogue before they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLayout {
    /// The table, schema-qualified where the database has schemas.
    pub table: String,
    /// The column that identifies a session; it must be unique.
    pub key: String,
    /// The column with the user.
    pub user: Option<String>,
    /// The column with the tenant.
    pub tenant: Option<String>,
    /// The column with the time of creation.
    pub created: Option<(String, CreatedAs)>,
    /// What ends a session.
    pub action: Action,
}

/// How a column holds a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatedAs {
    /// A timestamp of the database, in UTC where it has no zone; text in SQLite.
    Timestamp,
    /// Whole seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
}

/// What ends a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Its row goes.
    Delete,
    /// This column, NULL until then, gets the time.
    Revoke(String),
}

/// A layout that is known by name.
pub struct TablePreset {
    /// Its name.
    pub name: &'static str,
    table: &'static str,
    key: &'static str,
    user: Option<&'static str>,
    created: Option<(&'static str, CreatedAs)>,
}

/// The presets for tables, with the names that the frameworks give by default.
pub const TABLE_PRESETS: &[TablePreset] = &[
    TablePreset {
        name: "django",
        table: "django_session",
        key: "session_key",
        user: None,
        created: None,
    },
    TablePreset {
        name: "laravel",
        table: "sessions",
        key: "id",
        user: Some("user_id"),
        created: None,
    },
    TablePreset {
        name: "rails",
        table: "sessions",
        key: "id",
        user: None,
        created: Some(("created_at", CreatedAs::Timestamp)),
    },
    TablePreset {
        name: "connect-pg-simple",
        table: "session",
        key: "sid",
        user: None,
        created: None,
    },
    TablePreset {
        name: "flask-session",
        table: "sessions",
        key: "id",
        user: None,
        created: None,
    },
    // The attributes go with their session by ON DELETE CASCADE.
    TablePreset {
        name: "spring",
        table: "spring_session",
        key: "primary_id",
        user: Some("principal_name"),
        created: Some(("creation_time", CreatedAs::Milliseconds)),
    },
];

impl TablePreset {
    /// The layout of the preset.
    pub fn layout(&self) -> TableLayout {
        TableLayout {
            table: self.table.to_owned(),
            key: self.key.to_owned(),
            user: self.user.map(str::to_owned),
            tenant: None,
            created: self.created.map(|(column, form)| (column.to_owned(), form)),
            action: Action::Delete,
        }
    }
}
