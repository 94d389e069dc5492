//! Every configuration that we hand out is right, and says what its comments promise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the point of a test")]

mod config_support;

use std::fs;
use std::path::{Path, PathBuf};

use config_support::secret;
use control::config::{Config, Idle, Role};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

fn example(name: &str) -> Config {
    let text = fs::read_to_string(directory().join(name)).unwrap();
    Config::parse(&text, name, secret).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn no_example_is_forgotten_here() {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut examples: Vec<String> = files.filter(|name| name.ends_with(".yaml") && name != "alerts.yaml").collect();
    examples.sort();
    assert_eq!(examples, ["distributor.yaml", "lab-static.yaml", "one.yaml", "target.yaml"]);
}

#[test]
fn one_appliance_in_production() {
    let config = example("one.yaml");
    assert_eq!(config.warnings, []);
    assert_eq!(config.cores.idle, Idle::Spin);
    assert!(!config.cores.data.contains(&config.cores.control));
    assert_eq!(config.ports.iter().map(|port| port.role).collect::<Vec<_>>(), [Role::Network, Role::Inside]);
    // Clients are reached through the network port, the service through the inside port.
    let port_of = |to: &str| config.routes.iter().find(|route| route.to.to_string() == to).unwrap().port;
    assert_eq!((port_of("0.0.0.0/0"), port_of("203.0.113.80/32")), (0, 1));
    assert_eq!(config.dvipas[0].services.len(), 2);
    assert!(config.static_sas.is_empty());
}

/// The two configurations describe one cluster, so they agree on all that members must agree on.
#[test]
fn a_distributor_and_a_target() {
    let (distributor, target) = (example("distributor.yaml"), example("target.yaml"));
    assert_eq!((&distributor.warnings, &target.warnings), (&vec![], &vec![]));
    assert_eq!(distributor.dvipas[0].services, target.dvipas[0].services);
    assert_eq!(distributor.dvipas[0].targets, target.dvipas[0].targets);
    let roles = |config: &Config| config.ports.iter().map(|port| port.role).collect::<Vec<_>>();
    assert_eq!(roles(&distributor), [Role::Network, Role::Trusted]);
    assert_eq!(roles(&target), [Role::Network, Role::Inside, Role::Trusted]);
    let (distributor, target) = (distributor.cluster.unwrap(), target.cluster.unwrap());
    assert_eq!(distributor.members, target.members);
    assert_ne!(distributor.me, target.me);
    assert_eq!(
        (&distributor.facility.endpoints, &distributor.facility.prefix),
        (&target.facility.endpoints, &target.facility.prefix)
    );
}

#[test]
fn the_laboratory_without_ike() {
    let config = example("lab-static.yaml");
    assert_eq!(config.warnings.len(), 1);
    assert!(config.connections.is_empty());
    let sa = &config.static_sas[0];
    assert!(sa.inbound.is_some() && sa.outbound.is_some());
    assert!(config.ports.iter().all(|port| port.neighbours.len() == 1 && port.queues == 1));
}

/// The demo starts with it, over veth; here it is held to what it shows.
#[test]
fn the_demonstration_over_veth() {
    let config = example("../ci/lib/templates/appliance.yaml");
    assert_eq!(config.warnings, []);
    assert_eq!((config.cores.data.len(), config.connections.len()), (2, 2));
    assert!(config.ports.iter().all(|port| port.queues == 2));
    assert!(config.connections.iter().flat_map(|one| &one.children).all(|child| child.lifetime.leaves_room()));
}
