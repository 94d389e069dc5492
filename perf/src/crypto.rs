//! AES-GCM alone: the floor under every row, with packets that never leave the first-level cache.

use datapath::burst::BURST;
use ipsec::engine::EngineKind;
use ipsec::esp;
use ipsec::outbound::esp_overhead;
use ipsec::sa::Direction;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::fault::Fault;
use crate::lab::{CIPHER, Case, keymat, spi_in};

const NONCE: [u8; 12] = [7; 12];
const AAD: [u8; 8] = [9; 8];

/// An engine's library, called directly.
enum Library {
    Ring(Box<LessSafeKey>),
    IpsecMb(ipsec_mb::Key),
}

/// A burst of buffers that are opened or sealed again and again.
pub struct Bare {
    library: Library,
    direction: Direction,
    template: Vec<u8>,
    buffers: Vec<Vec<u8>>,
}

impl Bare {
    /// Buffers as long as the case's ESP payloads.
    pub fn new(case: &Case, kind: EngineKind) -> Result<Bare, Fault> {
        let keymat = keymat(spi_in(0));
        let key = &keymat[..CIPHER.key_len()];
        let library = match kind {
            EngineKind::Ring => Library::Ring(ring_key(key)?),
            EngineKind::IpsecMb => {
                let library = ipsec_mb::Library::get().map_err(Fault::setup)?;
                Library::IpsecMb(ipsec_mb::Key::new(library, key).map_err(Fault::setup)?)
            }
        };
        let mut template = vec![0x42; case.size_bytes + esp_overhead(case.size_bytes).after];
        seal(&library, &mut template)?;
        let buffers = vec![template.clone(); BURST];
        Ok(Bare { library, direction: case.direction, template, buffers })
    }

    /// One burst: each packet is copied, as a device does, and then opened or sealed.
    pub fn turn(&mut self) -> u64 {
        let mut done = 0;
        for buffer in &mut self.buffers {
            buffer.copy_from_slice(&self.template);
            let outcome = match self.direction {
                Direction::Inbound => open(&self.library, buffer),
                Direction::Outbound => seal(&self.library, buffer),
            };
            done += u64::from(outcome.is_ok());
        }
        done
    }
}

fn ring_key(key: &[u8]) -> Result<Box<LessSafeKey>, Fault> {
    UnboundKey::new(&aead::AES_128_GCM, key).map(|key| Box::new(LessSafeKey::new(key))).map_err(Fault::setup)
}

fn split(buffer: &mut [u8]) -> Result<(&mut [u8], &mut [u8; esp::ICV_LEN]), Fault> {
    buffer.split_last_chunk_mut().ok_or_else(|| Fault::setup("a buffer without room for an ICV"))
}

fn seal(library: &Library, buffer: &mut [u8]) -> Result<(), Fault> {
    let (data, icv) = split(buffer)?;
    match library {
        Library::Ring(key) => {
            let nonce = Nonce::assume_unique_for_key(NONCE);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(AAD), data).map_err(Fault::setup)?;
            icv.copy_from_slice(tag.as_ref());
        }
        Library::IpsecMb(key) => key.seal_in_place(&NONCE, &AAD, data, icv),
    }
    Ok(())
}

fn open(library: &Library, buffer: &mut [u8]) -> Result<(), Fault> {
    match library {
        Library::Ring(key) => {
            let nonce = Nonce::assume_unique_for_key(NONCE);
            key.open_in_place(nonce, Aad::from(AAD), buffer).map(|_| ()).map_err(Fault::setup)
        }
        Library::IpsecMb(key) => {
            let (data, icv) = split(buffer)?;
            key.open_in_place(&NONCE, &AAD, data, icv).map_err(Fault::setup)
        }
    }
}
