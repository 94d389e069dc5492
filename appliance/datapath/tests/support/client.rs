//! The other end of the tunnels: a client made of real SAs, mirrored.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use datapath::sas::SaTotals;
use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::engine::{self, Engine, EngineChoice};
use ipsec::esp;
use ipsec::inbound::{InboundError, InboundSa, InboundShared};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy, esp_overhead};
use ipsec::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::Selectors;
use ring::aead;
use wire::{ipv4, natt, protocol, udp};

use super::packets::{DVIPA, Flow, ip, ip_header, ip_in};

/// Wide enough that the client itself refuses nothing that is not a duplicate.
const CLIENT_WINDOW_PACKETS: u32 = 4096;

pub fn engine() -> Engine {
    engine::select(EngineChoice::Auto).unwrap().engine
}

/// A CHILD_SA to be made.
#[derive(Debug, Clone)]
pub struct SaSpec {
    pub peer: u64,
    /// The identity that the peer has shown.
    pub identity: &'static str,
    /// The client's outer address.
    pub remote: Ipv4Addr,
    pub dvipa: Ipv4Addr,
    /// Towards the appliance.
    pub spi_in: u32,
    /// Towards the client.
    pub spi_out: u32,
    /// The client's UDP port, where it sends ESP in UDP.
    pub udp_port: Option<u16>,
    pub mode: Mode,
    pub cipher: Cipher,
    pub esn: bool,
    pub window_packets: u32,
    pub local_ts: &'static str,
    pub remote_ts: &'static str,
    pub lifetime_in: Lifetime,
    pub lifetime_out: Lifetime,
    /// The core that takes the outbound numbers.
    pub home: usize,
    pub inner_mtu: u16,
    pub tell_first_packet: bool,
    /// The cluster's sender counter when the SA was made.
    pub born_at: u64,
}

impl Default for SaSpec {
    fn default() -> Self {
        SaSpec {
            peer: 1,
            identity: "client@example",
            remote: Ipv4Addr::new(198, 51, 100, 7),
            dvipa: DVIPA,
            spi_in: 0xc000_0001,
            spi_out: 0xd000_0001,
            udp_port: None,
            mode: Mode::Tunnel,
            cipher: Cipher::AesGcm128,
            esn: false,
            window_packets: 128,
            local_ts: "203.0.113.80/32",
            remote_ts: "10.7.0.0/16",
            lifetime_in: Lifetime::NONE,
            lifetime_out: Lifetime::NONE,
            home: 0,
            inner_mtu: 1400,
            tell_first_packet: false,
            born_at: 0,
        }
    }
}

impl SaSpec {
    /// The SA that follows this one at a rekeying: other numbers, other keys.
    pub fn rekeyed(&self) -> SaSpec {
        SaSpec { spi_in: self.spi_in + 0x100, spi_out: self.spi_out + 0x100, ..self.clone() }
    }

    /// Parameters of one direction, as the appliance or the client sees it.
    fn parameters(&self, spi: u32, direction: Direction, is_client: bool) -> SaParameters {
        let (dvipa, remote): (IpAddr, IpAddr) = (self.dvipa.into(), self.remote.into());
        let ts = |text: &str| vec![text.parse().unwrap()];
        let selectors = Selectors { local: ts(self.local_ts), remote: ts(self.remote_ts) };
        let (client_port, our_port) = (self.udp_port.unwrap_or(natt::PORT), natt::PORT);
        let ports = if is_client { (client_port, our_port) } else { (our_port, client_port) };
        let udp = Encapsulation::Udp { local_port: ports.0, remote_port: ports.1 };
        SaParameters {
            name: "web".into(),
            peer: PeerId(self.peer),
            peer_name: self.identity.into(),
            dvipa: if is_client { remote } else { dvipa },
            remote: if is_client { dvipa } else { remote },
            spi: Spi::new(spi).unwrap(),
            direction,
            mode: self.mode,
            encapsulation: if self.udp_port.is_some() { udp } else { Encapsulation::None },
            cipher: self.cipher,
            key: SaKey::from_keymat(self.cipher, &self.keymat(spi)).unwrap(),
            esn: self.esn,
            replay_window_packets: if is_client { CLIENT_WINDOW_PACKETS } else { self.window_packets },
            selectors,
            lifetime: match (is_client, direction) {
                (true, _) => Lifetime::NONE,
                (false, Direction::Inbound) => self.lifetime_in,
                (false, Direction::Outbound) => self.lifetime_out,
            },
            epoch: 1,
        }
    }

    /// Each direction of each SA has its own key and salt.
    fn keymat(&self, spi: u32) -> Vec<u8> {
        let byte = |at: usize| (spi >> (at % 4 * 8)) as u8 ^ (at as u8).wrapping_mul(31) ^ self.peer as u8;
        (0..self.cipher.keymat_len()).map(byte).collect()
    }

    pub fn appliance_inbound(&self, cores: usize) -> Arc<InboundShared> {
        InboundShared::new(self.parameters(self.spi_in, Direction::Inbound, false), engine(), cores as u16).unwrap()
    }

    pub fn appliance_outbound(&self) -> Arc<OutboundShared> {
        let parameters = self.parameters(self.spi_out, Direction::Outbound, false);
        OutboundShared::new(parameters, engine(), SenderNumber(self.born_at)).unwrap()
    }
}

/// A client with one CHILD_SA.
#[derive(Debug)]
pub struct Client {
    pub spec: SaSpec,
    /// Its inner address.
    pub inner: Ipv4Addr,
    sealing: Arc<OutboundShared>,
    out: OutboundSa,
    back: InboundSa,
    ivs: IvGenerator,
    exact_ivs: u64,
    /// What the appliance shares between its cores of the inbound half.
    pub inbound: Arc<InboundShared>,
    /// What each of the appliance's cores counts of the inbound half.
    pub totals_in: Arc<[Arc<SaTotals>]>,
    /// What the appliance's home core counts of the outbound half.
    pub totals_out: Arc<SaTotals>,
}

/// What came out of a frame that the appliance sent to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub inner: Vec<u8>,
    pub sequence: u64,
}

impl Client {
    pub fn new(spec: SaSpec, inbound: Arc<InboundShared>, cores: usize) -> Client {
        let sealing =
            OutboundShared::new(spec.parameters(spec.spi_in, Direction::Outbound, true), engine(), SenderNumber(0));
        let sealing = sealing.unwrap();
        let back = InboundShared::new(spec.parameters(spec.spi_out, Direction::Inbound, true), engine(), 1).unwrap();
        Client {
            inner: Ipv4Addr::new(10, 7, 0, 9),
            out: OutboundSa::new(Arc::clone(&sealing), 1, OuterPolicy::default()),
            sealing,
            back: InboundSa::new(back),
            ivs: IvGenerator::new(SenderNumber(0)),
            exact_ivs: 0xffff << 48,
            inbound,
            totals_in: SaTotals::of_cores(cores),
            totals_out: Arc::default(),
            spec,
        }
    }

    /// A conversation of this client with the web service.
    pub fn flow(&self, port: u16) -> Flow {
        Flow::to_web(self.inner, port)
    }

    /// The number of the next packet. It must not lie below one that was used.
    pub fn skip_to(&mut self, sequence: u64) {
        self.out = OutboundSa::new(Arc::clone(&self.sealing), sequence, OuterPolicy::default());
    }

    /// The outer IP packet around an inner IP packet.
    pub fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        self.seal_padded(inner, 0)
    }

    /// The same, with bytes of traffic flow confidentiality padding behind the inner packet (RFC 4303 §2.7).
    pub fn seal_padded(&mut self, inner: &[u8], tfc: usize) -> Vec<u8> {
        let room = self.sealing.overhead(inner.len() + tfc);
        let mut packet = vec![0; room.before];
        packet.extend_from_slice(inner);
        packet.resize(room.before + inner.len() + tfc + room.after, 0);
        let sealed = match self.spec.mode {
            Mode::Tunnel => self.out.encapsulate(&mut self.ivs, &mut packet, inner.len() + tfc),
            Mode::Transport => self.out.encapsulate_transport(&mut self.ivs, &mut packet, inner.len()),
        };
        let _ = sealed.unwrap();
        packet
    }

    /// The outer IP packet around any payload under any next header, which no honest client would send.
    pub fn seal_raw(&mut self, payload: &[u8], next_header: u8) -> Vec<u8> {
        let room = esp_overhead(payload.len());
        let mut packet = vec![0; room.before];
        packet.extend_from_slice(payload);
        packet.resize(packet.len() + room.after, 0);
        let _ = self.out.seal(&mut self.ivs, &mut packet, payload.len(), next_header).unwrap();
        self.encapsulated(&packet)
    }

    /// The outer IP packet around exactly this plaintext, trailer included, with exactly this number: what a broken or
    /// malicious peer could send. Made with nothing of ours but the key.
    pub fn seal_exactly(&mut self, sequence: u32, plain: &[u8]) -> Vec<u8> {
        self.exact_ivs += 1;
        let keymat = self.spec.keymat(self.spec.spi_in);
        let (key, salt) = keymat.split_at(self.spec.cipher.key_len());
        let algorithm = match self.spec.cipher {
            Cipher::AesGcm128 => &aead::AES_128_GCM,
            Cipher::AesGcm256 => &aead::AES_256_GCM,
        };
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).unwrap());
        let header = [self.spec.spi_in.to_be_bytes(), sequence.to_be_bytes()].concat();
        let iv = self.exact_ivs.to_be_bytes();
        let nonce = aead::Nonce::try_assume_unique_for_key(&[salt, &iv].concat()).unwrap();
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(nonce, aead::Aad::from(&header), &mut sealed).unwrap();
        self.encapsulated(&[&header, &iv[..], &sealed].concat())
    }

    /// The outer headers around an ESP packet.
    pub fn encapsulated(&self, esp: &[u8]) -> Vec<u8> {
        match self.spec.udp_port {
            None => ip(ip_header(self.spec.remote, self.spec.dvipa, protocol::ESP), esp),
            Some(port) => {
                let flow = Flow { src: self.spec.remote, src_port: port, dst: self.spec.dvipa, dst_port: natt::PORT };
                ip(ip_header(flow.src, flow.dst, protocol::UDP), &flow.udp_datagram(esp))
            }
        }
    }

    /// Where the ESP packet begins in what [`Client::seal`] makes.
    pub fn esp_start(&self) -> usize {
        ipv4::HEADER_LEN + if self.spec.udp_port.is_some() { udp::HEADER_LEN } else { 0 }
    }

    /// Opens a frame that the appliance sent, if it came to this client under this SA.
    pub fn try_open(&mut self, frame: &[u8]) -> Option<Result<Answer, InboundError>> {
        let packet = ip_in(frame);
        let spi = packet.get(self.esp_start()..)?.first_chunk()?;
        let is_ours = ipv4::Packet::new_checked(packet).is_ok_and(|outer| outer.dst() == self.spec.remote);
        (is_ours && *spi == self.spec.spi_out.to_be_bytes()).then(|| self.open(frame))
    }

    /// Opens a frame that the appliance sent.
    pub fn open(&mut self, frame: &[u8]) -> Result<Answer, InboundError> {
        let mut packet = ip_in(frame).to_vec();
        let outer = ipv4::Packet::new_checked(&packet[..]).unwrap();
        assert_eq!((outer.src(), outer.dst()), (self.spec.dvipa, self.spec.remote), "outer addresses");
        match self.spec.udp_port {
            None => assert_eq!(outer.protocol(), protocol::ESP),
            Some(port) => {
                let datagram = udp::Packet::new_checked(outer.payload()).unwrap();
                assert_eq!((datagram.src_port(), datagram.dst_port()), (natt::PORT, port), "outer ports");
                assert_eq!(datagram.len(), outer.payload().len());
            }
        }
        let start = self.esp_start();
        let opened = self.back.open(&mut packet[start..])?;
        if self.spec.mode == Mode::Transport {
            let mut inner = packet[..start].to_vec();
            ipsec::transport::restore(&mut inner, opened.next_header, opened.inner.len()).unwrap();
            inner.extend_from_slice(&packet[start..][opened.inner.clone()]);
            return Ok(Answer { inner, sequence: opened.sequence() });
        }
        assert_eq!(opened.next_header, esp::NEXT_HEADER_IPV4);
        Ok(Answer { inner: packet[start..][opened.inner.clone()].to_vec(), sequence: opened.sequence() })
    }
}
