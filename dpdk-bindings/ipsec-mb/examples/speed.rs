//! Nanoseconds per packet of this engine and of `ring`, opening and sealing, one core:
//! `cargo run --release -p ipsec-mb --example speed`.

use ipsec_mb::{Key, Library};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 100_000;

fn nanoseconds(mut work: impl FnMut()) -> f64 {
    // The best of several runs: the others were disturbed.
    (0..7)
        .map(|_| {
            let start = Instant::now();
            (0..ROUNDS).for_each(|_| work());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let library = Library::get()?;
    println!("libIPSec_MB {} for {}, AES-128-GCM, ns per packet", library.version(), library.architecture());
    println!("{:>6} {:>12} {:>12} {:>12}", "bytes", "seal", "open", "ring seal");
    let key = Key::new(library, &[1; 16])?;
    let theirs = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[1; 16]).map_err(|_| "ring refused a key")?);
    let (nonce, aad) = ([2; 12], [3; 8]);
    for len in [64, 256, 1420] {
        let (mut data, mut tag) = (vec![0; len], [0; 16]);
        let seal = nanoseconds(|| key.seal_in_place(black_box(&nonce), &aad, &mut data, &mut tag));
        // Opening in place changes what is opened, so a copy is opened each time; the copy's time is taken off.
        data.fill(0);
        key.seal_in_place(&nonce, &aad, &mut data, &mut tag);
        let mut copy = data.clone();
        let copying = nanoseconds(|| black_box(&mut copy).copy_from_slice(black_box(&data)));
        let open = nanoseconds(|| {
            black_box(&mut copy).copy_from_slice(black_box(&data));
            assert!(key.open_in_place(&nonce, &aad, &mut copy, &tag).is_ok());
        });
        let ring_seal = nanoseconds(|| {
            let nonce = Nonce::assume_unique_for_key(black_box(nonce));
            let _ = black_box(theirs.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut data));
        });
        println!("{len:>6} {seal:>12.1} {:>12.1} {ring_seal:>12.1}", open - copying);
    }
    Ok(())
}
