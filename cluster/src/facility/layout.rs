//! How small records lie in bytes: a version, then fields of fixed width in network order.
//!
//! Written by hand because such a record is compared byte for byte: it must have exactly one form, today and in every
//! later version of the program.

use super::record::RecordError;

/// Puts fields behind each other.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Begins a record of this version.
    pub fn version(version: u8) -> Writer {
        Writer(vec![version])
    }

    pub fn u8(mut self, value: u8) -> Writer {
        self.0.push(value);
        self
    }

    pub fn u16(self, value: u16) -> Writer {
        self.bytes(&value.to_be_bytes())
    }

    pub fn u32(self, value: u32) -> Writer {
        self.bytes(&value.to_be_bytes())
    }

    pub fn u64(self, value: u64) -> Writer {
        self.bytes(&value.to_be_bytes())
    }

    pub fn bytes(mut self, value: &[u8]) -> Writer {
        self.0.extend_from_slice(value);
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Takes fields off the front.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    name: &'a str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins a record that must be of this version. `name` is for the error.
    pub fn version(name: &'a str, bytes: &'a [u8], known: u8) -> Result<Reader<'a>, RecordError> {
        match bytes.split_first() {
            Some((&found, rest)) if found == known => Ok(Reader { name, rest }),
            Some((&found, _)) => Err(RecordError::Version { name: name.to_owned(), found, known }),
            None => Err(RecordError::Damaged { name: name.to_owned(), why: "it is empty" }),
        }
    }

    /// Fields without a version before them, from inside a record.
    pub fn bare(name: &'a str, rest: &'a [u8]) -> Reader<'a> {
        Reader { name, rest }
    }

    pub fn damaged(&self, why: &'static str) -> RecordError {
        RecordError::Damaged { name: self.name.to_owned(), why }
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.damaged("it ends too early"))?;
        self.rest = rest;
        Ok(*field)
    }

    pub fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_be_bytes)
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("it is longer than it should be")) }
    }
}
