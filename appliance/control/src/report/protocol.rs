//! The command socket's protocol: one request line of JSON, one response line of JSON.
//!
//! `{"command":"show","what":"sas"}` is answered by `{"result":…}` or `{"error":"…"}`.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::table;

/// The longest request line, its end included, in bytes.
pub const REQUEST_LEN_MAX: usize = 4096;

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Security associations.
    Sas,
    /// Dropped packets, by reason.
    Drops,
    /// Where packets ended.
    Balance,
    /// Connections of clients.
    Connections,
    /// DPDK devices.
    Ports,
    /// Processor cores.
    Cores,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Sas, Self::Drops, Self::Balance, Self::Connections, Self::Ports, Self::Cores];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sas => "sas",
            Self::Drops => "drops",
            Self::Balance => "balance",
            Self::Connections => "connections",
            Self::Ports => "ports",
            Self::Cores => "cores",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.name() == word)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Rows of something.
    Show(What),
}

/// Why a line is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`REQUEST_LEN_MAX`].
    #[error("a request of more than {REQUEST_LEN_MAX} bytes; allowed: at most {REQUEST_LEN_MAX}")]
    TooLong,
    /// Not a JSON object of the right keys.
    #[error("no request: {0}; allowed: {{\"command\":\"show\",\"what\":\"sas\"}}")]
    Malformed(String),
    /// A command that does not exist.
    #[error("found command {0:?}; allowed: show")]
    UnknownCommand(String),
    /// Something that cannot be shown.
    #[error("found {0:?}; allowed: sas, drops, balance, connections, ports, cores")]
    UnknownWhat(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine {
    command: String,
    what: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ResponseLine {
    Result(Value),
    Error(String),
}

impl Request {
    /// Reads a request line, with or without its end.
    ///
    /// # Errors
    /// [`RequestError`], whose text is fit to be sent back.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        if line.len() > REQUEST_LEN_MAX {
            return Err(RequestError::TooLong);
        }
        let raw: RequestLine =
            serde_json::from_slice(line).map_err(|error| RequestError::Malformed(error.to_string()))?;
        match raw.command.as_str() {
            "show" => What::parse(&raw.what).map(Self::Show).ok_or(RequestError::UnknownWhat(raw.what)),
            _ => Err(RequestError::UnknownCommand(raw.command)),
        }
    }

    /// The line that asks for this, with its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let Self::Show(what) = self;
        format!("{{\"command\":\"show\",\"what\":\"{what}\"}}\n")
    }
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// An array of rows, or one object where there is just one.
    Result(Value),
    /// Why there are none.
    Error(String),
}

impl Response {
    /// Answers with rows.
    #[must_use]
    pub fn rows<T: Serialize + ?Sized>(rows: &T) -> Self {
        match serde_json::to_value(rows) {
            Ok(value) => Self::Result(value),
            Err(error) => Self::Error(error.to_string()),
        }
    }

    /// The line that says this, with its end.
    #[must_use]
    pub fn into_line(self) -> Vec<u8> {
        let line = match self {
            Self::Result(value) => ResponseLine::Result(value),
            Self::Error(text) => ResponseLine::Error(text),
        };
        // Values of JSON always have a text; the fall-back keeps the promise of one line whatever happens.
        let mut bytes = serde_json::to_vec(&line).unwrap_or_else(|_| b"{\"error\":\"no JSON\"}".to_vec());
        bytes.push(b'\n');
        bytes
    }

    /// Reads a response line.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(line) {
            Ok(ResponseLine::Result(value)) => Ok(Self::Result(value)),
            Ok(ResponseLine::Error(text)) => Ok(Self::Error(text)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A result as aligned text for people.
///
/// # Errors
/// A text that says why the result is not one of `what`: the other end is another version.
pub fn human(what: What, result: &Value) -> Result<String, String> {
    fn rows<T: DeserializeOwned>(result: &Value) -> Result<T, String> {
        T::deserialize(result).map_err(|error| format!("not the rows that were asked for: {error}"))
    }
    Ok(match what {
        What::Sas => table::sas(&rows::<Vec<_>>(result)?),
        What::Drops => table::drops(&rows::<Vec<_>>(result)?),
        What::Balance => table::balance(&rows(result)?),
        What::Connections => table::connections(&rows::<Vec<_>>(result)?),
        What::Ports => table::ports(&rows::<Vec<_>>(result)?),
        What::Cores => table::cores(&rows::<Vec<_>>(result)?),
    })
}

#[cfg(test)]
pub(super) mod tests;
