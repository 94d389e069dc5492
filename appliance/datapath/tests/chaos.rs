//! Everything at once, in any order: true packets, copies, forgeries, noise, answers, rekeys, time, and cores that poll
//! when they like. The bench balances the books after every poll; here stands what must hold besides.

use std::collections::BTreeMap;
use std::time::Duration;

use datapath::core::Capacity;
use proptest::prelude::*;
use wire::tcp::Flags;

use crate::support::client::{Client, SaSpec};
use crate::support::packets::{ip_in, tcp_of};
use crate::support::{Bench, Setup};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A client says something on one of its conversations.
    Client { client: usize, port: u16, flags: u8, len: usize },
    /// An earlier frame comes again.
    Again { which: usize },
    /// An earlier frame comes again, changed.
    Bent { which: usize, byte: usize, mask: u8 },
    /// An earlier frame comes again, cut short.
    Short { which: usize, len: usize },
    /// Any bytes.
    Noise { bytes: Vec<u8> },
    /// The web service answers on one of the conversations.
    Web { client: usize, port: u16, flags: u8, len: usize },
    /// A client's SAs are replaced; the old inbound half stays.
    Rekey { client: usize },
    /// A client's outbound SA goes.
    Remove { client: usize },
    /// Time passes.
    Wait { seconds: u64 },
    /// The arriving core and the one after it poll.
    Poll,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let client = 0_usize..3;
    let say = (client.clone(), 5_000_u16..5_008, any::<u8>(), 0_usize..1_400);
    let step = prop_oneof![
        6 => say.clone().prop_map(|(client, port, flags, len)| Step::Client { client, port, flags, len }),
        2 => any::<usize>().prop_map(|which| Step::Again { which }),
        2 => (any::<usize>(), any::<usize>(), 1_u8..).prop_map(|(which, byte, mask)| Step::Bent { which, byte, mask }),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(which, len)| Step::Short { which, len }),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Step::Noise { bytes }),
        4 => say.prop_map(|(client, port, flags, len)| Step::Web { client, port, flags, len }),
        1 => client.clone().prop_map(|client| Step::Rekey { client }),
        1 => client.prop_map(|client| Step::Remove { client }),
        1 => (0_u64..10_000).prop_map(|seconds| Step::Wait { seconds }),
        4 => Just(Step::Poll),
    ];
    prop::collection::vec((0_usize..3, step), 1..150)
}

/// The world of one run.
struct World {
    bench: Bench,
    clients: Vec<Client>,
    /// SAs that were replaced, to open what is still under way on them.
    former: Vec<Client>,
    /// Every frame that came in by the network port.
    captured: Vec<Vec<u8>>,
    /// What the clients said inside, each a payload of its own.
    said: BTreeMap<Vec<u8>, u32>,
    /// What the service answered.
    answered: BTreeMap<Vec<u8>, u32>,
    serial: u32,
}

impl World {
    fn new(cores: usize) -> World {
        // Small enough for every shortage to happen.
        let capacity = Capacity { connections: 16, sas: 32, handover: 8 };
        let mut bench = Bench::with(Setup { capacity, ..Setup::of(cores) });
        let clients = (0..3_u8).map(|number| {
            let mut client = bench.connect(SaSpec {
                peer: u64::from(number) + 1,
                spi_in: 0xc000_0001 + u32::from(number),
                spi_out: 0xd000_0001 + u32::from(number),
                remote: [198, 51, 100, number].into(),
                udp_port: (number == 1).then_some(4500),
                esn: number == 2,
                home: usize::from(number) % cores,
                ..SaSpec::default()
            });
            client.inner = [10, 7, 0, number].into();
            client
        });
        let clients = clients.collect();
        let (captured, said, answered) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        World { bench, clients, former: Vec::new(), captured, said, answered, serial: 0 }
    }

    /// A payload that no other packet has.
    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.serial += 1;
        let mut payload = self.serial.to_be_bytes().to_vec();
        payload.resize(4 + len.min(1_300), 0x5a);
        payload
    }

    fn arrives(&mut self, core: usize, frame: Vec<u8>) {
        self.bench.network_frame(core, &frame);
        self.captured.push(frame);
    }

    fn captured(&self, which: usize) -> Option<Vec<u8>> {
        self.captured.get(which.checked_rem(self.captured.len())?).cloned()
    }

    fn take(&mut self, core: usize, step: Step) {
        let core = core % self.bench.cores();
        match step {
            Step::Client { client, port, flags, len } => {
                let payload = self.payload(len);
                let client = &mut self.clients[client];
                let inner = client.flow(port).tcp(Flags::from_bits(flags), &payload);
                let frame = crate::support::packets::from_router(&client.seal(&inner));
                self.said.insert(payload, 0);
                self.arrives(core, frame);
            }
            Step::Again { which } => {
                if let Some(frame) = self.captured(which) {
                    self.arrives(core, frame);
                }
            }
            Step::Bent { which, byte, mask } => {
                if let Some(mut frame) = self.captured(which).filter(|frame| !frame.is_empty()) {
                    let at = byte % frame.len();
                    frame[at] ^= mask;
                    self.arrives(core, frame);
                }
            }
            Step::Short { which, len } => {
                if let Some(mut frame) = self.captured(which) {
                    frame.truncate(len % (frame.len() + 1));
                    self.arrives(core, frame);
                }
            }
            Step::Noise { bytes } => self.arrives(core, bytes),
            Step::Web { client, port, flags, len } => {
                let payload = self.payload(len);
                let answer = self.clients[client].flow(port).answer().tcp(Flags::from_bits(flags), &payload);
                self.answered.insert(payload, 0);
                self.bench.web_sends(core, &answer);
            }
            Step::Rekey { client } => {
                let spec = self.clients[client].spec.rekeyed();
                let mut new = self.bench.connect(spec);
                new.inner = self.clients[client].inner;
                self.former.push(std::mem::replace(&mut self.clients[client], new));
            }
            Step::Remove { client } => {
                let Client { spec, .. } = &self.clients[client];
                let spec = spec.clone();
                let (peer, spi) = (ipsec::sa::PeerId(spec.peer), ipsec::Spi::new(spec.spi_out).unwrap());
                self.bench.command_all(|| datapath::mailbox::Command::RemoveOutbound { peer, spi });
            }
            Step::Wait { seconds } => self.bench.advance(Duration::from_secs(seconds)),
            Step::Poll => {
                self.bench.poll(core);
                self.bench.poll((core + 1) % self.bench.cores());
            }
        }
    }

    /// Delivered is only what a client said, once.
    fn check_delivered(&mut self) -> Result<(), TestCaseError> {
        for sent in self.bench.take_delivered() {
            let payload = tcp_of(ip_in(&sent.bytes)).payload().to_vec();
            let count = self.said.get_mut(&payload);
            prop_assert!(count.is_some(), "nobody said this");
            *count.unwrap() += 1;
        }
        prop_assert!(self.said.values().all(|&count| count <= 1), "delivered twice");
        Ok(())
    }

    /// Sent is only ESP, and its clients open it: every number once, every answer once.
    fn check_sent(&mut self) -> Result<(), TestCaseError> {
        for sent in self.bench.take_sent() {
            let mut clients = self.clients.iter_mut().chain(&mut self.former);
            let opened = clients.find_map(|client| client.try_open(&sent.bytes));
            let Some(Ok(answer)) = opened else { return Err(TestCaseError::fail(format!("{opened:?}"))) };
            let payload = tcp_of(&answer.inner).payload().to_vec();
            let count = self.answered.get_mut(&payload);
            prop_assert!(count.is_some(), "nobody answered this");
            *count.unwrap() += 1;
        }
        prop_assert!(self.answered.values().all(|&count| count <= 1), "sent twice");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_nothing_is_forged_doubled_lost_or_leaked(cores in 1_usize..4, steps in steps()) {
        let mut world = World::new(cores);
        for (core, step) in steps {
            world.take(core, step);
        }
        world.bench.settle();
        world.check_delivered()?;
        world.check_sent()?;
        let connections = world.bench.connections();
        prop_assert!(connections.len() <= 16 * cores);
        for (core, connection) in connections {
            prop_assert_eq!(core, world.bench.owner(&connection.flow));
            prop_assert!((1..=3).contains(&connection.peer.0));
        }
        // A day later nothing is left, and everything still works.
        world.bench.advance(Duration::from_secs(86_400));
        (0..4).for_each(|_| world.bench.settle());
        prop_assert!(world.bench.connections().is_empty());
        let flow = world.clients[0].flow(6_000);
        let packet = world.clients[0].seal(&flow.tcp(Flags::SYN, b"the day after"));
        world.bench.client_sends(0, &packet);
        world.bench.settle();
        prop_assert_eq!(world.bench.take_delivered().len(), 1);
    }
}
