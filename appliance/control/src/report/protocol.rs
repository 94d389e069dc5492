//! The command socket's protocol: one request line of JSON, one response line of JSON.
//!
//! `{"command":"show","what":"sas"}` is answered by `{"result":…}` or `{"error":"…"}`.

use std::fmt;
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::flow::FlowKey;

use super::{cluster_table, table};

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
    /// Virtual addresses.
    Dvipas,
    /// Who serves them.
    Targets,
    /// CHILD_SAs, own and shadow.
    Shadow,
    /// What SAs may carry in the cluster, and have.
    Lifesize,
    /// Members and coupling facility.
    Cluster,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Sas,
        Self::Drops,
        Self::Balance,
        Self::Connections,
        Self::Ports,
        Self::Cores,
        Self::Dvipas,
        Self::Targets,
        Self::Shadow,
        Self::Lifesize,
        Self::Cluster,
    ];

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
            Self::Dvipas => "dvipas",
            Self::Targets => "targets",
            Self::Shadow => "shadow",
            Self::Lifesize => "lifesize",
            Self::Cluster => "cluster",
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Rows of something.
    Show(What),
    /// Which target has the connection of this 5-tuple, from the client to the service.
    Where(FlowKey),
    /// No new connections to a target, or new ones again.
    Drain {
        /// The member's name.
        target: String,
        /// Whether it drains.
        on: bool,
    },
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
    #[error("found command {0:?}; allowed: show, where, drain, undrain")]
    UnknownCommand(String),
    /// Something that cannot be shown.
    #[error("found {found:?}; allowed: {}", What::ALL.map(What::name).join(", "))]
    UnknownWhat {
        /// What was asked for.
        found: String,
    },
    /// A connection that cannot be.
    #[error(
        "found {0:?}; allowed: a protocol, the client's end and the service's, such as tcp 10.1.0.5:40000 203.0.113.80:80"
    )]
    NoFlow(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine {
    command: String,
    what: String,
}

/// Reads a 5-tuple: a protocol, the client's end and the service's, between blanks. Ends are addresses with ports, where
/// the protocol has ports.
fn parse_flow(text: &str) -> Option<FlowKey> {
    let mut words = text.split_ascii_whitespace();
    let (protocol, src, dst) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let protocol = match protocol {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        number => number.parse().ok()?,
    };
    let end = |text: &str| match text.parse::<SocketAddr>() {
        Ok(end) => Some((end.ip(), end.port())),
        Err(_) => text.parse().ok().map(|address| (address, 0)),
    };
    let ((src, src_port), (dst, dst_port)) = (end(src)?, end(dst)?);
    let fits = src.is_ipv4() == dst.is_ipv4();
    fits.then_some(FlowKey { src, dst, protocol, src_port, dst_port })
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
            "show" => match What::parse(&raw.what) {
                Some(what) => Ok(Self::Show(what)),
                None => Err(RequestError::UnknownWhat { found: raw.what }),
            },
            "where" => Self::where_is(&raw.what),
            "drain" => Ok(Self::Drain { target: raw.what, on: true }),
            "undrain" => Ok(Self::Drain { target: raw.what, on: false }),
            _ => Err(RequestError::UnknownCommand(raw.command)),
        }
    }

    /// Asks for a connection by a text such as `tcp 10.1.0.5:40000 203.0.113.80:80`.
    ///
    /// # Errors
    /// [`RequestError::NoFlow`].
    pub fn where_is(text: &str) -> Result<Self, RequestError> {
        parse_flow(text).map(Self::Where).ok_or_else(|| RequestError::NoFlow(text.to_owned()))
    }

    /// The line that asks for this, with its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let (command, what) = match self {
            Self::Show(what) => ("show", what.name().to_owned()),
            Self::Where(FlowKey { src, dst, protocol, src_port, dst_port }) => {
                let (src, dst) = (SocketAddr::new(*src, *src_port), SocketAddr::new(*dst, *dst_port));
                ("where", format!("{protocol} {src} {dst}"))
            }
            Self::Drain { target, on: true } => ("drain", target.clone()),
            Self::Drain { target, on: false } => ("undrain", target.clone()),
        };
        let line = RequestLine { command: command.to_owned(), what };
        // Two strings always have a text.
        serde_json::to_string(&line).unwrap_or_default() + "\n"
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
        What::Dvipas => cluster_table::dvipas(&rows::<Vec<_>>(result)?),
        What::Targets => cluster_table::targets(&rows::<Vec<_>>(result)?),
        What::Shadow => cluster_table::shadows(&rows::<Vec<_>>(result)?),
        What::Lifesize => cluster_table::lifesizes(&rows::<Vec<_>>(result)?),
        What::Cluster => cluster_table::cluster(&rows(result)?),
    })
}

/// Where a connection is, as text for people.
///
/// # Errors
/// A text that says why the result is none: the other end is another version.
pub fn human_where(result: &Value) -> Result<String, String> {
    let rows = Vec::deserialize(result).map_err(|error| format!("not the rows that were asked for: {error}"))?;
    Ok(cluster_table::places(&rows))
}

#[cfg(test)]
pub(super) mod tests;
