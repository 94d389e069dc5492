//! What a cluster is made of, drawn from the seed.

use core::net::IpAddr;
use core::num::NonZeroU16;
use core::time::Duration;

use cluster::dpt::Method;
use cluster::fabric::{Encapsulation, Processing, Protection};
use cluster::id::MemberId;
use cluster::member::{DvipaSettings, MemberSettings, SequencePolicy, Settings};
use control::control_core::Sharing;
use datapath::connections::Timeouts;
use ike::config::{ChildSettings, ConnectionSettings, IdentityPattern, Overlap, Psk, Secrets};
use ipsec::lifetime::{Lifetime, Limits};
use ipsec::sa::Mode;
use ipsec::selector::{SelectorTemplate, Selectors, TrafficSelector};
use ipsec::spd::{self, Action, Spd};

use crate::dice::Dice;
use crate::place::{DVIPA, trusted_address};

/// Members are numbered from 1; the first claims the address.
pub const OWNER: MemberId = MemberId(1);

/// What a member is granted of an SA at a time: the least that the longest packet needs.
pub const GRANT_BYTES: u64 = 1 << 16;

/// A cluster and its clients, as they are configured.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Appliances, the owner included.
    pub members: u16,
    /// Which of them are targets.
    pub targets: Vec<MemberId>,
    /// Data cores of each appliance.
    pub cores: usize,
    /// Clients.
    pub clients: usize,
    /// Where the IPsec work is done.
    pub processing: Processing,
    /// How outbound numbers are shared.
    pub sequence: SequencePolicy,
    /// How frames travel.
    pub encapsulation: Encapsulation,
    /// How connections are shared out.
    pub method: Method,
    /// Limits of bytes of each half of an SA.
    pub bytes: Limits,
    /// Whether sequence numbers are extended.
    pub esn: bool,
    /// The window of inbound SAs, in packets.
    pub window_packets: u32,
    /// When a silent member is given up.
    pub silence: Duration,
    /// Ages of connections.
    pub timeouts: Timeouts,
}

impl Topology {
    /// One that chance gives.
    pub fn draw(dice: &mut Dice) -> Topology {
        let members = dice.pick(&[3, 3, 3, 4, 4, 5, 6, 7]).copied().unwrap_or(3);
        let mut targets: Vec<MemberId> = (2..=members.max(3)).map(MemberId).collect();
        // Some are members and no targets; the owner may be one.
        targets.truncate(dice.between(2, targets.len() as u64) as usize);
        if dice.permille(250) {
            targets.push(OWNER);
        }
        let sequence = [SequencePolicy::Auto, SequencePolicy::Sequencer, SequencePolicy::ViaDistributor];
        let has_limit = dice.permille(500);
        // Every target and the owner, and one start that comes while another goes, must be able to carry a packet. What they
        // are granted at an SA's birth counts towards its soft limit.
        let grants = GRANT_BYTES * (targets.len() as u64 + 2);
        let soft = grants + dice.between(20_000, 100_000);
        let hard = soft + grants;
        let short = dice.millis(150, 500);
        Topology {
            members,
            targets,
            cores: dice.between(1, 2) as usize,
            clients: dice.between(1, 3) as usize,
            processing: if dice.permille(700) { Processing::Target } else { Processing::Distributor },
            sequence: dice.pick(&sequence).copied().unwrap_or_default(),
            encapsulation: if dice.permille(700) { Encapsulation::Gre } else { Encapsulation::GreInUdp },
            method: if dice.permille(700) { Method::RoundRobin } else { Method::WeightedActive },
            bytes: if has_limit { Limits { soft: Some(soft), hard: Some(hard) } } else { Limits::default() },
            esn: dice.permille(300),
            window_packets: *dice.pick(&[64, 128, 1_024]).unwrap_or(&128),
            silence: dice.millis(400, 900),
            timeouts: Timeouts {
                new: short,
                established_tcp: short * 2,
                established_other: short,
                closing: short,
                closed: Duration::from_millis(50),
            },
        }
    }

    /// Every member, by number.
    pub fn members(&self) -> impl Iterator<Item = MemberId> + use<> {
        (1..=self.members).map(MemberId)
    }

    /// What a member is told at its start.
    #[must_use]
    pub fn settings(&self, me: MemberId) -> Settings {
        let member = |id| MemberSettings { id, name: crate::pki::name_of(id).into(), address: trusted_address(id) };
        // Whoever is no target waits for a turn as the owner.
        let others = self.members().filter(|id| *id != OWNER && !self.targets.contains(id));
        let dvipa = DvipaSettings {
            address: DVIPA.into(),
            owners: [OWNER].into_iter().chain(others).collect(),
            targets: self.targets.clone(),
            processing: self.processing,
            outbound_sequence: self.sequence,
            peer_window_packets: 32,
            siblings_max: 8,
            services: Vec::new(),
        };
        Settings {
            me,
            members: self.members().map(member).collect(),
            encapsulation: self.encapsulation,
            protection: Protection::None,
            dvipas: vec![dvipa],
            shadow_patience: Duration::from_millis(500),
            silence: self.silence,
            owner_silence: self.silence * 10,
        }
    }

    /// How connections are shared out.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        Sharing {
            dvipa: DVIPA.into(),
            services: Vec::new(),
            processing: self.processing,
            outbound_sequence: self.sequence,
            method: self.method,
            affinity: None,
            is_local_first: false,
            targets: self.targets.iter().map(|&target| (target, NonZeroU16::MIN)).collect(),
        }
    }

    fn child(&self, local: &str, remote: &str, bytes: Limits) -> ChildSettings {
        ChildSettings {
            name: "web".into(),
            local_ts: parsed(local),
            remote_ts: parsed(remote),
            proposals: parsed(if self.esn { "aes128gcm16-esn" } else { "aes128gcm16" }),
            mode: Mode::Tunnel,
            lifetime: Lifetime { bytes, ..Lifetime::NONE },
            replay_window_packets: self.window_packets,
            overlap: Overlap::Report,
        }
    }

    /// The cluster's connection.
    #[must_use]
    pub fn server(&self) -> ConnectionSettings {
        ConnectionSettings {
            name: "office".into(),
            local_addrs: vec![DVIPA.into()],
            remote_addrs: Vec::new(),
            local_id: "gw.example".parse().ok(),
            remote_id: IdentityPattern::Any,
            proposals: parsed("aes128gcm16-prfsha256-x25519"),
            rekey_time: None,
            over_time: None,
            ike_sas_per_identity: None,
            dpd_delay: None,
            children: vec![self.child("192.0.2.80/32", "dynamic", self.bytes)],
        }
    }

    /// A client's connection.
    #[must_use]
    pub fn client(&self, number: usize, address: IpAddr) -> ConnectionSettings {
        let remote_id = "gw.example".parse().ok();
        ConnectionSettings {
            name: "home".into(),
            local_addrs: vec![address],
            local_id: format!("client{number}.example").parse().ok(),
            remote_id: remote_id.unwrap_or(IdentityPattern::Any),
            children: vec![self.child("dynamic", "192.0.2.80/32", Limits::default())],
            ..self.server()
        }
    }
}

fn parsed<T: core::str::FromStr>(text: &str) -> Vec<T> {
    text.parse().ok().into_iter().collect()
}

/// What the SPD says on every appliance.
#[must_use]
pub fn spd() -> Spd {
    let local = "192.0.2.80/32".parse::<SelectorTemplate>().map(|local| local.resolve(DVIPA.into()));
    let selectors = Selectors { local: local.into_iter().collect(), remote: vec![TrafficSelector::any_v4()] };
    Spd::new(vec![spd::Policy { selectors, action: Action::Protect { child: "web".into() } }])
}

/// The secret that all share.
#[must_use]
pub fn secrets() -> Secrets {
    let mut secrets = Secrets::default();
    if let Ok(psk) = Psk::new(b"a secret of the simulator".to_vec()) {
        secrets.add(Vec::new(), psk);
    }
    secrets
}
