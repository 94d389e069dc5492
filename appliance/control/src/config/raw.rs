//! The file as it is written: structure is checked, values are not yet understood.
//!
//! Every single value is a [`Word`]: its text and its place. So a value that is wrong is reported by us, with the
//! line, what was found and what is allowed, whatever its type; only the structure is left to serde. A key that is
//! written without a value is as good as absent.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;

/// A single value: its text and its place.
pub(super) type Word = Spanned<String>;

/// A list whose place is needed, since it must not be empty.
pub(super) type List<T> = Spanned<Vec<T>>;

/// A mapping from names that the operator chooses, in the order of the file.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) Vec<(Word, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// The whole file.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) eal: Option<Eal>,
    pub(super) cores: Option<Cores>,
    pub(super) ports: List<Port>,
    pub(super) routes: Option<Vec<Route>>,
    pub(super) dvipas: Option<Vec<Dvipa>>,
    pub(super) connections: Option<Named<Connection>>,
    pub(super) secrets: Option<Named<Secret>>,
    pub(super) static_sas: Option<Vec<StaticSa>>,
    pub(super) cluster: Option<Cluster>,
    pub(super) filters: Option<Vec<Filter>>,
    pub(super) metrics: Option<Metrics>,
    pub(super) log: Option<Log>,
}

/// `eal:`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Eal {
    pub(super) args: Option<Vec<Word>>,
    pub(super) mbufs: Option<Word>,
}

/// `cores:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cores {
    pub(super) data: List<Word>,
    pub(super) control: Option<Word>,
    pub(super) idle: Option<Word>,
    pub(super) connections: Option<Word>,
}

/// One of `ports:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: Word,
    pub(super) role: Word,
    pub(super) device: Word,
    pub(super) addresses: Option<Vec<Word>>,
    pub(super) mtu: Option<Word>,
    pub(super) vlan: Option<Word>,
    pub(super) queues: Option<Word>,
    pub(super) neighbours: Option<Vec<Neighbour>>,
}

/// One of a port's `neighbours:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Neighbour {
    pub(super) address: Word,
    pub(super) mac: Word,
}

/// One of `routes:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) to: Word,
    pub(super) via: Word,
    pub(super) port: Option<Word>,
}

/// One of `dvipas:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dvipa {
    pub(super) address: Word,
    pub(super) port: Word,
    pub(super) processing: Option<Word>,
    pub(super) outbound_sequence: Option<Word>,
    pub(super) services: Option<List<Service>>,
    pub(super) owners: Option<List<Word>>,
    pub(super) targets: Option<List<Target>>,
    pub(super) distribution: Option<Word>,
    pub(super) affinity: Option<Word>,
    pub(super) local_first: Option<Word>,
    pub(super) switch_back: Option<Word>,
    pub(super) peer_window: Option<Word>,
    pub(super) max_siblings: Option<Word>,
}

/// One of a DVIPA's `targets:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) member: Word,
    pub(super) weight: Option<Word>,
}

/// One of a DVIPA's `services:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) protocol: Word,
    pub(super) port: Word,
}

/// One of `connections:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connection {
    pub(super) version: Option<Word>,
    pub(super) local_addrs: List<Word>,
    pub(super) remote_addrs: Option<List<Word>>,
    pub(super) proposals: Option<List<Word>>,
    pub(super) local: Auth,
    pub(super) remote: Auth,
    pub(super) rekey_time: Option<Word>,
    pub(super) over_time: Option<Word>,
    pub(super) dpd_delay: Option<Word>,
    pub(super) ike_sas_per_identity: Option<Word>,
    pub(super) children: Spanned<Named<Child>>,
}

/// A connection's `local:` and `remote:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) auth: Word,
    pub(super) id: Option<Word>,
}

/// One of a connection's `children:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Child {
    pub(super) local_ts: Option<List<Word>>,
    pub(super) remote_ts: Option<List<Word>>,
    pub(super) esp_proposals: Option<List<Word>>,
    pub(super) mode: Option<Word>,
    pub(super) replay_window: Option<Word>,
    pub(super) rekey_time: Option<Word>,
    pub(super) life_time: Option<Word>,
    pub(super) rekey_bytes: Option<Word>,
    pub(super) life_bytes: Option<Word>,
    pub(super) rekey_packets: Option<Word>,
    pub(super) life_packets: Option<Word>,
}

/// One of `secrets:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    pub(super) id: Option<List<Word>>,
    pub(super) file: Word,
}

/// One of `static_sas:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StaticSa {
    pub(super) name: Word,
    pub(super) peer: Word,
    pub(super) dvipa: Word,
    pub(super) remote: Word,
    #[serde(rename = "in")]
    pub(super) inbound: Option<StaticHalf>,
    #[serde(rename = "out")]
    pub(super) outbound: Option<StaticHalf>,
    pub(super) cipher: Word,
    pub(super) mode: Option<Word>,
    pub(super) encap: Option<Word>,
    pub(super) remote_port: Option<Word>,
    pub(super) esn: Option<Word>,
    pub(super) local_ts: List<Word>,
    pub(super) remote_ts: List<Word>,
    pub(super) replay_window: Option<Word>,
    pub(super) rekey_time: Option<Word>,
    pub(super) life_time: Option<Word>,
    pub(super) rekey_bytes: Option<Word>,
    pub(super) life_bytes: Option<Word>,
    pub(super) rekey_packets: Option<Word>,
    pub(super) life_packets: Option<Word>,
}

/// A static SA's `in:` and `out:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StaticHalf {
    pub(super) spi: Word,
    pub(super) key_file: Word,
}

/// One of `filters:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    pub(super) dvipa: Word,
    pub(super) rules: List<FilterRule>,
}

/// One of a filter's `rules:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterRule {
    pub(super) action: Word,
    pub(super) protocol: Option<Word>,
    pub(super) source: Option<Word>,
    pub(super) port: Option<Word>,
}

/// `cluster:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) name: Word,
    pub(super) member: Word,
    pub(super) members: List<Member>,
    pub(super) pki: Pki,
    pub(super) trusted: Option<Trusted>,
    pub(super) facility: Facility,
    pub(super) silence: Option<Word>,
    pub(super) shadow_patience: Option<Word>,
}

/// One of the cluster's `members:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    pub(super) name: Word,
    pub(super) id: Word,
    pub(super) address: Word,
}

/// The cluster's `pki:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pki {
    pub(super) ca: Word,
    pub(super) certificate: Word,
    pub(super) key: Word,
}

/// The cluster's `trusted:`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trusted {
    pub(super) encapsulation: Option<Word>,
    pub(super) protect: Option<Word>,
}

/// The cluster's `facility:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facility {
    pub(super) backend: Word,
    pub(super) endpoints: Option<List<Word>>,
    pub(super) prefix: Option<Word>,
    pub(super) wrap_key: Word,
    pub(super) ca: Option<Word>,
    pub(super) certificate: Option<Word>,
    pub(super) key: Option<Word>,
}

/// `metrics:`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Word,
}

/// `log:`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Option<Word>,
    pub(super) format: Option<Word>,
}
