//! The configuration file: raw YAML, then a validated [`Config`], by consuming the raw form.
//!
//! **Purpose.** What an operator writes becomes values that the rest of the program can trust without looking again:
//! names resolve, addresses do not overlap, numbers are in range, secrets are read.
//!
//! **Promises.**
//! - Whatever is refused is told with file, line, what was found and what is allowed ([`ConfigError`]).
//! - A configuration is taken as a whole or not at all.
//! - No text, however hostile, panics or takes more than bounded time and memory.
//! - Secrets come from files that only their owner can read, are wiped when dropped, and stand in no message.
//!
//! **What it never does.** It opens no device or socket, and does not change anything outside.

mod connections;
mod cores;
mod dvipas;
mod error;
mod filters;
mod identity;
mod lifetime;
mod membership;
mod output;
mod place;
mod ports;
mod proposals;
mod raw;
mod routes;
mod secret_file;
mod secrets;
mod static_sas;
mod word;
mod yaml;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

pub use cores::{Cores, DATA_CORES_MAX, Eal, Idle};
pub use dvipas::{Dvipa, DvipaTarget, SERVICES_MAX, Service, ServiceProtocol};
pub use error::{ConfigError, Fault, Warning};
pub use filters::FILTER_RULES_MAX;
pub use membership::{Cluster, Facility, FacilityTls, MEMBERS_MAX, Pki};
pub use output::{Log, LogFormat, LogLevel, Metrics};
pub use ports::{Neighbour, PORT_ADDRESSES_MAX, PORTS_MAX, Port, PortAddress, Role};
pub use routes::Route;
pub use secret_file::{Refusal, SECRET_FILE_LEN_MAX, SecretBytes, read as read_secret_file};
pub use static_sas::{STATIC_SAS_MAX, StaticSa};

use datapath::policy::Filter;
use ike::config::{Connection, Secrets};

use place::Place;
use ports::OwnAddresses;

/// A configuration that holds together.
#[derive(Debug)]
pub struct Config {
    /// What DPDK is started with.
    pub eal: Eal,
    /// Which processor cores do what.
    pub cores: Cores,
    /// The DPDK devices, at least one.
    pub ports: Vec<Port>,
    /// Where packets go that no port's link holds.
    pub routes: Vec<Route>,
    /// The virtual addresses.
    pub dvipas: Vec<Dvipa>,
    /// What of clients' packets goes on to the application hosts; everything, to a DVIPA without one.
    pub filters: Vec<Filter>,
    /// Whom IKE talks to, the first that fits is taken.
    pub connections: Vec<Connection>,
    /// Pre-shared keys.
    pub secrets: Secrets,
    /// SAs without IKE. For laboratories.
    pub static_sas: Vec<StaticSa>,
    /// What makes this appliance one of several.
    pub cluster: Option<Cluster>,
    /// Where Prometheus may ask.
    pub metrics: Option<Metrics>,
    /// What is logged.
    pub log: Log,
    /// What the operator should know, though it is accepted.
    pub warnings: Vec<Warning>,
}

/// Whence a configuration takes what does not stand in its text.
struct Sources<'a> {
    /// Relative file names start here.
    directory: &'a Path,
    read_secret: &'a mut dyn FnMut(&Path) -> Result<SecretBytes, Refusal>,
}

impl Config {
    /// Reads and validates a configuration file, and the secrets that it names.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name: Arc<str> = path.display().to_string().into();
        let (text, open_to_others) = read_text(path, &name)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let sources = Sources { directory, read_secret: &mut read_secret_file };
        let mut config = Self::build(&text, &name, sources)?;
        if open_to_others {
            let text = "others than its owner can change this file, and with it whom the appliance trusts".to_owned();
            config.warnings.insert(0, Warning { file: name, line: 0, text });
        }
        Ok(config)
    }

    /// Validates a text as [`Config::load`] does a file, without touching any: `read_secret` gives the content of the
    /// files that the text names. `file` is only named in messages.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn parse(
        text: &str,
        file: &str,
        mut read_secret: impl FnMut(&Path) -> Result<SecretBytes, Refusal>,
    ) -> Result<Self, ConfigError> {
        let sources = Sources { directory: Path::new(""), read_secret: &mut read_secret };
        Self::build(text, &file.into(), sources)
    }

    fn build(text: &str, file: &Arc<str>, mut sources: Sources<'_>) -> Result<Self, ConfigError> {
        let raw = yaml::read(text, file)?;
        let top = Place::top(file);
        let mut warnings = Vec::new();
        let mut own = OwnAddresses::default();
        let eal = cores::validate_eal(&top, raw.eal)?;
        let cores = cores::validate_cores(&top, raw.cores, &mut warnings)?;
        let ports = ports::validate(&top, raw.ports, &cores, &mut own)?;
        let cluster = membership::validate(&top, raw.cluster, &ports, &own, &mut sources)?;
        let dvipas = dvipas::validate(&top, raw.dvipas, &ports, cluster.as_ref(), &mut own)?;
        let filters = filters::validate(&top, raw.filters, &dvipas)?;
        let routes = routes::validate_routes(&top, raw.routes, &ports, &own)?;
        let keyring = secrets::validate(&top, raw.secrets, &mut sources, &mut warnings)?;
        let connections = connections::validate(&top, raw.connections, &own, &keyring, &mut warnings)?;
        let static_sas = static_sas::validate(&top, raw.static_sas, &dvipas, &mut sources, &mut warnings)?;
        let metrics = output::validate_metrics(&top, raw.metrics)?;
        let log = output::validate_log(&top, raw.log)?;
        let secrets = keyring.secrets;
        Ok(Self {
            eal,
            cores,
            ports,
            routes,
            dvipas,
            filters,
            connections,
            secrets,
            static_sas,
            cluster,
            metrics,
            log,
            warnings,
        })
    }
}

/// The text of a file, and whether others than its owner can change it.
fn read_text(path: &Path, name: &Arc<str>) -> Result<(String, bool), ConfigError> {
    let unreadable = |found: String| {
        let mut fault = yaml::whole_file(name, found, "a file that we can read, in UTF-8".into());
        fault.remedy = "see `phalanx help` for how to name another".into();
        ConfigError::Unreadable(fault)
    };
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| unreadable(error.to_string()))?;
    if metadata.is_dir() {
        return Err(unreadable("a directory".into()));
    }
    // Bounded, for it may be a device; yaml::read() refuses what is longer than it takes.
    let mut bytes = Vec::new();
    let bound = yaml::TEXT_LEN_MAX as u64 + 1;
    file.take(bound).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(format!("broken UTF-8: {}", error.utf8_error())))?;
    Ok((text, metadata.is_file() && metadata.mode() & 0o022 != 0))
}
