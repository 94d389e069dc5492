//! Capture files: what DPDK's net_pcap plays again and again.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::fault::Fault;

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
const LINK_ETHERNET: u32 = 1;
const SNAP_LEN: u32 = 65_535;

/// A directory for captures, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Captures {
    directory: PathBuf,
    written: usize,
}

impl Captures {
    /// A fresh directory.
    pub fn new() -> Result<Captures, Fault> {
        let directory = std::env::temp_dir().join(format!("phalanx-perf.{}", std::process::id()));
        fs::create_dir(&directory).map_err(|error| Fault::File { what: directory.display().to_string(), error })?;
        Ok(Captures { directory, written: 0 })
    }

    /// Writes frames, in order, into a new capture.
    pub fn write<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) -> Result<PathBuf, Fault> {
        let path = self.directory.join(format!("{}.pcap", self.written));
        self.written += 1;
        match write(&path, frames) {
            Ok(()) => Ok(path),
            Err(error) => Err(Fault::File { what: path.display().to_string(), error }),
        }
    }
}

impl Drop for Captures {
    fn drop(&mut self) {
        // What cannot be removed lies in the directory for temporary files, where it harms nobody.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn write<'a>(path: &Path, frames: impl Iterator<Item = &'a [u8]>) -> std::io::Result<()> {
    let mut file = BufWriter::new(fs::File::create_new(path)?);
    file.write_all(&MAGIC_MICROSECONDS.to_le_bytes())?;
    VERSION.iter().try_for_each(|number| file.write_all(&number.to_le_bytes()))?;
    [0, 0, SNAP_LEN, LINK_ETHERNET].iter().try_for_each(|word: &u32| file.write_all(&word.to_le_bytes()))?;
    for frame in frames {
        let len = frame.len() as u32;
        [0, 0, len, len].iter().try_for_each(|word: &u32| file.write_all(&word.to_le_bytes()))?;
        file.write_all(frame)?;
    }
    file.flush()
}
