//! Network devices: opened, configured, started, and closed by the last handle.

pub(crate) mod config;
pub(crate) mod info;
pub(crate) mod queue;

use crate::arguments::holds_address;
use crate::eal::Eal;
use crate::error::{Error, check};
use crate::mbuf::{Burst, free_burst};
use crate::mempool::Mempool;
use config::PortConfig;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use info::{Link, PortInfo, PortStats};
use parking_lot::Mutex;
use queue::{RxQueue, TxQueue};
use std::ffi::CString;
use std::sync::Arc;

/// Ports that one process can have.
pub const MAX_PORTS: usize = dpdk_sys::SHIM_MAX_PORTS as usize;

/// `-ENOTSUP`: the device has no such operation.
const NOT_SUPPORTED: i32 = 95;

/// Which ports have an owner. Whoever opens, starts or closes a port holds the lock: DPDK's bookkeeping of devices is not
/// made for several threads at once.
static OWNED: Mutex<[bool; MAX_PORTS]> = Mutex::new([false; MAX_PORTS]);

/// The one owner of a port: whoever holds a reference keeps it open, and dropping the last stops and closes it.
#[derive(Debug)]
struct Owner {
    number: u16,
    name: String,
    /// DPDK leaves control operations on one port to be ordered by the application.
    control: Mutex<()>,
    /// Polls of its receive queues that found no packet and no buffer for one.
    starved_polls: AtomicU64,
}

impl Owner {
    fn claim(owned: &mut [bool; MAX_PORTS], number: u16, name: &str) -> Result<Self, Error> {
        let slot = owned.get_mut(usize::from(number)).ok_or(Error::TooManyPorts { number, limit: MAX_PORTS })?;
        if *slot {
            return Err(Error::PortInUse { name: name.into() });
        }
        *slot = true;
        Ok(Owner { number, name: name.into(), control: Mutex::new(()), starved_polls: AtomicU64::new(0) })
    }

    /// Runs one control operation, and names it if it fails.
    fn control(&self, step: &'static str, operation: impl FnOnce(u16) -> i32) -> Result<(), Error> {
        let _ordered = self.control.lock();
        check(operation(self.number)).map_err(|reason| Error::Port { name: self.name.clone(), step, reason })
    }

    fn info(&self) -> Result<PortInfo, Error> {
        let mut raw = dpdk_sys::shim_port_info::default();
        // SAFETY: the port is open while its owner lives, and `raw` is ours.
        self.control("asking for its abilities", |port| unsafe { dpdk_sys::shim_port_info(port, &mut raw) })?;
        Ok(PortInfo::from_raw(&raw))
    }

    fn mac(&self) -> Result<[u8; 6], Error> {
        let mut mac = [0; 6];
        // SAFETY: the port is open while its owner lives, and `mac` holds six bytes.
        self.control("asking for its address", |port| unsafe { dpdk_sys::shim_port_mac(port, mac.as_mut_ptr()) })?;
        Ok(mac)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut owned = OWNED.lock();
        // A device that does not close cleanly has said so in DPDK's log; nobody is left here who could do more.
        // SAFETY: the port is open, and no queue handle exists any more: each holds a reference to this owner.
        unsafe { dpdk_sys::shim_port_close(self.number) };
        if let Some(slot) = owned.get_mut(usize::from(self.number)) {
            *slot = false;
        }
    }
}

/// A device that is open and not yet started.
#[derive(Debug)]
pub struct Device {
    owner: Owner,
}

impl Device {
    /// Opens a device by its DPDK string: a PCI address (`0000:01:00.0`) or a virtual device with its arguments
    /// (`net_af_packet0,iface=eth0`). A device that DPDK knows already, from its start, is opened by its bare name.
    /// One process opens a port once; when its last handle goes, the port is closed, and may be opened again.
    ///
    /// A driver is trusted as much as this crate: it runs in the process. Some wait inside a burst; `net_af_packet`
    /// does while the kernel has no room in its transmit ring.
    pub fn open(_: Eal, device: &str) -> Result<Device, Error> {
        if holds_address(device) {
            return Err(Error::DeviceAddress { device: device.into() });
        }
        let mut owned = OWNED.lock();
        if let Some((number, name)) = find(device)? {
            if device.contains(',') {
                return Err(Error::DeviceExists { device: device.into() });
            }
            return Ok(Device { owner: Owner::claim(&mut owned, number, &name)? });
        }
        let text = c_string(device)?;
        // SAFETY: the environment runs, and the string is terminated; DPDK copies it.
        check(unsafe { dpdk_sys::rte_dev_probe(text.as_ptr()) })
            .map_err(|reason| Error::Attach { device: device.into(), reason })?;
        let (number, name) = find(device)?.ok_or_else(|| Error::NoPort { device: device.into() })?;
        Ok(Device { owner: Owner::claim(&mut owned, number, &name)? })
    }

    /// What the device can do.
    pub fn info(&self) -> Result<PortInfo, Error> {
        self.owner.info()
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> Result<[u8; 6], Error> {
        self.owner.mac()
    }

    /// Configures and starts the device. Receive queue `i` takes its buffers from `mempools[i]`; there are as many
    /// receive queues as mempools (the same one may stand there several times). What arrived before counts as lost.
    pub fn start(self, config: &PortConfig, mempools: &[Mempool]) -> Result<(Port, Vec<RxQueue>, Vec<TxQueue>), Error> {
        let owner = self.owner;
        let info = owner.info()?;
        config.check(&owner.name, &info, mempools)?;
        let raw = bring_up(&owner, &info, config, mempools)?;
        let owner = Arc::new(owner);
        let queues = (0..raw.rx_queues).zip(mempools);
        let mut rx: Vec<_> = queues.map(|(queue, &pool)| RxQueue::new(Arc::clone(&owner), queue, pool)).collect();
        let tx = (0..raw.tx_queues).map(|queue| TxQueue::new(Arc::clone(&owner), queue)).collect();
        if info.driver == LEAKY_DRIVER {
            rx.iter_mut().for_each(discard_strangers);
        }
        Ok((Port { owner, info, rss_active: raw.rss_active != 0 }, rx, tx))
    }
}

/// This driver listens on every interface of the network namespace until it has bound its socket to its own, so what
/// waits in a fresh queue may be addressed to others.
const LEAKY_DRIVER: &str = "net_af_packet";

/// The most that is discarded from a fresh queue; its default ring holds 512 frames.
const MAX_STRANGERS: usize = 65_536;

fn discard_strangers(queue: &mut RxQueue) {
    let mut burst = Burst::<32>::new();
    let mut discarded = 0;
    while discarded < MAX_STRANGERS && queue.receive(&mut burst) > 0 {
        discarded += burst.len();
        free_burst(&mut burst);
    }
}

/// Configures and starts an open port, and says how.
fn bring_up(
    owner: &Owner,
    info: &PortInfo,
    config: &PortConfig,
    mempools: &[Mempool],
) -> Result<dpdk_sys::shim_port_config, Error> {
    let _one_at_a_time = OWNED.lock();
    let mut raw = config.to_raw(mempools.len() as u16, info);
    // SAFETY: the port is open and not started, and `raw` is ours.
    owner.control("configuring", |port| unsafe { dpdk_sys::shim_port_configure(port, &mut raw) })?;
    // DPDK writes "any node" as −1, the largest number.
    let node = info.numa_node.unwrap_or(u32::MAX);
    for (queue, mempool) in (0u16..).zip(mempools) {
        // SAFETY: the port is configured with this many queues; mempools are never freed.
        owner.control("setting up a receive queue", |port| unsafe {
            let descriptors = raw.rx_descriptors;
            dpdk_sys::rte_eth_rx_queue_setup(port, queue, descriptors, node, ptr::null(), mempool.as_ptr())
        })?;
    }
    for queue in 0..config.tx_queues {
        // SAFETY: the port is configured with this many queues.
        owner.control("setting up a transmit queue", |port| unsafe {
            dpdk_sys::rte_eth_tx_queue_setup(port, queue, raw.tx_descriptors, node, ptr::null())
        })?;
    }
    // SAFETY: the port is configured and all its queues are set up.
    owner.control("starting", |port| unsafe { dpdk_sys::rte_eth_dev_start(port) })?;
    open_filters(owner, config)?;
    Ok(raw)
}

/// Promiscuous and all-multicast mode. A device without such a filter lets everything pass anyway.
fn open_filters(owner: &Owner, config: &PortConfig) -> Result<(), Error> {
    let unfiltered = |result: i32| if result == -NOT_SUPPORTED { 0 } else { result };
    if config.promiscuous {
        // SAFETY: the port is started.
        owner.control("promiscuous mode", |port| unfiltered(unsafe { dpdk_sys::rte_eth_promiscuous_enable(port) }))?;
    }
    if config.all_multicast {
        // SAFETY: the port is started.
        owner.control("multicast mode", |port| unfiltered(unsafe { dpdk_sys::rte_eth_allmulticast_enable(port) }))?;
    }
    Ok(())
}

/// A started port, for whoever watches it. Its queues live on their own; the port closes with the last of them all.
#[derive(Debug, Clone)]
pub struct Port {
    owner: Arc<Owner>,
    info: PortInfo,
    rss_active: bool,
}

impl Port {
    /// DPDK's name for it.
    pub fn name(&self) -> &str {
        &self.owner.name
    }

    /// DPDK's number for it.
    pub fn number(&self) -> u16 {
        self.owner.number
    }

    /// What the device can do.
    pub fn info(&self) -> &PortInfo {
        &self.info
    }

    /// Whether the device spreads flows over its receive queues by a hash.
    pub fn rss_active(&self) -> bool {
        self.rss_active
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> Result<[u8; 6], Error> {
        self.owner.mac()
    }

    /// The largest packet it takes, without the Ethernet header, in bytes.
    pub fn mtu(&self) -> Result<u16, Error> {
        let mut mtu = 0;
        // SAFETY: the port is open while its owner lives, and `mtu` is ours.
        self.owner.control("asking for its MTU", |port| unsafe { dpdk_sys::shim_port_mtu(port, &mut mtu) })?;
        Ok(mtu)
    }

    /// The state of its link, as the driver knows it, and the kernel where the device rests on one of its interfaces.
    /// Never waits.
    pub fn link(&self) -> Result<Link, Error> {
        let mut raw = dpdk_sys::shim_link::default();
        // SAFETY: the port is open while its owner lives, and `raw` is ours.
        self.owner.control("asking for its link", |port| unsafe { dpdk_sys::shim_port_link(port, &mut raw) })?;
        Ok(Link::from_raw(&raw))
    }

    /// What it counted since its start or the last reset.
    pub fn stats(&self) -> Result<PortStats, Error> {
        let mut raw = dpdk_sys::shim_stats::default();
        // SAFETY: the port is open while its owner lives, and `raw` is ours.
        self.owner.control("asking for its counters", |port| unsafe { dpdk_sys::shim_port_stats(port, &mut raw) })?;
        Ok(PortStats::from_raw(&raw))
    }

    /// Polls that found no packet, and no buffer for one either: reception stood still for want of buffers. Counted here,
    /// since not every driver counts it as `rx_no_mbuf`.
    pub fn starved_polls(&self) -> u64 {
        self.owner.starved_polls.load(Ordering::Relaxed)
    }

    /// Sets what it counts to zero, where the driver can.
    pub fn reset_stats(&self) -> Result<(), Error> {
        // SAFETY: the port is open while its owner lives.
        self.owner.control("resetting its counters", |port| unsafe { dpdk_sys::rte_eth_stats_reset(port) })
    }
}

/// The port of a device, if there is one, under any of the names that DPDK may have given it.
fn find(device: &str) -> Result<Option<(u16, String)>, Error> {
    for name in names(device) {
        let mut number = 0;
        let text = c_string(&name)?;
        // SAFETY: the name is terminated, and `number` is ours.
        if unsafe { dpdk_sys::shim_port_by_name(text.as_ptr(), &mut number) } == 0 {
            return Ok(Some((number, name)));
        }
    }
    Ok(None)
}

/// A port bears its device's name: without arguments, without the bus, a PCI address with its domain.
fn names(device: &str) -> Vec<String> {
    let name = device.split(',').next().unwrap_or_default();
    let bare = name.strip_prefix("vdev:").or_else(|| name.strip_prefix("pci:")).unwrap_or(name);
    vec![bare.to_owned(), format!("0000:{bare}")]
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::ZeroByte { what: "a device string" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_string_yields_its_ports_names() {
        assert_eq!(names("net_tap0,iface=t0,mac=fixed")[0], "net_tap0");
        assert_eq!(names("vdev:net_null0")[0], "net_null0");
        assert_eq!(names("01:00.0"), ["01:00.0", "0000:01:00.0"]);
    }
}
