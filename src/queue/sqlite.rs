//! Jobs on SQLite.

/// Jobs on SQLite.
pub struct SqliteStore;
