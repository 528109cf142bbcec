//! The items of a request as places in its frame: nothing is copied on the way in.

use bytes::Bytes;
use keymill_core::operation::Bin;

#[derive(Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

enum Spans {
    One(Span),
    Many(Box<[Span]>),
}

/// Items as ranges over one owned buffer.
pub struct Items {
    frame: Bytes,
    spans: Spans,
    /// What they have together.
    bytes: u64,
    /// Bytes that were copied to have them in one buffer.
    copied: usize,
}

impl Items {
    /// Finds the items in the frame that they were read from; items that lie elsewhere (decoded from base64, or without a frame)
    /// are gathered into a buffer of their own.
    pub fn locate(frame: Option<&Bytes>, items: &[Bin<'_>]) -> Self {
        if let Some(frame) = frame
            && u32::try_from(frame.len()).is_ok()
        {
            let base = frame.as_ptr() as usize;
            let place = |item: &Bin<'_>| -> Option<Span> {
                if item.is_empty() {
                    return Some(Span { start: 0, len: 0 });
                }
                let start = (item.as_ptr() as usize).checked_sub(base)?;
                (start.checked_add(item.len())? <= frame.len())
                    .then_some(Span { start: start as u32, len: item.len() as u32 })
            };
            if let [item] = items {
                if let Some(span) = place(item) {
                    return Self::over(frame.clone(), Spans::One(span), 0);
                }
            } else {
                // Made in one piece: what is collected through an `Option` grows as it goes.
                let mut spans = Vec::with_capacity(items.len());
                spans.extend(items.iter().map_while(place));
                if spans.len() == items.len() {
                    return Self::over(frame.clone(), Spans::Many(spans.into()), 0);
                }
            }
        }
        Self::gather(items.iter().map(|item| &**item))
    }

    fn over(frame: Bytes, spans: Spans, copied: usize) -> Self {
        let bytes = match &spans {
            Spans::One(span) => u64::from(span.len),
            Spans::Many(spans) => spans.iter().map(|span| u64::from(span.len)).sum(),
        };
        Self { frame, spans, bytes, copied }
    }

    /// Copies items into one buffer.
    pub fn gather<'a>(items: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut buffer = Vec::new();
        let spans = items
            .map(|item| {
                let start = buffer.len() as u32;
                buffer.extend_from_slice(item);
                Span { start, len: item.len() as u32 }
            })
            .collect();
        let copied = buffer.len();
        Self::over(Bytes::from(buffer), Spans::Many(spans), copied)
    }

    /// Takes a buffer of items of equal length, end to end.
    pub fn even(frame: Bytes, len: usize) -> Self {
        let spans = (0..frame.len() / len.max(1))
            .map(|i| Span { start: (i * len) as u32, len: len as u32 })
            .collect();
        Self::over(frame, Spans::Many(spans), 0)
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        match &self.spans {
            Spans::One(_) => 1,
            Spans::Many(spans) => spans.len(),
        }
    }

    /// Returns the bytes of all items together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many bytes had to be copied to have the items in one buffer.
    pub fn copied(&self) -> usize {
        self.copied
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the length of item `i`, in bytes.
    pub fn item_len(&self, i: usize) -> usize {
        self.span(i).len as usize
    }

    /// Lends item `i`.
    pub fn get(&self, i: usize) -> &[u8] {
        let span = self.span(i);
        &self.frame[span.start as usize..span.start as usize + span.len as usize]
    }

    fn span(&self, i: usize) -> Span {
        match &self.spans {
            Spans::One(span) => *span,
            Spans::Many(spans) => spans[i],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_the_frame_stay_where_they_are_and_others_are_gathered() {
        let frame = Bytes::from_static(b"..alpha.beta");
        let inside = [Bin::from(&frame[2..7]), Bin::from(&frame[8..12]), Bin::from(&frame[0..0])];
        let items = Items::locate(Some(&frame), &inside);
        assert_eq!((items.get(0), items.get(1), items.get(2)), (&b"alpha"[..], &b"beta"[..], &b""[..]));
        assert_eq!(items.get(0).as_ptr(), frame[2..].as_ptr());
        assert_eq!((items.len(), items.bytes(), items.copied()), (3, 9, 0));
        let outside = [Bin::from(b"elsewhere".to_vec()), Bin::from(&frame[8..12])];
        let items = Items::locate(Some(&frame), &outside);
        assert_eq!((items.get(0), items.get(1)), (&b"elsewhere"[..], &b"beta"[..]));
        assert_eq!(Items::locate(None, &inside).get(1), b"beta");
    }
}
