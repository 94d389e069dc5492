//! The coupling facility of this appliance: a file of its own, or the cluster's etcd.

use std::path::Path;
use std::time::Duration;

use cluster::facility::start::Started;
use cluster::id::MemberId;
use control::config::Config;
use facility::{EtcdSettings, Facility, RegisterError, Registration, Settings, StartError, TlsSettings};
use tracing::info;

/// The number of an appliance that stands alone.
const ALONE: MemberId = MemberId(0);

/// How long a start waits for a facility that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no coupling facility.
#[derive(Debug, thiserror::Error)]
pub enum FacilityError {
    /// It did not start.
    #[error("coupling facility: {0}")]
    Start(#[from] StartError),
    /// This start could not be registered in it.
    #[error("coupling facility: {0}")]
    Register(#[from] RegisterError),
}

/// Starts the facility and registers this start of the appliance, which draws its sender numbers. Waits.
///
/// # Errors
/// [`FacilityError`]; without it nothing may be encrypted.
pub fn open(config: &Config, state: &Path, senders: u32) -> Result<(Facility, Started), FacilityError> {
    let me = config.cluster.as_ref().map_or(ALONE, |cluster| cluster.me);
    let mut facility = Facility::start(settings(config, state))?;
    let started = facility.register(Registration { me, senders, patience: PATIENCE })?;
    info!(member = %me, incarnation = %started.incarnation, senders = ?started.senders, "registered");
    Ok((facility, started))
}

fn settings(config: &Config, state: &Path) -> Settings {
    let Some(cluster) = &config.cluster else { return Settings::embedded(state.to_owned()) };
    let etcd = &cluster.facility;
    let tls = etcd.tls.as_ref().map(|tls| TlsSettings {
        authority: tls.ca.clone(),
        identity: tls.client.clone(),
        server_name: None,
    });
    let etcd = EtcdSettings { endpoints: etcd.endpoints.clone(), prefix: etcd.prefix.clone(), tls };
    Settings::etcd(state.to_owned(), etcd)
}
