//! This engine against an independent one, on every short length and some long ones.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy does not see that helpers of tests are tests

use ipsec_mb::{AuthenticationFailed, Key, Library};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

fn lengths() -> impl Iterator<Item = usize> {
    (0..=300).chain([511, 512, 513, 1420, 1500, 4095, 4096, 9000, 65_535])
}

/// One message through both engines, there and back.
fn agree(algorithm: &'static Algorithm, key_len: usize, data_len: usize, aad_len: usize) {
    let key_bytes = random(key_len);
    let key = Key::new(Library::get().unwrap(), &key_bytes).unwrap();
    let theirs = LessSafeKey::new(UnboundKey::new(algorithm, &key_bytes).unwrap());
    let nonce: [u8; 12] = random(12).try_into().unwrap();
    let (aad, plaintext) = (random(aad_len), random(data_len));
    let at = format!("{key_len}-byte key, {data_len} bytes, {aad_len} associated");

    let (mut ours, mut tag) = (plaintext.clone(), [0; 16]);
    key.seal_in_place(&nonce, &aad, &mut ours, &mut tag);
    let mut reference = plaintext.clone();
    let reference_tag = theirs
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&aad), &mut reference)
        .unwrap();
    assert_eq!(ours, reference, "ciphertext: {at}");
    assert_eq!(tag, reference_tag.as_ref(), "tag: {at}");

    assert_eq!(key.open_in_place(&nonce, &aad, &mut ours, &tag), Ok(()), "{at}");
    assert_eq!(ours, plaintext, "plaintext: {at}");
    tag[data_len % 16] ^= 1 << (data_len % 8);
    assert_eq!(key.open_in_place(&nonce, &aad, &mut reference, &tag), Err(AuthenticationFailed), "{at}");
}

#[test]
fn both_engines_agree_on_every_length_with_128_bit_keys() {
    lengths().for_each(|len| agree(&AES_128_GCM, 16, len, [8, 12, 0][len % 3]));
}

#[test]
fn both_engines_agree_on_every_length_with_256_bit_keys() {
    lengths().for_each(|len| agree(&AES_256_GCM, 32, len, [12, 0, 8][len % 3]));
}

#[test]
fn both_engines_agree_on_every_length_of_associated_data() {
    (0..=130).for_each(|len| agree(&AES_128_GCM, 16, 100, len));
}

#[test]
fn data_may_stand_at_any_address() {
    let key = Key::new(Library::get().unwrap(), &[3; 16]).unwrap();
    let (nonce, plaintext) = ([9; 12], random(200));
    let mut reference = plaintext.clone();
    let mut reference_tag = [0; 16];
    key.seal_in_place(&nonce, b"aad", &mut reference, &mut reference_tag);
    for shift in 0..64 {
        let mut buffer = vec![0x55; 264];
        buffer[shift..shift + 200].copy_from_slice(&plaintext);
        let mut tag = [0; 16];
        key.seal_in_place(&nonce, b"aad", &mut buffer[shift..shift + 200], &mut tag);
        assert_eq!((&buffer[shift..shift + 200], tag), (&reference[..], reference_tag), "shift {shift}");
        assert!(buffer[..shift].iter().chain(&buffer[shift + 200..]).all(|&byte| byte == 0x55), "shift {shift}");
    }
}

#[test]
fn one_key_serves_many_threads_at_once() {
    let key = Key::new(Library::get().unwrap(), &[5; 32]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let key = &key;
            scope.spawn(move || {
                for round in 0..2000u32 {
                    let mut nonce = [thread; 12];
                    nonce[..4].copy_from_slice(&round.to_be_bytes());
                    let (mut data, mut tag) = ([thread; 150], [0; 16]);
                    key.seal_in_place(&nonce, b"", &mut data, &mut tag);
                    key.open_in_place(&nonce, b"", &mut data, &tag).unwrap();
                    assert_eq!(data, [thread; 150]);
                }
            });
        }
    });
}
