//! AES-GCM against its authors' published vectors: "The Galois/Counter Mode of Operation (GCM)", McGrew and Viega,
//! appendix B, those with a nonce of 96 bits.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy does not see that helpers of tests are tests

use ipsec_mb::{AuthenticationFailed, Key, Library};

struct Vector {
    number: u32,
    key: &'static str,
    nonce: &'static str,
    aad: &'static str,
    plaintext: &'static str,
    ciphertext: &'static str,
    tag: &'static str,
}

const ZEROS: &str = "00000000000000000000000000000000";
const KEY: &str = "feffe9928665731c6d6a8f9467308308";
const PLAINTEXT: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
const AAD: &str = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
const NONCE: &str = "cafebabefacedbaddecaf888";

fn vectors() -> Vec<Vector> {
    let vector = |number, key, nonce, aad, plaintext, ciphertext, tag| Vector {
        number,
        key,
        nonce,
        aad,
        plaintext,
        ciphertext,
        tag,
    };
    let zero_nonce = &ZEROS[..24];
    let zero_key = "0000000000000000000000000000000000000000000000000000000000000000";
    let long_key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
    let short = "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
                 21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985";
    let long = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";
    vec![
        vector(1, ZEROS, zero_nonce, "", "", "", "58e2fccefa7e3061367f1d57a4e7455a"),
        vector(2, ZEROS, zero_nonce, "", ZEROS, "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf"),
        vector(3, KEY, NONCE, "", PLAINTEXT, short, "4d5c2af327cd64a62cf35abd2ba6fab4"),
        vector(4, KEY, NONCE, AAD, &PLAINTEXT[..120], &short[..120], "5bc94fbc3221a5db94fae95ae7121a47"),
        vector(13, zero_key, zero_nonce, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
        vector(
            14,
            zero_key,
            zero_nonce,
            "",
            ZEROS,
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ),
        vector(15, long_key, NONCE, "", PLAINTEXT, long, "b094dac5d93471bdec1a502270e3cc6c"),
        vector(16, long_key, NONCE, AAD, &PLAINTEXT[..120], &long[..120], "76fc6ece0f4e1768cddf8853bb2d551b"),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

#[test]
fn published_vectors_are_sealed_as_published() {
    for vector in vectors() {
        let key = Key::new(Library::get().unwrap(), &bytes(vector.key)).unwrap();
        let nonce = bytes(vector.nonce).try_into().unwrap();
        let mut data = bytes(vector.plaintext);
        let mut tag = [0; 16];
        key.seal_in_place(&nonce, &bytes(vector.aad), &mut data, &mut tag);
        assert_eq!(data, bytes(vector.ciphertext), "ciphertext of test case {}", vector.number);
        assert_eq!(tag.to_vec(), bytes(vector.tag), "tag of test case {}", vector.number);
    }
}

#[test]
fn published_vectors_open_to_their_plaintext() {
    for vector in vectors() {
        let key = Key::new(Library::get().unwrap(), &bytes(vector.key)).unwrap();
        let nonce = bytes(vector.nonce).try_into().unwrap();
        let mut data = bytes(vector.ciphertext);
        let tag = bytes(vector.tag).try_into().unwrap();
        assert_eq!(key.open_in_place(&nonce, &bytes(vector.aad), &mut data, &tag), Ok(()));
        assert_eq!(data, bytes(vector.plaintext), "plaintext of test case {}", vector.number);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused_and_nothing_is_left_to_read() {
    let vector = &vectors()[3];
    let key = Key::new(Library::get().unwrap(), &bytes(vector.key)).unwrap();
    let (nonce, aad) = (bytes(vector.nonce), bytes(vector.aad));
    let (ciphertext, tag) = (bytes(vector.ciphertext), bytes(vector.tag));
    let whole = [nonce.clone(), aad.clone(), ciphertext.clone(), tag.clone()].concat();
    for bit in 0..whole.len() * 8 {
        let mut forged = whole.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let (nonce, rest) = forged.split_at(nonce.len());
        let (aad, rest) = rest.split_at(aad.len());
        let (ciphertext, tag) = rest.split_at(ciphertext.len());
        let mut data = ciphertext.to_vec();
        let outcome = key.open_in_place(nonce.try_into().unwrap(), aad, &mut data, tag.try_into().unwrap());
        assert_eq!(outcome, Err(AuthenticationFailed), "bit {bit}");
        assert!(data.iter().all(|&byte| byte == 0), "bit {bit}");
    }
}
