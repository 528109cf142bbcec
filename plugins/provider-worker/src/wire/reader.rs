//! Takes a body apart: every length is looked at before it is believed, and nothing is allocated by one.

use super::Garbled;

/// What is left of a body.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// Takes `bytes` bytes.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Garbled("a message that is cut"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        Ok(self.take(N)?.try_into().expect("as many were taken"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Garbled> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Garbled> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Takes a number or a length of four bytes.
    pub(crate) fn u32(&mut self) -> Result<usize, Garbled> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    /// Takes a count of things that have `each` bytes or more, which must still be there.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, Garbled> {
        let count = self.u32()?;
        if count > self.0.len() / each {
            return Err(Garbled("a count of more than is there"));
        }
        Ok(count)
    }

    /// Takes bytes that follow their length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let bytes = self.u32()?;
        self.take(bytes)
    }

    /// Takes text that follows its length.
    pub(crate) fn text(&mut self) -> Result<&'a str, Garbled> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Garbled("text that is none"))
    }

    /// Takes all that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), Garbled> {
        if self.0.is_empty() { Ok(()) } else { Err(Garbled("a message with bytes behind its end")) }
    }
}

/// Writes bytes behind their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(super::length(bytes.len()).to_be_bytes());
    out.extend(bytes);
}

/// Writes a number or a length of four bytes.
pub(crate) fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.extend(super::length(number).to_be_bytes());
}
