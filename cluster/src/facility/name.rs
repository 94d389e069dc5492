//! What the records are called, and whose they are by their names.
//!
//! `lineage` · `incarnations` · `senders` · `epochs` · `member/<id>` · `dvipa/<address>` ·
//! `sa/<address>/<spi>` · `mark/<address>/<spi>` · `seal/<address>/<spi>` · `sealed/<address>` ·
//! `target/<address>/<member>/<incarnation>` · `loss/<address>/<member>/<incarnation>` ·
//! `drained/<address>/<member>/<incarnation>/<part>`. An SPI is eight hexadecimal digits, so that names sort as numbers
//! do; other numbers are decimal.

use core::net::IpAddr;

use ipsec::Spi;

use super::Key;
use crate::id::{Incarnation, MemberId};

/// Which facility it is, and how often it was found restored from a backup.
pub const LINEAGE: &str = "lineage";
/// The highest incarnation that was drawn.
pub const INCARNATIONS: &str = "incarnations";
/// The first sender number that was not drawn.
pub const SENDERS: &str = "senders";
/// An epoch below which no claim may fall, whatever `dvipa/…` says.
pub const EPOCHS: &str = "epochs";
/// How the names of all DVIPAs begin.
pub const DVIPAS: &str = "dvipa/";
/// How the names of all members begin.
pub const MEMBERS: &str = "member/";

/// What there is of each DVIPA beside its owner; all of it is void when the facility went back in time.
pub const KINDS_OF_DVIPA: [&str; 7] = ["sa/", "mark/", "seal/", "sealed/", "target/", "loss/", "drained/"];

/// A member's registration.
#[must_use]
pub fn member(id: MemberId) -> Key {
    format!("{MEMBERS}{id}")
}

/// Who owns an address.
#[must_use]
pub fn dvipa(address: IpAddr) -> Key {
    format!("{DVIPAS}{address}")
}

/// Whose owner this record tells.
#[must_use]
pub fn dvipa_of(key: &str) -> Option<IpAddr> {
    key.strip_prefix(DVIPAS)?.parse().ok()
}

/// An SA.
#[must_use]
pub fn sa(address: IpAddr, spi: Spi) -> Key {
    of_spi("sa", address, spi)
}

/// The sequence mark of an SA.
#[must_use]
pub fn mark(address: IpAddr, spi: Spi) -> Key {
    of_spi("mark", address, spi)
}

/// That an SA is sealed.
#[must_use]
pub fn seal(address: IpAddr, spi: Spi) -> Key {
    of_spi("seal", address, spi)
}

/// Before which birth all SAs of an address are sealed.
#[must_use]
pub fn sealed(address: IpAddr) -> Key {
    format!("sealed/{address}")
}

/// That this start of a member may have connections of an address.
#[must_use]
pub fn target(address: IpAddr, member: MemberId, incarnation: Incarnation) -> Key {
    of_start("target", address, member, incarnation)
}

/// That this start of a member is lost.
#[must_use]
pub fn loss(address: IpAddr, member: MemberId, incarnation: Incarnation) -> Key {
    of_start("loss", address, member, incarnation)
}

/// A part of what a drained start of a member left behind.
#[must_use]
pub fn drained(address: IpAddr, member: MemberId, incarnation: Incarnation, part: u16) -> Key {
    format!("{}{part}", drained_parts(address, member, incarnation))
}

/// How the names of all those parts begin.
#[must_use]
pub fn drained_parts(address: IpAddr, member: MemberId, incarnation: Incarnation) -> Key {
    format!("{}/", of_start("drained", address, member, incarnation))
}

/// How the names of all records of one kind begin, for one address.
#[must_use]
pub fn all_of(kind: &str, address: IpAddr) -> Key {
    format!("{kind}/{address}/")
}

/// The SPI that `sa/…`, `mark/…` or `seal/…` ends with.
#[must_use]
pub fn spi_of(key: &str) -> Option<Spi> {
    let digits = key.rsplit('/').next().filter(|digits| digits.len() == 8)?;
    Spi::new(u32::from_str_radix(digits, 16).ok()?)
}

/// The member and its start that `target/…` or `loss/…` ends with.
#[must_use]
pub fn start_of(key: &str) -> Option<(MemberId, Incarnation)> {
    let (rest, incarnation) = key.rsplit_once('/')?;
    let (_, member) = rest.rsplit_once('/')?;
    Some((MemberId(member.parse().ok()?), Incarnation(incarnation.parse().ok()?)))
}

/// The same of `drained/…`, and the part.
#[must_use]
pub fn drained_of(key: &str) -> Option<(MemberId, Incarnation, u16)> {
    let (rest, part) = key.rsplit_once('/')?;
    let (member, incarnation) = start_of(rest)?;
    Some((member, incarnation, part.parse().ok()?))
}

fn of_spi(kind: &str, address: IpAddr, spi: Spi) -> Key {
    format!("{kind}/{address}/{:08x}", spi.get())
}

fn of_start(kind: &str, address: IpAddr, member: MemberId, incarnation: Incarnation) -> Key {
    format!("{kind}/{address}/{member}/{incarnation}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whose_they_are() {
        let (v4, v6): (IpAddr, IpAddr) = ("203.0.113.80".parse().unwrap(), "2001:db8::80".parse().unwrap());
        let spi = Spi::new(0xab12).unwrap();
        let (member_3, start_9) = (MemberId(3), Incarnation(9));
        for address in [v4, v6] {
            assert_eq!(dvipa_of(&dvipa(address)), Some(address));
            for name in [sa(address, spi), mark(address, spi), seal(address, spi)] {
                assert_eq!(spi_of(&name), Some(spi));
            }
            for name in [target(address, member_3, start_9), loss(address, member_3, start_9)] {
                assert_eq!(start_of(&name), Some((member_3, start_9)));
            }
            assert_eq!(drained_of(&drained(address, member_3, start_9, 2)), Some((member_3, start_9, 2)));
        }
        assert_eq!(sa(v4, spi), "sa/203.0.113.80/0000ab12");
        assert_eq!(member(member_3), "member/3");
    }

    #[test]
    fn the_records_of_one_address_never_begin_like_those_of_another() {
        let (short, long): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.10".parse().unwrap());
        let spi = Spi::new(256).unwrap();
        assert!(!sa(long, spi).starts_with(&all_of("sa", short)));
        let (one, ten) = (Incarnation(1), Incarnation(10));
        assert!(!drained(short, MemberId(1), ten, 0).starts_with(&drained_parts(short, MemberId(1), one)));
    }

    #[test]
    fn foreign_names_are_nobodys() {
        for name in ["", "sa/10.0.0.1/xyz", "sa/10.0.0.1/00000001", "sa/10.0.0.1/000000100", "dvipa/nowhere"] {
            assert_eq!((spi_of(name), dvipa_of(name), start_of(name), drained_of(name)), (None, None, None, None));
        }
    }
}
