//! What makes this appliance one of several: its registration, its certificate, its member, from its configuration.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cluster::facility::start::FreshStart;
use cluster::facility::wrap::{Sealer, WrapError, WrapKey};
use cluster::id::{Incarnation, MemberId};
use cluster::member::{DvipaSettings, Member, ServicePort, Settings};
use cluster::message::{OLDEST_VERSION, VERSION};
use control::config::{self, Config, Role};
use control::control_core::{ClusterParts, LinkParts, ProbedService, Sharing};
use control::stack::{HEARTBEAT_PORT, TrustedSettings, XCF_PORT};
use datapath::routes::PortId;
use ipsec::iv::SenderNumber;
use ipsec::time::Instant;
use xcf::{
    Identity, IdentityError, Mesh, MeshSettings, Moment, Name, NameError, Part, PartMember, PemFile, Timing, Versions,
};

/// A target stops sending when its owner has been silent for so many times what makes a member lost.
const OWNER_SILENCE_FACTOR: u32 = 10;

/// Why this appliance cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The wrap key makes no cipher.
    #[error("{0}")]
    Wrap(#[from] WrapError),
    /// The certificates are not what they should be.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// The certificates do not fit the configuration.
    #[error("{0}")]
    Part(#[from] xcf::PartError),
    /// A name that no certificate can carry.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A file that cannot be read.
    #[error("{path}: {error}; `phalanx pki issue` makes the files that `cluster.pki:` names")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The clock stands before 1970.
    #[error("the system's clock stands before 1970: set it, certificates are valid by it")]
    Clock,
}

/// A start that the cluster knows of.
pub struct Joined {
    incarnation: Incarnation,
    sealer: Sealer,
    /// Where the cluster's sender counter stood.
    born_at: SenderNumber,
}

/// Whether the certificates fit the configuration, as far as that shows before a start.
///
/// # Errors
/// [`ClusterError`].
pub fn check(cluster: &config::Cluster) -> Result<(), ClusterError> {
    mesh_settings(cluster, Incarnation(0)).map(drop)
}

/// Makes a start that was registered ready to be a member.
///
/// # Errors
/// [`ClusterError`].
pub fn join(
    cluster: &config::Cluster,
    incarnation: Incarnation,
    fresh: FreshStart,
    born_at: SenderNumber,
) -> Result<Joined, ClusterError> {
    let sealer = Sealer::new(&WrapKey::new(&cluster.facility.wrap_key), fresh)?;
    Ok(Joined { incarnation, sealer, born_at })
}

impl Joined {
    /// Where the numbers of this start's peers begin: no other start of any member has the same.
    pub fn peer_base(&self) -> u64 {
        self.incarnation.0 << 32
    }

    /// What the control core is told. `now` is the appliance's clock.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn parts(
        self,
        config: &Config,
        cluster: &config::Cluster,
        now: Instant,
        seeds: [[u8; 32]; 2],
    ) -> Result<ClusterParts, ClusterError> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| ClusterError::Clock)?.as_secs();
        let since_zero = now.saturating_since(Instant::ZERO).as_secs();
        let moment = Moment { at: now, unix_seconds: unix };
        let settings = settings(config, cluster);
        let mesh = Mesh::new(moment, mesh_settings(cluster, self.incarnation)?, seeds[0])?;
        let member = Member::new(now, settings.clone(), self.incarnation, self.born_at, self.sealer, seeds[1]);
        Ok(ClusterParts {
            name: Arc::clone(&cluster.name),
            member,
            links: LinkParts { mesh, unix_seconds_at_zero: unix.saturating_sub(since_zero) },
            facility: "etcd",
            settings,
            sharing: config.dvipas.iter().map(sharing).collect(),
            probes: probes(config, cluster.me),
        })
    }
}

fn mesh_settings(cluster: &config::Cluster, incarnation: Incarnation) -> Result<MeshSettings, ClusterError> {
    let identity = Arc::new(identity(&cluster.pki)?);
    let member =
        |member: &cluster::member::MemberSettings| Ok(PartMember { id: member.id, name: Name::new(&member.name)? });
    let members = cluster.members.iter().map(member).collect::<Result<_, NameError>>()?;
    let versions = Versions { min: OLDEST_VERSION, max: VERSION };
    let part = Part::new(identity, Name::new(&cluster.name)?, cluster.me, incarnation, versions, members)?;
    let others = cluster.members.iter().filter(|member| member.id != cluster.me);
    let addresses = others.map(|member| (member.id, SocketAddr::new(member.address, XCF_PORT))).collect();
    Ok(MeshSettings { part, addresses, timing: Timing::default() })
}

fn identity(pki: &config::Pki) -> Result<Identity, ClusterError> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| ClusterError::File { path: path.clone(), error });
    let (ca, certificate) = (read(&pki.ca)?, read(&pki.certificate)?);
    let (ca_path, certificate_path) = (pki.ca.display().to_string(), pki.certificate.display().to_string());
    let identity = Identity::from_pem(
        PemFile { path: &ca_path, contents: &ca },
        PemFile { path: &certificate_path, contents: &certificate },
        PemFile { path: "cluster.pki.key", contents: pki.key.expose() },
    )?;
    Ok(identity)
}

fn settings(config: &Config, cluster: &config::Cluster) -> Settings {
    Settings {
        me: cluster.me,
        members: cluster.members.clone(),
        encapsulation: cluster.encapsulation,
        protection: cluster.protection,
        dvipas: config.dvipas.iter().map(dvipa_settings).collect(),
        shadow_patience: cluster.shadow_patience,
        silence: cluster.silence,
        owner_silence: cluster.silence * OWNER_SILENCE_FACTOR,
    }
}

fn dvipa_settings(dvipa: &config::Dvipa) -> DvipaSettings {
    DvipaSettings {
        address: dvipa.address,
        owners: dvipa.owners.clone(),
        targets: dvipa.targets.iter().map(|target| target.member).collect(),
        processing: dvipa.processing,
        outbound_sequence: dvipa.outbound_sequence,
        peer_window_packets: dvipa.peer_window_packets,
        siblings_max: dvipa.siblings_max,
        services: services(dvipa),
    }
}

fn services(dvipa: &config::Dvipa) -> Vec<ServicePort> {
    dvipa
        .services
        .iter()
        .map(|service| ServicePort { protocol: service.protocol.number(), port: service.port })
        .collect()
}

fn sharing(dvipa: &config::Dvipa) -> Sharing {
    let weight =
        |target: &config::DvipaTarget| (target.member, NonZeroU16::new(target.weight).unwrap_or(NonZeroU16::MIN));
    Sharing {
        dvipa: dvipa.address,
        services: services(dvipa),
        processing: dvipa.processing,
        outbound_sequence: dvipa.outbound_sequence,
        method: dvipa.distribution.method,
        affinity: dvipa.distribution.affinity,
        is_local_first: dvipa.distribution.local_first,
        targets: dvipa.targets.iter().map(weight).collect(),
    }
}

/// What is probed from here: the services of the DVIPAs that this member serves, where a route leads to their hosts.
fn probes(config: &Config, me: MemberId) -> Vec<ProbedService> {
    let served = config.dvipas.iter().filter(|dvipa| dvipa.targets.iter().any(|target| target.member == me));
    let of = |dvipa: &config::Dvipa| {
        let all: Vec<Option<ServicePort>> = match services(dvipa) {
            services if services.is_empty() => vec![None],
            services => services.into_iter().map(Some).collect(),
        };
        let (dvipa, way) = (dvipa.address, way_inside(config, dvipa.address));
        let probed = move |service| way.map(|(port, from)| ProbedService { dvipa, service, port, from });
        all.into_iter().filter_map(probed)
    };
    served.flat_map(of).collect()
}

/// The inside port that leads to an address, and our own address there.
fn way_inside(config: &Config, to: IpAddr) -> Option<(PortId, IpAddr)> {
    let leads = |route: &&config::Route| route.to.contains(to) && config.ports[route.port].role == Role::Inside;
    let narrowest = |route: &&config::Route| route.to.as_prefix().map_or(0, |(_, bits)| bits);
    let route = config.routes.iter().filter(leads).max_by_key(narrowest)?;
    let own = config.ports[route.port].addresses.iter().find(|own| own.network().contains(route.via))?;
    Some((PortId(route.port as u16), own.address))
}

/// The trusted port, as the IP stack is told of it.
pub fn trusted(cluster: &config::Cluster) -> Option<TrustedSettings> {
    let me = cluster.members.iter().find(|member| member.id == cluster.me)?;
    let others = cluster.members.iter().filter(|member| member.id != cluster.me);
    Some(TrustedSettings {
        port: PortId(cluster.port as u16),
        address: me.address,
        members: others.map(|member| member.address).collect(),
        xcf_port: XCF_PORT,
        heartbeat_port: HEARTBEAT_PORT,
    })
}
