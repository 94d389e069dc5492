//! A cluster in which everything happens at once and in any order: what clients say, copies of it, copies of frames,
//! forgeries, time, freeings, losses. The books of every member are balanced after every poll; here stands what must hold
//! besides: nothing is delivered twice, wherever, and nothing that nobody said.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::fabric::Processing;
use cluster::id::Incarnation;
use datapath::core::Capacity;
use datapath::mailbox::Command;
use ipsec::inbound::InboundError;
use proptest::prelude::*;
use wire::tcp::Flags;

use crate::support::Setup;
use crate::support::client::{Client, SaSpec};
use crate::support::cluster::Cluster;
use crate::support::packets::{ip_in, tcp_of};

#[derive(Debug, Clone)]
enum Step {
    /// A client says something.
    Client {
        client: usize,
        port: u16,
        flags: u8,
        len: usize,
    },
    /// A client's packet comes again.
    Again {
        which: usize,
    },
    /// It comes again, changed.
    Bent {
        which: usize,
        byte: usize,
        mask: u8,
    },
    /// A frame between members comes again, to whom it went or to another.
    Frame {
        which: usize,
        to: usize,
    },
    /// It comes again, changed.
    BentFrame {
        which: usize,
        byte: usize,
        mask: u8,
    },
    /// Somebody's application host answers.
    Web {
        at: usize,
        client: usize,
        port: u16,
        flags: u8,
    },
    /// Time passes.
    Wait {
        millis: u64,
    },
    /// Frames are kept back from now on, or let go.
    Hold,
    /// A target's ended connections are freed.
    Free {
        at: usize,
    },
    /// The owner asks a target for what it routes there.
    Verify {
        at: usize,
    },
    /// A target is lost, and comes again as another start.
    Lose {
        at: usize,
    },
    /// A core polls.
    Poll {
        at: usize,
        core: usize,
    },
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let port = 5_000_u16..5_004;
    let flags = prop::sample::select(vec![0x02_u8, 0x10, 0x10, 0x18, 0x11, 0x04]);
    let (which, byte, mask) = (any::<usize>(), any::<usize>(), 1_u8..);
    let step = prop_oneof![
        8 => (0_usize..2, port.clone(), flags.clone(), 0_usize..1_000)
            .prop_map(|(client, port, flags, len)| Step::Client { client, port, flags, len }),
        5 => which.prop_map(|which| Step::Again { which }),
        2 => (which, byte, mask.clone()).prop_map(|(which, byte, mask)| Step::Bent { which, byte, mask }),
        3 => (which, 0_usize..3).prop_map(|(which, to)| Step::Frame { which, to }),
        1 => (which, byte, mask).prop_map(|(which, byte, mask)| Step::BentFrame { which, byte, mask }),
        3 => (0_usize..3, 0_usize..2, port, flags).prop_map(|(at, client, port, flags)| Step::Web { at, client, port, flags }),
        2 => prop::sample::select(vec![1_u64, 40, 11_000, 31_000]).prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::Hold),
        3 => (0_usize..3).prop_map(|at| Step::Free { at }),
        1 => (0_usize..3).prop_map(|at| Step::Verify { at }),
        1 => (1_usize..3).prop_map(|at| Step::Lose { at }),
        4 => (0_usize..3, 0_usize..3).prop_map(|(at, core)| Step::Poll { at, core }),
        4 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..120)
}

struct World {
    cluster: Cluster,
    clients: Vec<Client>,
    captured: Vec<Vec<u8>>,
    frames: Vec<Vec<u8>>,
    /// What clients said, and how often it was delivered.
    said: BTreeMap<Vec<u8>, u32>,
    serial: u32,
    /// Freeings that were reported for each member, and not acknowledged.
    starts: u64,
}

impl World {
    fn new(cores: usize, processing: Processing) -> World {
        let capacity = Capacity { connections: 12, sas: 32, handover: 8 };
        let mut cluster = Cluster::with(3, Setup { capacity, ..Setup::of(cores) });
        cluster.processing = processing;
        cluster.seats[0].is_target = true;
        cluster.announce();
        let clients = (0..2_u8).map(|number| {
            // Both have one inner address, as clients behind different NATs do.
            cluster.connect(SaSpec {
                peer: u64::from(number) + 1,
                spi_in: 0xc000_0001 + u32::from(number),
                spi_out: 0xd000_0001 + u32::from(number),
                remote: [198, 51, 100, number].into(),
                udp_port: (number == 1).then_some(4500),
                esn: number == 1,
                ..SaSpec::default()
            })
        });
        let clients = clients.collect();
        World {
            cluster,
            clients,
            captured: Vec::new(),
            frames: Vec::new(),
            said: BTreeMap::new(),
            serial: 0,
            starts: 0,
        }
    }

    fn pick(of: &[Vec<u8>], which: usize) -> Option<Vec<u8>> {
        of.get(which.checked_rem(of.len())?).cloned()
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Client { client, port, flags, len } => {
                self.serial += 1;
                let mut payload = self.serial.to_be_bytes().to_vec();
                payload.resize(4 + len, 0x5a);
                let client = &mut self.clients[client];
                let packet = client.seal(&client.flow(port).tcp(Flags::from_bits(flags), &payload));
                self.said.insert(payload, 0);
                self.cluster.client_sends(&packet);
                self.captured.push(packet);
            }
            Step::Again { which } => {
                World::pick(&self.captured, which).into_iter().for_each(|packet| self.cluster.client_sends(&packet));
            }
            Step::Bent { which, byte, mask } => {
                if let Some(mut packet) = World::pick(&self.captured, which) {
                    let at = byte % packet.len();
                    packet[at] ^= mask;
                    self.cluster.client_sends(&packet);
                }
            }
            // What is plain on the trusted wire is only as true as that wire: nothing there is bent.
            Step::BentFrame { .. } if self.cluster.processing == Processing::Distributor => {}
            Step::Frame { which, to } => {
                if let Some(frame) = World::pick(&self.frames, which) {
                    self.cluster.trusted_frame(to, &frame);
                }
            }
            Step::BentFrame { which, byte, mask } => {
                if let Some(mut frame) = World::pick(&self.frames, which) {
                    let at = byte % frame.len();
                    frame[at] ^= mask;
                    let to = usize::from(frame[5].saturating_sub(1)).min(2);
                    self.cluster.trusted_frame(to, &frame);
                }
            }
            Step::Web { at, client, port, flags } => {
                let answer = self.clients[client].flow(port).answer().tcp(Flags::from_bits(flags), b"answer");
                self.cluster.web_sends(at, &answer);
            }
            Step::Wait { millis } => self.cluster.advance(Duration::from_millis(millis)),
            Step::Hold if self.cluster.intercepted.is_some() => self.cluster.release(),
            Step::Hold => self.cluster.intercepted = Some(Vec::new()),
            Step::Free { at } => {
                // The grace: what the target had accepted when it stopped is in what it reports.
                self.cluster.pass(Duration::from_millis(100));
                self.cluster.free(at);
            }
            Step::Verify { at } => {
                let routed = self.cluster.all_routes();
                let of_target = routed.iter().filter(|(_, route)| usize::from(route.target.0) == at + 1);
                let keys: Vec<_> = of_target.map(|(key, _)| *key).collect();
                self.cluster.members[at].command_all(|| Command::Verify(keys.clone()));
            }
            Step::Lose { at } => self.lose(at),
            Step::Poll { at, core } => {
                let bench = &mut self.cluster.members[at];
                bench.poll(core % bench.cores());
                self.carry();
            }
            Step::Settle => {
                self.carry();
                self.cluster.settle();
            }
        }
        self.check()
    }

    /// A target is lost: frames to it stop, all SAs are sealed, and then its entries are lost. It comes again empty.
    fn lose(&mut self, at: usize) {
        self.starts += 1;
        self.cluster.seats[at].is_member = false;
        self.cluster.announce_to(0);
        self.cluster.advance(Duration::from_millis(1));
        for spec in self.clients.iter().map(|client| client.spec.spi_in).collect::<Vec<_>>() {
            let now = self.cluster.members[0].now;
            self.cluster.shadow(spec, 0).inbound.seal(now);
        }
        self.cluster.seats[at].is_member = true;
        self.cluster.seats[at].incarnation = Incarnation(1_000 + self.starts);
        self.cluster.announce();
        // What it had is forgotten, also its windows: the shadow of a new start has seen nothing.
        self.cluster.members[at].command_all(|| Command::ResetWindows);
        self.cluster.members[at].settle();
    }

    /// Frames go on their way; copies of some are kept.
    fn carry(&mut self) {
        for bench in &self.cluster.members {
            self.frames.extend(bench.relayed.iter().map(|sent| sent.bytes.clone()));
        }
        self.cluster.carry();
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for at in 0..3 {
            for frame in self.cluster.delivered(at) {
                let payload = tcp_of(ip_in(&frame)).payload().to_vec();
                let count = self.said.get_mut(&payload);
                prop_assert!(count.is_some(), "nobody said this");
                *count.unwrap() += 1;
            }
            for frame in self.cluster.sent(at) {
                let opened = self.clients.iter_mut().find_map(|client| client.try_open(&frame));
                // Members number far apart here, so a client may find the lower ones old.
                let is_right = matches!(opened, Some(Ok(_) | Err(InboundError::TooOld)));
                prop_assert!(is_right, "{:?}", opened);
            }
        }
        prop_assert!(self.said.values().all(|&count| count <= 1), "delivered twice");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_happens_no_member_delivers_what_any_has_delivered(
        cores in 1_usize..4, by_distributor: bool, steps in steps(),
    ) {
        let processing = if by_distributor { Processing::Distributor } else { Processing::Target };
        let mut world = World::new(cores, processing);
        for step in steps {
            world.take(step)?;
        }
        world.cluster.release();
        world.cluster.settle();
        world.check()?;
        // Everything comes once more, after everything has ended and was freed.
        world.cluster.pass(Duration::from_secs(10_000));
        (0..3).for_each(|at| _ = world.cluster.free(at));
        for packet in world.captured.clone() {
            world.cluster.client_sends(&packet);
            world.cluster.settle();
        }
        world.check()?;
    }
}
