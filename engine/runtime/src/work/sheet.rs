//! Where results are written: straight into the answer of the frontend that asked, in its own framing, or into a plain buffer
//! with the places of the items beside it.
//!
//! A sheet writes into memory that is there already: a buffer that comes back for the next answer keeps its length, so that
//! nothing is zeroed or grown twice.

use std::ops::Range;

use zeroize::Zeroize;

/// Bytes of framing that an answer has beside its items, at most: names and ids; and before each item.
pub(crate) const ANSWER_BYTES: usize = 512;
pub(crate) const ITEM_FRAMING_BYTES: usize = 6;

/// How a frontend frames the items of an answer, so that they can be sealed in their place.
pub struct Framing {
    /// Returns what stands before an item of so many bytes: up to five bytes, and how many of them count.
    pub item: fn(usize) -> ([u8; 5], usize),
    /// Stands for an item that failed or is left out.
    pub absent: u8,
    /// Stands before a pair of items.
    pub pair: u8,
}

/// The results of a job, in the order of its items.
#[derive(Default)]
pub struct Sheet {
    /// Longer than what is used of it, where it served before.
    bytes: Vec<u8>,
    used: usize,
    framing: Option<&'static Framing>,
    /// Without framing: where each item lies, `None` where it is absent.
    places: Vec<Option<Range<usize>>>,
    max_bytes: Option<usize>,
    /// Where the frontend's own head ends.
    start: usize,
}

impl Sheet {
    /// Makes a sheet in the frontend's framing that begins with its `head`; `buffer` is overwritten.
    pub fn framed(buffer: Vec<u8>, head: &[u8], framing: &'static Framing, max_bytes: usize) -> Self {
        let mut sheet =
            Self { bytes: buffer, framing: Some(framing), max_bytes: Some(max_bytes), ..Self::default() };
        sheet.raw(head);
        sheet.start = head.len();
        sheet
    }

    /// Makes a sheet that remembers where each item lies.
    pub fn plain(max_bytes: Option<usize>) -> Self {
        Self { max_bytes, ..Self::default() }
    }

    /// Makes a plain sheet over a buffer that served before.
    pub fn plain_over(buffer: Vec<u8>, max_bytes: Option<usize>) -> Self {
        Self { bytes: buffer, max_bytes, ..Self::default() }
    }

    /// Returns how many bytes an answer may have.
    pub fn max_bytes(&self) -> Option<usize> {
        self.max_bytes
    }

    /// Lends item `i` of a plain sheet.
    pub fn item(&self, i: usize) -> Option<&[u8]> {
        self.places.get(i)?.clone().map(|place| &self.bytes[place])
    }

    /// Returns the items of a plain sheet.
    pub fn items(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> {
        self.places.iter().map(|place| place.clone().map(|place| &self.bytes[place]))
    }

    /// Returns how many bytes were written.
    pub fn written_bytes(&self) -> usize {
        self.used
    }

    /// Takes what was written, for the frontend to go on with.
    pub fn into_written(mut self) -> Vec<u8> {
        self.bytes.truncate(self.used);
        self.bytes
    }

    /// Takes the buffer for the next answer, with whatever stands in it.
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes an item of exactly `len` bytes by `write`; where that fails, the item is absent and nothing of it stays.
    pub(crate) fn put<T, E>(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.used;
        if let Some(framing) = self.framing {
            let (header, count) = (framing.item)(len);
            self.raw(&header[..count]);
        }
        let start = self.used;
        match write(self.grow(len)) {
            Ok(value) => {
                if self.framing.is_none() {
                    self.places.push(Some(start..start + len));
                }
                Ok(value)
            }
            Err(error) => {
                self.used = before;
                self.absent();
                Err(error)
            }
        }
    }

    /// Writes that an item is absent.
    pub(crate) fn absent(&mut self) {
        match self.framing {
            Some(framing) => self.raw(&[framing.absent]),
            None => self.places.push(None),
        }
    }

    /// Writes whether something is true; of a plain sheet alone.
    pub(crate) fn truth(&mut self, is_true: bool) {
        debug_assert!(self.framing.is_none(), "no frontend frames truths");
        let start = self.used;
        self.raw(&[u8::from(is_true)]);
        self.places.push(Some(start..start + 1));
    }

    /// Writes that two items follow as a pair.
    pub(crate) fn pair(&mut self) {
        if let Some(framing) = self.framing {
            self.raw(&[framing.pair]);
        }
    }

    /// Makes room for so many items more, which have so many bytes with their framing, at once.
    pub(crate) fn reserve(&mut self, items: usize, bytes: usize) {
        if self.framing.is_none() {
            self.places.reserve(items);
        }
        let needed = self.used + bytes;
        if needed > self.bytes.len() {
            self.bytes.resize(needed, 0);
        }
    }

    /// Wipes all results and begins anew behind the frontend's head.
    pub(crate) fn restart(&mut self) {
        self.bytes[self.start..self.used].zeroize();
        self.used = self.start;
        self.places.clear();
    }

    /// Wipes all results: the answer will not be given.
    pub(crate) fn wipe(&mut self) {
        self.bytes[..self.used].zeroize();
        self.used = 0;
        self.places.clear();
    }

    fn grow(&mut self, len: usize) -> &mut [u8] {
        let start = self.used;
        self.used += len;
        if self.bytes.len() < self.used {
            self.bytes.resize(self.used, 0);
        }
        &mut self.bytes[start..self.used]
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FRAMING: Framing =
        Framing { item: |len| ([b'<', len as u8, 0, 0, 0], 2), absent: b'-', pair: b'&' };

    fn fill(byte: u8) -> impl FnOnce(&mut [u8]) -> Result<(), ()> {
        move |out| {
            out.fill(byte);
            Ok(())
        }
    }

    #[test]
    fn items_are_written_in_the_frontends_framing_and_a_failed_one_leaves_nothing() {
        // A buffer that served before, with something longer in it.
        let mut sheet = Sheet::framed(vec![9; 40], b"head", &FRAMING, 100);
        sheet.put(2, fill(b'a')).unwrap();
        sheet
            .put(3, |out| {
                out.fill(b'x');
                Err::<(), ()>(())
            })
            .unwrap_err();
        sheet.pair();
        sheet.put(1, fill(b'b')).unwrap();
        assert_eq!(sheet.into_written(), b"head<\x02aa-&<\x01b");
    }

    #[test]
    fn a_plain_sheet_knows_its_items_and_forgets_them_when_wiped() {
        let mut sheet = Sheet::plain(None);
        sheet.put(2, fill(b'a')).unwrap();
        sheet.absent();
        sheet.put(0, fill(b'b')).unwrap();
        assert_eq!(sheet.items().collect::<Vec<_>>(), [Some(&b"aa"[..]), None, Some(&b""[..])]);
        sheet.wipe();
        assert_eq!(sheet.item(0), None);
        assert!(sheet.into_buffer().iter().all(|byte| *byte == 0));
    }
}
