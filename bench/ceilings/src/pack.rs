//! The least of MessagePack that the bare loop and its client need: a walk over borrowed bytes, and a
//! writer whose buffer keeps its length between bursts, so that a blob is sealed where it is sent from.

/// Walks one MessagePack value; `None` means malformed or cut short, and ends the connection.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn array(&mut self) -> Option<usize> {
        match self.byte()? {
            b @ 0x90..=0x9f => Some(usize::from(b & 0x0f)),
            0xdc => self.length::<2>(),
            0xdd => self.length::<4>(),
            _ => None,
        }
    }

    pub(crate) fn map(&mut self) -> Option<usize> {
        match self.byte()? {
            b @ 0x80..=0x8f => Some(usize::from(b & 0x0f)),
            0xde => self.length::<2>(),
            0xdf => self.length::<4>(),
            _ => None,
        }
    }

    pub(crate) fn uint(&mut self) -> Option<u64> {
        match self.byte()? {
            b @ 0x00..=0x7f => Some(u64::from(b)),
            0xcc => self.byte().map(u64::from),
            0xcd => self.chunk().map(|b| u64::from(u16::from_be_bytes(b))),
            0xce => self.chunk().map(|b| u64::from(u32::from_be_bytes(b))),
            0xcf => self.chunk().map(u64::from_be_bytes),
            _ => None,
        }
    }

    /// Text as its bytes: names are compared, never shown.
    pub(crate) fn str(&mut self) -> Option<&'a [u8]> {
        let length = match self.byte()? {
            b @ 0xa0..=0xbf => usize::from(b & 0x1f),
            0xd9 => self.length::<1>()?,
            0xda => self.length::<2>()?,
            0xdb => self.length::<4>()?,
            _ => return None,
        };
        self.take(length)
    }

    #[inline]
    pub(crate) fn bin(&mut self) -> Option<&'a [u8]> {
        let length = match self.byte()? {
            0xc4 => self.length::<1>()?,
            0xc5 => self.length::<2>()?,
            0xc6 => self.length::<4>()?,
            _ => return None,
        };
        self.take(length)
    }

    fn length<const N: usize>(&mut self) -> Option<usize> {
        let bytes: [u8; N] = self.chunk()?;
        Some(bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)))
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*chunk)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

/// Frames waiting to be written; the buffer is zeroed only where it grows.
#[derive(Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    filled: usize,
}

impl Output {
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Leaves room for the length of a frame; the return value goes to [`Output::end_frame`].
    pub(crate) fn begin_frame(&mut self) -> usize {
        let start = self.filled;
        self.room(4);
        start
    }

    pub(crate) fn end_frame(&mut self, start: usize) {
        let length = u32::try_from(self.filled - start - 4).expect("an answer is shorter than 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    pub(crate) fn array(&mut self, length: usize) {
        match length {
            0..=15 => self.put(&[0x90 | length as u8]),
            16..=0xffff => self.put_head(0xdc, &(length as u16).to_be_bytes()),
            _ => self.put_head(0xdd, &(length as u32).to_be_bytes()),
        }
    }

    /// The head of a map of at most 15 pairs: no answer has more.
    pub(crate) fn map(&mut self, pairs: u8) {
        debug_assert!(pairs < 16, "map of {pairs} pairs does not fit a fixmap");
        self.put(&[0x80 | pairs]);
    }

    pub(crate) fn uint(&mut self, value: u64) {
        match value {
            0..=0x7f => self.put(&[value as u8]),
            0x80..=0xff => self.put(&[0xcc, value as u8]),
            0x100..=0xffff => self.put_head(0xcd, &(value as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.put_head(0xce, &(value as u32).to_be_bytes()),
            _ => self.put_head(0xcf, &value.to_be_bytes()),
        }
    }

    pub(crate) fn str(&mut self, text: &str) {
        match text.len() {
            length @ 0..=31 => self.put(&[0xa0 | length as u8]),
            length => self.put(&[0xd9, u8::try_from(length).expect("our texts are short")]),
        }
        self.put(text.as_bytes());
    }

    /// Writes the head of a `bin` and lends its body, to be filled in place.
    #[inline]
    pub(crate) fn bin(&mut self, length: usize) -> &mut [u8] {
        match length {
            0..=0xff => self.put(&[0xc4, length as u8]),
            0x100..=0xffff => self.put_head(0xc5, &(length as u16).to_be_bytes()),
            _ => self.put_head(0xc6, &(length as u32).to_be_bytes()),
        }
        self.room(length)
    }

    /// Writes `length` zero bytes, each the integer 0.
    pub(crate) fn zeros(&mut self, length: usize) {
        self.room(length).fill(0);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    fn put_head<const N: usize>(&mut self, marker: u8, length: &[u8; N]) {
        let room = self.room(1 + N);
        room[0] = marker;
        room[1..].copy_from_slice(length);
    }

    /// Lends the next `length` bytes, to be filled; what they held before is unspecified.
    #[inline]
    pub(crate) fn room(&mut self, length: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled += length;
        if self.filled > self.bytes.len() {
            self.grow();
        }
        &mut self.bytes[start..self.filled]
    }

    #[cold]
    fn grow(&mut self) {
        self.bytes.resize(self.filled.next_power_of_two().max(64 * 1024), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_at_every_width() {
        let mut out = Output::default();
        let lengths = [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536];
        for length in lengths {
            out.array(length);
            out.bin(length).fill(7);
            out.uint(length as u64);
        }
        out.uint(u64::MAX);
        out.str("short");
        out.str("a text that is longer than thirty-one bytes");
        out.map(3);
        let mut reader = Reader::new(out.filled());
        for length in lengths {
            assert_eq!(reader.array(), Some(length));
            assert_eq!(reader.bin(), Some(vec![7; length].as_slice()));
            assert_eq!(reader.uint(), Some(length as u64));
        }
        assert_eq!(reader.uint(), Some(u64::MAX));
        assert_eq!(reader.str(), Some(b"short".as_slice()));
        assert_eq!(reader.str(), Some(b"a text that is longer than thirty-one bytes".as_slice()));
        assert_eq!(reader.map(), Some(3));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_value_cut_short_is_refused() {
        assert_eq!(Reader::new(&[0xc4, 3, 1, 2]).bin(), None);
        assert_eq!(Reader::new(&[0xc5, 3]).bin(), None);
        assert_eq!(Reader::new(&[]).array(), None);
        assert_eq!(Reader::new(&[0xa1]).str(), None);
    }
}
