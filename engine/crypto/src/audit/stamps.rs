//! What the audit remembers of records, by path. There are two for each CMK, and every start holds them all: what names a CMK is kept as
//! its id, in one table without a pointer, so that a million of them take little room and leave no holes when they go.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use keymill_core::audit::RecordStamp;
use keymill_core::blob::TAG_BYTES;
use keymill_core::id::CmkId;

use super::json;

/// The last stamp of each record, by path.
#[derive(Clone, Default)]
pub struct Stamps {
    /// The first segments of paths, by the number that stands for them in a place.
    words: Vec<Box<str>>,
    of_cmks: HashMap<Place, Remembered, BuildHasherDefault<IdHasher>>,
    /// Those whose path or tag has another form.
    others: BTreeMap<String, RecordStamp>,
}

/// A path of the form `<word>/<CMK id>` or `<word>/<CMK id>/<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    id: CmkId,
    /// From 1; zero: none.
    number: u32,
    word: u8,
}

impl Hash for Place {
    /// By the id alone: the records of one CMK stand beside each other, as they are asked for.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.id.as_bytes());
    }
}

/// Takes the first eight bytes of an id, which is random and was made here, so that nobody can choose what stands in the table.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }
}

/// What is remembered of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its sequence number after the last write.
    pub sequence: u64,
    /// Its tag.
    pub tag: RememberedTag,
}

/// The tag of a record as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RememberedTag {
    /// The record was removed.
    Removed,
    /// The record has this tag.
    Is([u8; TAG_BYTES]),
    /// No record has what stands there.
    None,
}

impl From<&str> for RememberedTag {
    fn from(hexadecimal: &str) -> Self {
        match hexadecimal {
            "" => Self::Removed,
            digits => json::unhex(digits.as_bytes()).map_or(Self::None, Self::Is),
        }
    }
}

impl From<&RecordStamp> for Remembered {
    fn from(stamp: &RecordStamp) -> Self {
        Self { sequence: stamp.sequence, tag: stamp.tag.as_str().into() }
    }
}

impl Stamps {
    /// Keeps the stamp of a record in the place of any other.
    pub fn put(&mut self, path: &str, sequence: u64, tag: &str) {
        let known = Remembered { sequence, tag: tag.into() };
        let place = match known.tag {
            RememberedTag::None => None,
            RememberedTag::Removed | RememberedTag::Is(_) => self.place_for(path),
        };
        match place {
            Some(place) => {
                // One of another form may have been there.
                if !self.others.is_empty() {
                    self.others.remove(path);
                }
                self.of_cmks.insert(place, known);
            }
            None => {
                if let Some(place) = self.place(path) {
                    self.of_cmks.remove(&place);
                }
                let stamp = RecordStamp { path: path.to_owned(), sequence, tag: tag.to_owned() };
                self.others.insert(stamp.path.clone(), stamp);
            }
        }
    }

    /// Takes stamps, where they are newer than what is known.
    pub fn keep_newest(&mut self, more: Self) {
        if self.is_empty() {
            *self = more;
            return;
        }
        let Self { words, of_cmks, others } = more;
        let mut rest: Vec<RecordStamp> = others.into_values().collect();
        let words: Vec<_> = words.into_iter().map(|word| (self.number_of(&word), word)).collect();
        for (place, known) in of_cmks {
            let (number, word) = &words[usize::from(place.word)];
            let Some(number) = *number else {
                rest.push(stamp(word, place, known));
                continue;
            };
            match self.of_cmks.entry(Place { word: number, ..place }) {
                Entry::Vacant(vacant) => drop(vacant.insert(known)),
                Entry::Occupied(mut older) if older.get().sequence < known.sequence => {
                    older.insert(known);
                }
                Entry::Occupied(_) => {}
            }
        }
        for stamp in rest {
            if self.get(&stamp.path).is_none_or(|known| known.sequence < stamp.sequence) {
                self.put(&stamp.path, stamp.sequence, &stamp.tag);
            }
        }
    }

    /// Returns what is remembered of a record.
    pub fn get(&self, path: &str) -> Option<Remembered> {
        let of_cmk = self.place(path).and_then(|place| self.of_cmks.get(&place).copied());
        of_cmk.or_else(|| self.others.get(path).map(Remembered::from))
    }

    /// Returns what is remembered of a record that was come upon, and forgets it, unless the record was removed: what is left in the end
    /// are those that were, and those that are missing.
    pub fn recall(&mut self, path: &str) -> Option<Remembered> {
        if let Some(known) = self.place(path).and_then(|place| self.recall_place(place)) {
            return Some(known);
        }
        let known = Remembered::from(self.others.get(path)?);
        if known.tag != RememberedTag::Removed {
            self.others.remove(path);
        }
        Some(known)
    }

    /// The same by the parts of the path `<word>/<id>`, or `<word>/<id>/<number>` where the number is not zero.
    pub fn recall_at(&mut self, word: &str, id: &CmkId, number: u32) -> Option<Remembered> {
        let known = self.words.iter().position(|known| **known == *word);
        let place = known.map(|known| Place { id: *id, number, word: known as u8 });
        place.and_then(|place| self.recall_place(place)).or_else(|| self.recall(&text(word, id, number)))
    }

    fn recall_place(&mut self, place: Place) -> Option<Remembered> {
        match self.of_cmks.entry(place) {
            Entry::Occupied(known) if known.get().tag == RememberedTag::Removed => Some(*known.get()),
            Entry::Occupied(known) => Some(known.remove()),
            Entry::Vacant(_) => None,
        }
    }

    /// Tells whether there is a record whose path begins with a segment.
    pub fn has_under(&self, word: &str) -> bool {
        let known = self.words.iter().position(|known| **known == *word);
        known.is_some_and(|known| self.of_cmks.keys().any(|place| usize::from(place.word) == known))
            || self.others.keys().any(|path| path.split_once('/').is_some_and(|(first, _)| first == word))
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.of_cmks.len() + self.others.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the stamps in full, in no order.
    pub fn iter(&self) -> impl Iterator<Item = RecordStamp> {
        let of_cmks = self
            .of_cmks
            .iter()
            .map(|(place, known)| stamp(&self.words[usize::from(place.word)], *place, *known));
        of_cmks.chain(self.others.values().cloned())
    }

    /// Returns the place of a path, where it has one.
    fn place(&self, path: &str) -> Option<Place> {
        let (word, id, number) = split(path)?;
        let word = self.words.iter().position(|known| **known == *word)?;
        Some(Place { id, number, word: word as u8 })
    }

    /// The same, and makes a place for it.
    fn place_for(&mut self, path: &str) -> Option<Place> {
        let (word, id, number) = split(path)?;
        Some(Place { id, number, word: self.number_of(word)? })
    }

    fn number_of(&mut self, word: &str) -> Option<u8> {
        let known = self.words.iter().position(|known| **known == *word);
        let number = known.unwrap_or(self.words.len());
        let number = u8::try_from(number).ok()?;
        if known.is_none() {
            self.words.push(word.into());
        }
        Some(number)
    }
}

/// Splits a path that can be put together again as it was: a word, a CMK id, and a number or zero.
fn split(path: &str) -> Option<(&str, CmkId, u32)> {
    let (word, rest) = path.split_once('/')?;
    let (id, number) = match rest.split_once('/') {
        None => (rest, 0),
        Some((id, digits)) => {
            let is_plain = digits.bytes().all(|c| c.is_ascii_digit()) && !digits.starts_with('0');
            (id, digits.parse().ok().filter(|number| is_plain && *number > 0)?)
        }
    };
    Some((word, CmkId::parse(id)?, number))
}

fn text(word: &str, id: &CmkId, number: u32) -> String {
    match number {
        0 => format!("{word}/{id}"),
        number => format!("{word}/{id}/{number}"),
    }
}

fn stamp(word: &str, place: Place, known: Remembered) -> RecordStamp {
    let path = text(word, &place.id, place.number);
    let tag = match known.tag {
        RememberedTag::Is(tag) => json::hex_text(&tag),
        RememberedTag::Removed | RememberedTag::None => String::new(),
    };
    RecordStamp { path, sequence: known.sequence, tag }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";
    const TAG: &str = "000102030405060708090a0b0c0d0e0f";

    fn stamps(rows: &[(&str, u64, &str)]) -> Stamps {
        let mut stamps = Stamps::default();
        rows.iter().for_each(|(path, sequence, tag)| stamps.put(path, *sequence, tag));
        stamps
    }

    fn all(stamps: &Stamps) -> Vec<(String, u64, String)> {
        let mut all: Vec<_> = stamps.iter().map(|s| (s.path, s.sequence, s.tag)).collect();
        all.sort();
        all
    }

    #[test]
    fn every_path_and_tag_comes_back_as_it_was() {
        let paths = ["cmk/ID", "material/ID/1", "material/ID/4294967295", "alias/na", "installation", "x"];
        // None of these is the same path as one that it is like.
        let alike = [
            "material/ID/01",
            "material/ID/0",
            "material/ID/+1",
            "material/ID/4294967296",
            "material/ID/",
            "material/ID/1/2",
            "/ID",
            "cmk/ID/",
        ];
        let rows: Vec<(String, u64, String)> = paths
            .iter()
            .chain(&alike)
            .enumerate()
            .flat_map(|(at, path)| {
                let path = path.replace("ID", ID);
                [("", TAG), ("-removed", ""), ("-odd", "00"), ("-upper", "AA")].map(|(word, tag)| {
                    (path.replacen('/', &format!("{word}/"), 1), at as u64, tag.to_owned())
                })
            })
            .collect();
        let mut stamps = Stamps::default();
        let mut expected = BTreeMap::new();
        for (path, sequence, tag) in rows {
            stamps.put(&path, sequence, &tag);
            expected.insert(path, (sequence, tag));
        }
        let expected: Vec<_> = expected.into_iter().map(|(path, (s, tag))| (path, s, tag)).collect();
        assert_eq!(all(&stamps), expected);
        assert_eq!(stamps.len(), expected.len());
        for (path, sequence, tag) in expected {
            let known = Remembered { sequence, tag: tag.as_str().into() };
            let left = Some(known).filter(|known| known.tag == RememberedTag::Removed);
            assert_eq!(
                (stamps.get(&path), stamps.recall(&path), stamps.get(&path)),
                (Some(known), Some(known), left),
                "{path}"
            );
        }
        assert!(stamps.iter().all(|stamp| stamp.tag.is_empty()), "what was removed stays");
        assert_eq!(stamps.len(), 12);
    }

    #[test]
    fn a_record_is_recalled_by_the_parts_of_its_path_whatever_its_form() {
        let (cmk, material) = (format!("cmk/{ID}"), format!("material/{ID}/3"));
        let id = CmkId::parse(ID).unwrap();
        for tag in [TAG, "", "odd"] {
            let mut stamps = stamps(&[(&cmk, 1, tag), (&material, 2, tag)]);
            for (word, number, sequence) in [("cmk", 0, 1), ("material", 3, 2)] {
                let known = Some(Remembered { sequence, tag: tag.into() });
                let again = known.filter(|_| tag.is_empty());
                let recalled = [(); 2].map(|()| stamps.recall_at(word, &id, number));
                assert_eq!(recalled, [known, again], "{word}, {tag}");
            }
            assert_eq!([("cmk", 1), ("x", 0)].map(|(word, n)| stamps.recall_at(word, &id, n)), [None, None]);
        }
    }

    #[test]
    fn a_stamp_takes_the_place_of_the_one_before_whatever_their_forms() {
        let path = format!("cmk/{ID}");
        for tags in [[TAG, "odd"], ["odd", TAG], [TAG, ""], ["", TAG]] {
            let stamps = stamps(&[(&path, 9, tags[0]), (&path, 2, tags[1])]);
            assert_eq!(all(&stamps), [(path.clone(), 2, tags[1].to_owned())]);
        }
    }

    #[test]
    fn of_two_chains_the_newer_stamp_is_kept() {
        let [cmk, material, alias] = [format!("cmk/{ID}"), format!("material/{ID}/1"), "alias/na".to_owned()];
        let mut early = stamps(&[(&cmk, 3, TAG), (&alias, 1, TAG)]);
        early.keep_newest(stamps(&[(&alias, 2, ""), (&material, 1, TAG), (&cmk, 2, "")]));
        let expected = [(&alias, 2, ""), (&cmk, 3, TAG), (&material, 1, TAG)];
        assert_eq!(all(&early), expected.map(|(path, s, tag)| (path.clone(), s, tag.to_owned())));
        let mut none = Stamps::default();
        none.keep_newest(early);
        assert_eq!(none.len(), 3);
    }
}
