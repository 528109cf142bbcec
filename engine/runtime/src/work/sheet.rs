//! Where results are written: straight into the answer of the frontend that asked, in its own framing, or into a plain buffer
//! with the places of the items beside it.

use std::ops::Range;

use zeroize::Zeroize;

/// How a frontend frames the items of an answer, so that they can be sealed in their place.
pub struct Framing {
    /// Writes what stands before an item of so many bytes.
    pub item: fn(&mut Vec<u8>, usize),
    /// Writes what stands for an item that failed or is left out.
    pub absent: fn(&mut Vec<u8>),
    /// Writes what stands before a pair of items.
    pub pair: fn(&mut Vec<u8>),
}

/// The results of a job, in the order of its items.
#[derive(Default)]
pub struct Sheet {
    /// The bytes written so far, with the frontend's framing if there is one.
    pub buffer: Vec<u8>,
    framing: Option<&'static Framing>,
    /// Without framing: where each item lies, `None` where it is absent.
    places: Vec<Option<Range<usize>>>,
    max_bytes: Option<usize>,
    /// Where the frontend's own head ends.
    start: usize,
}

impl Sheet {
    /// Makes a sheet that goes on where `buffer` ends, in the frontend's framing.
    pub fn framed(buffer: Vec<u8>, framing: &'static Framing, max_bytes: usize) -> Self {
        let start = buffer.len();
        Self { buffer, framing: Some(framing), places: Vec::new(), max_bytes: Some(max_bytes), start }
    }

    /// Makes a sheet that remembers where each item lies.
    pub fn plain(max_bytes: Option<usize>) -> Self {
        Self { max_bytes, ..Self::default() }
    }

    /// Returns how many bytes an answer may have.
    pub fn max_bytes(&self) -> Option<usize> {
        self.max_bytes
    }

    /// Lends item `i` of a plain sheet.
    pub fn item(&self, i: usize) -> Option<&[u8]> {
        self.places.get(i)?.clone().map(|place| &self.buffer[place])
    }

    /// Returns the items of a plain sheet.
    pub fn items(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> {
        self.places.iter().map(|place| place.clone().map(|place| &self.buffer[place]))
    }

    /// Writes an item of exactly `len` bytes by `write`; where that fails, the item is absent and nothing of it stays.
    pub(crate) fn put<T, E>(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.buffer.len();
        if let Some(framing) = self.framing {
            (framing.item)(&mut self.buffer, len);
        }
        let start = self.buffer.len();
        match write(&mut self.buffer) {
            Ok(value) => {
                debug_assert_eq!(self.buffer.len() - start, len);
                if self.framing.is_none() {
                    self.places.push(Some(start..start + len));
                }
                Ok(value)
            }
            Err(error) => {
                self.buffer.truncate(before);
                self.absent();
                Err(error)
            }
        }
    }

    /// Writes that an item is absent.
    pub(crate) fn absent(&mut self) {
        match self.framing {
            Some(framing) => (framing.absent)(&mut self.buffer),
            None => self.places.push(None),
        }
    }

    /// Writes that two items follow as a pair.
    pub(crate) fn pair(&mut self) {
        if let Some(framing) = self.framing {
            (framing.pair)(&mut self.buffer);
        }
    }

    /// Makes room for about so many bytes more.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve(bytes);
    }

    /// Wipes all results and begins anew behind the frontend's head.
    pub(crate) fn restart(&mut self) {
        self.buffer[self.start..].zeroize();
        self.buffer.truncate(self.start);
        self.places.clear();
    }

    /// Wipes all results: the answer will not be given.
    pub(crate) fn wipe(&mut self) {
        self.buffer.zeroize();
        self.places.clear();
    }
}
