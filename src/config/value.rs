//! One setting: a value with its two names, and what may be in it.

use std::{fmt::Display, io, path::PathBuf, str::FromStr, time::Duration};

use tracing_subscriber::EnvFilter;

use crate::{
    http::webhook::{InvalidSecret, Secret},
    queue::is_postgres,
    worker::Retention,
};

/// A setting cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is not what the setting takes.
    #[error("{variable} (--{flag}) is '{value}': {what}")]
    Value {
        /// The flag, without its dashes.
        flag: &'static str,
        /// The variable.
        variable: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it and what would be right.
        what: String,
    },
    /// A folder has no absolute path.
    #[error("{path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// This executable cannot be found again, to start workers with.
    #[error("the path of this program: {0}")]
    Program(#[source] io::Error),
}

/// A value from a flag or a variable.
pub(super) struct Setting<'a> {
    flag: &'static str,
    variable: &'static str,
    value: Option<&'a str>,
}

impl<'a> Setting<'a> {
    /// An empty value counts as none.
    pub(super) fn new(flag: &'static str, variable: &'static str, value: Option<&'a String>) -> Self {
        Self { flag, variable, value: value.map(|value| value.trim()).filter(|value| !value.is_empty()) }
    }

    fn refuse(&self, what: impl Display) -> ConfigError {
        ConfigError::Value {
            flag: self.flag,
            variable: self.variable,
            value: self.value.unwrap_or_default().to_owned(),
            what: what.to_string(),
        }
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(self, default: T) -> Result<T, ConfigError> {
        self.value.map_or(Ok(default), |value| value.parse().map_err(|error| self.refuse(error)))
    }

    pub(super) fn count(self, default: usize, most: usize) -> Result<usize, ConfigError> {
        self.count_from(1, default, most)
    }

    pub(super) fn count_from(self, least: usize, default: usize, most: usize) -> Result<usize, ConfigError> {
        match self.value.map(str::parse) {
            None => Ok(default),
            Some(Ok(count)) if (least..=most).contains(&count) => Ok(count),
            Some(_) => Err(self.refuse(format!("must be a number from {least} to {most}"))),
        }
    }

    /// Secrets that webhooks are signed with; none of them is ever repeated in a message.
    pub(super) fn secrets(self) -> Result<Vec<Secret>, ConfigError> {
        let words = self.value.unwrap_or_default().split(',').map(str::trim);
        let parsed: Result<Vec<Secret>, InvalidSecret> = words.map(str::parse).collect();
        parsed.map_err(|error| Self { value: Some("…"), ..self }.refuse(error))
    }

    pub(super) fn boolean(self) -> Result<bool, ConfigError> {
        match self.value.map(str::to_ascii_lowercase).as_deref() {
            None | Some("0" | "false" | "no" | "off") => Ok(false),
            Some("1" | "true" | "yes" | "on") => Ok(true),
            Some(_) => Err(self.refuse("must be 1 or 0")),
        }
    }

    pub(super) fn url(self, default: &str) -> Result<String, ConfigError> {
        let url = self.value.unwrap_or(default).trim_end_matches('/');
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if host.is_none_or(str::is_empty) {
            return Err(self.refuse("must begin with https:// or http://"));
        }
        Ok(url.to_owned())
    }

    pub(super) fn database(self, default: String) -> Result<String, ConfigError> {
        match self.value {
            None => Ok(default),
            Some(url) if url.starts_with("sqlite:") || is_postgres(url) => Ok(url.to_owned()),
            // The value may hold a password: it is not repeated.
            Some(_) => Err(Self { value: Some("…"), ..self }.refuse("must begin with sqlite: or postgres://")),
        }
    }

    /// The URL of an object store; whether this build knows it shows when it is opened.
    pub(super) fn object_store(self) -> Result<Option<String>, ConfigError> {
        match self.value {
            Some(url) if !url.contains("://") => {
                Err(self.refuse("must be such as s3://bucket/prefix or file:///folder"))
            }
            url => Ok(url.map(str::to_owned)),
        }
    }

    pub(super) fn address(self, default: &str) -> Result<String, ConfigError> {
        Ok(self.address_if_any()?.unwrap_or_else(|| default.to_owned()))
    }

    pub(super) fn address_if_any(self) -> Result<Option<String>, ConfigError> {
        let Some(address) = self.value else { return Ok(None) };
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Some(address.to_owned())),
            _ => Err(self.refuse("must be an address and a port such as 127.0.0.1:8080")),
        }
    }

    pub(super) fn filter(self, default: &str) -> Result<String, ConfigError> {
        let filter = self.value.unwrap_or(default);
        EnvFilter::try_new(filter).map_err(|error| self.refuse(error))?;
        Ok(filter.to_owned())
    }

    /// Checks how devices are written; whether they exist shows when they are opened.
    pub(super) fn devices(self) -> Result<Vec<String>, ConfigError> {
        let mut devices: Vec<String> = Vec::new();
        for name in self.value.unwrap_or("cpu").split(',').map(str::trim) {
            let known = match name.split_once(':') {
                None => matches!(name, "cpu" | "metal"),
                Some((kind, number)) => kind == "cuda" && number.parse::<u16>().is_ok(),
            };
            if !known {
                return Err(self.refuse(format!("'{name}' is no device: use cpu, cuda:0, cuda:1, … or metal")));
            }
            if devices.iter().any(|device| device == name) {
                return Err(self.refuse(format!("names {name} twice: use --slots for more jobs on one device")));
            }
            devices.push(name.to_owned());
        }
        Ok(devices)
    }

    /// A number of bytes such as 500MB; decimal units.
    pub(super) fn bytes(self, default: u64) -> Result<u64, ConfigError> {
        self.value.map_or(Ok(default), |value| bytes(value).map_err(|what| self.refuse(what)))
    }

    /// At least a second.
    pub(super) fn duration(self, default: Duration) -> Result<Duration, ConfigError> {
        let Some(text) = self.value else { return Ok(default) };
        match duration(text) {
            Ok(length) if length >= Duration::from_secs(1) => Ok(length),
            Ok(_) => Err(self.refuse("must be at least 1s")),
            Err(what) => Err(self.refuse(what)),
        }
    }

    /// An age, a size, or both: `30d,500GB`.
    pub(super) fn retention(self) -> Result<Retention, ConfigError> {
        let mut retention = Retention::default();
        for part in self.value.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if let Ok(age) = duration(part) {
                retention.age = Some(age);
            } else {
                let what = "must be an age, a size or both, such as 30d,500GB";
                retention.bytes = Some(bytes(part).map_err(|_| self.refuse(what))?);
            }
        }
        Ok(retention)
    }
}

/// A whole number and a unit.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn bytes(text: &str) -> Result<u64, &'static str> {
    let decimal =
        [("", 1), ("B", 1), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];
    let units = [&decimal[..], &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)]].concat();
    quantity(text, &units).ok_or("must be a number of bytes such as 500MB or 2GB")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];
    quantity(text, &units).map(Duration::from_secs).ok_or("must be a length of time such as 15m, 24h or 30d")
}
