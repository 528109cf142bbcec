//! The pass over the markers of a frame: no allocation, no recursion, and for the byte strings of a batch nothing but their
//! headers is touched. Apart from `frame`, which says what the parts of a frame mean.

use crate::frame::{Fault, Flaw, FlawKind, MAX_DEPTH};

/// What a marker announces; lengths are in bytes, counts in values or pairs.
pub(crate) enum Head {
    /// Nil, a boolean, or an integer that is skipped already.
    Scalar,
    Str(usize),
    Bin(usize),
    Array(usize),
    Map(usize),
    Float(usize),
    Extension(usize),
}

/// A pass over one frame.
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The first flaw that was met.
    pub(crate) flaw: Option<Flaw<'a>>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, flaw: None }
    }

    pub(crate) fn end(&self) -> Result<(), Fault> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(Fault::TrailingBytes) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let taken = self.bytes[self.at..].get(..length).ok_or(Fault::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    fn number<const WIDTH: usize>(&mut self) -> Result<u64, Fault> {
        let digits: &[u8; WIDTH] = self.bytes[self.at..].first_chunk().ok_or(Fault::Truncated)?;
        self.at += WIDTH;
        let mut number = [0; 8];
        number[8 - WIDTH..].copy_from_slice(digits);
        Ok(u64::from_be_bytes(number))
    }

    fn count<const WIDTH: usize>(&mut self) -> Result<usize, Fault> {
        self.number::<WIDTH>().map(|count| count as usize)
    }

    pub(crate) fn head(&mut self) -> Result<Head, Fault> {
        let marker = self.take(1)?[0];
        Ok(match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Head::Scalar,
            0x80..=0x8f => Head::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Head::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => Head::Str(usize::from(marker & 0x1f)),
            0xc1 => return Err(Fault::Reserved),
            0xc4 => Head::Bin(self.count::<1>()?),
            0xc5 => Head::Bin(self.count::<2>()?),
            0xc6 => Head::Bin(self.count::<4>()?),
            // The type of an extension stands after its length.
            0xc7 => Head::Extension(self.count::<1>()? + 1),
            0xc8 => Head::Extension(self.count::<2>()? + 1),
            0xc9 => Head::Extension(self.count::<4>()? + 1),
            0xca => Head::Float(4),
            0xcb => Head::Float(8),
            0xcc | 0xd0 => self.take(1).map(|_| Head::Scalar)?,
            0xcd | 0xd1 => self.take(2).map(|_| Head::Scalar)?,
            0xce | 0xd2 => self.take(4).map(|_| Head::Scalar)?,
            0xcf | 0xd3 => self.take(8).map(|_| Head::Scalar)?,
            0xd4..=0xd8 => Head::Extension((1 << (marker - 0xd4)) + 1),
            0xd9 => Head::Str(self.count::<1>()?),
            0xda => Head::Str(self.count::<2>()?),
            0xdb => Head::Str(self.count::<4>()?),
            0xdc => Head::Array(self.count::<2>()?),
            0xdd => Head::Array(self.count::<4>()?),
            0xde => Head::Map(self.count::<2>()?),
            0xdf => Head::Map(self.count::<4>()?),
        })
    }

    /// Reads a non-negative integer of any width; `None` for anything else, which is then left half read.
    pub(crate) fn id(&mut self) -> Result<Option<u64>, Fault> {
        let marker = self.take(1)?[0];
        let number = match marker {
            0x00..=0x7f => u64::from(marker),
            0xcc | 0xd0 => self.number::<1>()?,
            0xcd | 0xd1 => self.number::<2>()?,
            0xce | 0xd2 => self.number::<4>()?,
            0xcf | 0xd3 => self.number::<8>()?,
            _ => return Ok(None),
        };
        let signed = matches!(marker, 0xd0..=0xd3);
        let sign_bit = 1 << ((8 << (marker & 3)) - 1);
        Ok((!signed || number & sign_bit == 0).then_some(number))
    }

    /// Reads a name and the map that follows it, up to the end of the frame.
    pub(crate) fn named_map(&mut self, fault: Fault) -> Result<(&'a str, &'a [u8]), Fault> {
        let Head::Str(length) = self.head()? else { return Err(fault) };
        let name = std::str::from_utf8(self.take(length)?).map_err(|_| fault)?;
        let map = self.parameters(2, fault)?;
        self.end()?;
        Ok((name, map))
    }

    /// Skips a map of parameters that stands at `depth`, keeping the name of the one with the first flaw.
    pub(crate) fn parameters(&mut self, depth: usize, fault: Fault) -> Result<&'a [u8], Fault> {
        let start = self.at;
        let Head::Map(pairs) = self.head()? else { return Err(fault) };
        for _ in 0..pairs {
            let key = self.at;
            self.value(depth, true)?;
            let sound = self.flaw.is_none();
            self.value(depth, false)?;
            if let (true, Some(flaw)) = (sound, &mut self.flaw) {
                let mut name = Scan { bytes: self.bytes, at: key, flaw: None };
                let Head::Str(length) = name.head()? else { continue };
                flaw.field = std::str::from_utf8(name.take(length)?).ok();
            }
        }
        Ok(&self.bytes[start..self.at])
    }

    /// Skips one value that stands inside `outside` arrays and maps.
    fn value(&mut self, outside: usize, is_key: bool) -> Result<(), Fault> {
        match self.leaf_or_level(is_key)? {
            None => Ok(()),
            Some(level) => self.levels(outside, level),
        }
    }

    /// Skips what is left of an array or map that stands inside `outside` others.
    fn levels(&mut self, outside: usize, first: Level) -> Result<(), Fault> {
        let mut open = [Level::default(); MAX_DEPTH];
        let mut depth = outside;
        let mut opened = Some(first);
        loop {
            if let Some(mut level) = opened {
                if depth == MAX_DEPTH {
                    return Err(Fault::TooDeep);
                }
                if !level.map {
                    level.left = self.bins(level.left)?;
                }
                open[depth] = level;
                depth += 1;
            }
            while open[depth - 1].left == 0 {
                depth -= 1;
                if depth == outside {
                    return Ok(());
                }
            }
            let level = &mut open[depth - 1];
            let is_key = level.map && level.left.is_multiple_of(2);
            level.left -= 1;
            opened = self.leaf_or_level(is_key)?;
        }
    }

    /// Skips a value that holds no others, or the header of one that does.
    fn leaf_or_level(&mut self, is_key: bool) -> Result<Option<Level>, Fault> {
        let head = self.head()?;
        if is_key && !matches!(head, Head::Str(_)) {
            self.note(FlawKind::KeyNotText);
        }
        match head {
            Head::Scalar => {}
            Head::Str(length) => {
                let text = self.take(length)?;
                // Names and ids are short, and ASCII is told at a glance.
                if !text.is_ascii() && std::str::from_utf8(text).is_err() {
                    self.note(FlawKind::InvalidUtf8);
                }
            }
            Head::Bin(length) => {
                self.take(length)?;
            }
            Head::Float(width) => {
                self.note(FlawKind::Float);
                self.take(width)?;
            }
            Head::Extension(length) => {
                self.note(FlawKind::Extension);
                self.take(length)?;
            }
            Head::Array(values) => return Ok(Some(Level { left: values, map: false })),
            // Counts are below 2^32, so twice one fits.
            Head::Map(pairs) => return Ok(Some(Level { left: 2 * pairs, map: true })),
        }
        Ok(None)
    }

    /// Skips the byte strings that an array of `left` values starts with, and returns how many values are left.
    /// A batch is made of these, so the loop touches nothing but their headers.
    fn bins(&mut self, mut left: usize) -> Result<usize, Fault> {
        let bytes = self.bytes;
        let mut at = self.at;
        while left > 0 {
            at = match bytes.get(at..) {
                Some([0xc4, a, ..]) => at + 2 + usize::from(*a),
                Some([0xc5, a, b, ..]) => at + 3 + usize::from(u16::from_be_bytes([*a, *b])),
                Some([0xc6, a, b, c, d, ..]) => at + 5 + u32::from_be_bytes([*a, *b, *c, *d]) as usize,
                Some(_) => break,
                None => return Err(Fault::Truncated),
            };
            left -= 1;
        }
        self.at = at;
        if at > bytes.len() { Err(Fault::Truncated) } else { Ok(left) }
    }

    fn note(&mut self, kind: FlawKind) {
        self.flaw.get_or_insert(Flaw { field: None, kind });
    }
}

/// An array or map that is not read to its end.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Values to come; keys and values both count.
    left: usize,
    map: bool,
}
