//! `graspd keys`: what is asked of it, and how its answers look.

use std::time::Duration;

use clap::Subcommand;

use crate::job::Scope;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print it, once: only its hash is kept
    Create {
        /// Whose jobs it sees
        #[arg(long, default_value = "default")]
        tenant: String,
        /// What it may do; once for each scope [default: jobs:read jobs:write datasets:read datasets:write]
        #[arg(long = "scope", value_name = "SCOPE", num_args = 1..)]
        scopes: Vec<Scope>,
        /// How long it is valid, such as 90d [default: for ever]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<Duration>,
    },
    /// List all keys
    List,
    /// End a key
    Revoke {
        /// The key's id, as `list` shows it
        id: String,
        /// Not at once but after so long
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
        after: Duration,
    },
    /// Make a key like another one and end that after a while
    Rotate {
        /// The key's id, as `list` shows it
        id: String,
        /// How long the old one stays valid
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
        after: Duration,
    },
}

/// What a key may do when nothing is said.
pub const USUAL_SCOPES: [Scope; 4] = [Scope::JobsRead, Scope::JobsWrite, Scope::DatasetsRead, Scope::DatasetsWrite];

/// A whole number and a unit: s, m, h, d or w.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => 0,
    };
    let length = number.parse::<u64>().ok().filter(|_| seconds > 0).and_then(|number| number.checked_mul(seconds));
    length.map(Duration::from_secs).ok_or_else(|| "must be a length of time such as 15m, 24h or 90d".to_owned())
}

/// A line of `graspd keys list`.
#[derive(Debug)]
pub struct KeyRow {
    /// Its id.
    pub id: String,
    /// Whose jobs it sees.
    pub tenant: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// `valid`, `expires …`, `expired` or `revoked`.
    pub state: String,
}

/// The table of `graspd keys list`.
pub fn table(rows: &[KeyRow]) -> String {
    let line =
        |id: &str, tenant: &str, state: &str, scopes: &str| format!("{id:<20}  {tenant:<16}  {state:<28}  {scopes}\n");
    let shown = rows.iter().map(|row| {
        let scopes: Vec<_> = row.scopes.iter().map(|scope| scope.as_str()).collect();
        line(&row.id, &row.tenant, &row.state, &scopes.join(" "))
    });
    std::iter::once(line("id", "tenant", "state", "scopes")).chain(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_a_unit() {
        assert_eq!(duration("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for text in ["", "d", "90", "90y", "-1d", "é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
