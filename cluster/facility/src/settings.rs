//! Which facility, and how it is reached; what cannot be safe is refused.

use std::path::PathBuf;
use std::time::Duration;

use crate::file::FileError;

/// How long a request may take, unless the settings say otherwise.
pub const TIME_LIMIT: Duration = Duration::from_secs(2);

/// How many requests may wait, unless the settings say otherwise.
pub const QUEUE: usize = 1024;

/// Which facility an appliance uses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the embedded store lies, and what was seen of any store is kept.
    pub state_directory: PathBuf,
    /// Which store.
    pub backend: Backend,
    /// How long a request may take before it is answered as unavailable.
    pub time_limit: Duration,
    /// How many requests may wait.
    pub queue_requests: usize,
}

/// Where records are kept.
#[derive(Clone, Debug)]
pub enum Backend {
    /// In a file of the state directory: for one appliance.
    Embedded,
    /// In etcd: for a cluster.
    Etcd(EtcdSettings),
}

/// How etcd is reached.
#[derive(Clone, Debug)]
pub struct EtcdSettings {
    /// `http://host:port` or `https://host:port` of its members, tried in turn.
    pub endpoints: Vec<String>,
    /// What all names of this cluster begin with, so that several clusters can share one etcd.
    pub prefix: String,
    /// For `https`.
    pub tls: Option<TlsSettings>,
}

/// How etcd and its client prove who they are.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// PEM file of the authorities that etcd's certificate must come from.
    pub authority: PathBuf,
    /// PEM files of our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in etcd's certificate, if it is not the endpoint's.
    pub server_name: Option<String>,
}

/// Why there is no facility.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// etcd without a place.
    #[error("no endpoint of etcd is given; name at least one, such as https://10.0.0.1:2379")]
    NoEndpoint,
    /// An endpoint that cannot be one.
    #[error("the etcd endpoint {found:?} is none; expected http://host:port or https://host:port")]
    Endpoint {
        /// What was given.
        found: String,
    },
    /// Encryption where none can be, or none where it is asked for.
    #[error("the etcd endpoint {found:?} and the TLS settings do not fit: https needs `tls`, and `tls` needs https")]
    EndpointTls {
        /// What was given.
        found: String,
    },
    /// Names that would begin with anything.
    #[error(
        "the etcd prefix {found:?} cannot be used; expected letters, digits and any of / - _ . such as /phalanx/berlin"
    )]
    Prefix {
        /// What was given.
        found: String,
    },
    /// A limit that is none.
    #[error("{what} is {found}; expected {expected}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// What was given.
        found: String,
        /// What may be.
        expected: &'static str,
    },
    /// A file that cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The embedded store is in use.
    #[error("{}: another process has it open; two appliances must not share one state directory", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// The embedded store cannot be opened.
    #[error(
        "{}: {why}; if it is damaged beyond repair, remove it: all counters then start above what {} remembers",
        path.display(), crate::remembered::FILE
    )]
    Store {
        /// The store.
        path: PathBuf,
        /// What its library said.
        why: String,
    },
    /// etcd's client refuses the settings.
    #[error("the settings of etcd cannot be used: {0}")]
    Etcd(String),
    /// This program was built without etcd.
    #[error("this program was built without the feature `etcd`")]
    NoEtcd,
    /// No thread.
    #[error("the coupling facility's thread did not start: {0}")]
    Thread(std::io::Error),
    /// No randomness.
    #[error("the system's random source failed; nothing can be drawn without it")]
    Randomness,
}

impl Settings {
    /// The embedded store in this directory, with the usual limits.
    #[must_use]
    pub fn embedded(state_directory: PathBuf) -> Settings {
        Settings { state_directory, backend: Backend::Embedded, time_limit: TIME_LIMIT, queue_requests: QUEUE }
    }

    /// etcd, with the usual limits.
    #[must_use]
    pub fn etcd(state_directory: PathBuf, etcd: EtcdSettings) -> Settings {
        Settings { backend: Backend::Etcd(etcd), ..Settings::embedded(state_directory) }
    }

    /// Refuses limits that are none, and an etcd that cannot be reached or would mix with others.
    pub(crate) fn check(&self) -> Result<(Duration, usize), StartError> {
        let limit = |what, found: String, expected| Err(StartError::Limit { what, found, expected });
        if self.time_limit < Duration::from_millis(10) || self.time_limit > Duration::from_secs(60) {
            return limit("the facility's time limit", format!("{:?}", self.time_limit), "10 ms to 60 s");
        }
        if !(1..=65_536).contains(&self.queue_requests) {
            return limit("the facility's queue", self.queue_requests.to_string(), "1 to 65536 requests");
        }
        if let Backend::Etcd(etcd) = &self.backend {
            etcd.check()?;
        }
        Ok((self.time_limit, self.queue_requests))
    }
}

impl EtcdSettings {
    fn check(&self) -> Result<(), StartError> {
        if self.endpoints.is_empty() {
            return Err(StartError::NoEndpoint);
        }
        for found in &self.endpoints {
            let (is_https, rest) = match (found.strip_prefix("https://"), found.strip_prefix("http://")) {
                (Some(rest), _) => (true, rest),
                (None, Some(rest)) => (false, rest),
                (None, None) => return Err(StartError::Endpoint { found: found.clone() }),
            };
            let has_port =
                rest.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            if !has_port || rest.contains(['/', '@', ' ']) {
                return Err(StartError::Endpoint { found: found.clone() });
            }
            if is_https != self.tls.is_some() {
                return Err(StartError::EndpointTls { found: found.clone() });
            }
        }
        self.names_begin_with().map(|_| ())
    }

    /// The prefix with the one slash at its end that keeps `site1` and `site10` apart.
    pub(crate) fn names_begin_with(&self) -> Result<String, StartError> {
        let trimmed = self.prefix.trim_end_matches('/');
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
        if trimmed.is_empty() || trimmed.len() > 200 || !trimmed.bytes().all(is_known) {
            return Err(StartError::Prefix { found: self.prefix.clone() });
        }
        Ok(format!("{trimmed}/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(endpoint: &str, prefix: &str) -> EtcdSettings {
        EtcdSettings { endpoints: vec![endpoint.into()], prefix: prefix.into(), tls: None }
    }

    fn refused(etcd: EtcdSettings) -> String {
        Settings::etcd("/nowhere".into(), etcd).check().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_safe_is_refused_at_the_start() {
        let none = EtcdSettings { endpoints: vec![], ..etcd("", "/phalanx") };
        assert!(refused(none).contains("no endpoint"));
        for endpoint in
            ["10.0.0.1:2379", "http://10.0.0.1", "http://:2379", "ftp://a:1", "http://a:1/x", "http://u@a:1"]
        {
            assert!(refused(etcd(endpoint, "/phalanx")).contains(endpoint), "{endpoint}");
        }
        for prefix in ["", "/", "//", "a b", "ä"] {
            assert!(refused(etcd("http://a:1", prefix)).contains(&format!("{prefix:?}")), "{prefix}");
        }
        assert!(refused(etcd("https://a:1", "/phalanx")).contains("https needs `tls`"));
    }

    #[test]
    fn limits_are_limits() {
        let settings = Settings::embedded("/nowhere".into());
        assert!(settings.check().is_ok());
        assert!(Settings { time_limit: Duration::ZERO, ..settings.clone() }.check().is_err());
        assert!(Settings { queue_requests: 0, ..settings }.check().is_err());
    }

    #[test]
    fn one_prefix_never_begins_another() {
        let begin = |prefix: &str| etcd("http://a:1", prefix).names_begin_with().unwrap();
        assert_eq!(begin("/phalanx/site1/"), "/phalanx/site1/");
        assert!(!begin("/phalanx/site10").starts_with(&begin("/phalanx/site1")));
    }
}
