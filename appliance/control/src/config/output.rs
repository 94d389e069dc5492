//! `metrics:` and `log:` — what the appliance says about itself, and where.

use std::fmt;
use std::net::SocketAddr;

use super::error::ConfigError;
use super::place::Place;
use super::raw;
use super::word::choice;

/// Where Prometheus may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Address and port of `GET /metrics`.
    pub listen: SocketAddr,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The least severe that is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// Severities of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something needs attention.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Validates `metrics:`.
pub(super) fn validate_metrics(top: &Place<'_>, raw: Option<raw::Metrics>) -> Result<Option<Metrics>, ConfigError> {
    let Some(raw) = raw else { return Ok(None) };
    let here = top.key("metrics");
    let allowed = "an address and a port from 1 to 65535, such as 127.0.0.1:9400 or [::1]:9400";
    match raw.listen.value.parse::<SocketAddr>() {
        Ok(listen) if listen.port() != 0 && !listen.ip().is_multicast() => Ok(Some(Metrics { listen })),
        Ok(_) | Err(_) => Err(here.key("listen").invalid(&raw.listen, allowed)),
    }
}

/// Validates `log:`.
pub(super) fn validate_log(top: &Place<'_>, raw: Option<raw::Log>) -> Result<Log, ConfigError> {
    let raw = raw.unwrap_or_default();
    let here = top.key("log");
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let names = ["error", "warn", "info", "debug", "trace"];
    let table: Vec<(&str, LogLevel)> = names.into_iter().zip(levels).collect();
    let level = raw.level.map(|word| choice(&here.key("level"), &word, &table)).transpose()?;
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = raw.format.map(|word| choice(&here.key("format"), &word, &formats)).transpose()?;
    Ok(Log { level: level.unwrap_or_default(), format: format.unwrap_or_default() })
}
