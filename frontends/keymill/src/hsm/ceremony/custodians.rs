//! The custodians' shares: of a key under which the copy of a domain's keys is wrapped, each a line that says which set it is of and
//! how many of that set open the copy, so that a wrong mix is told before a token is touched.

use std::fmt;
use std::path::Path;

use keymill_core::Sensitive;
use keymill_crypto::{digest, random};
use zeroize::Zeroizing;

use super::shamir::{self, MAX_SHARES};
use crate::failure::{Failure, Result};
use crate::plugins::pkcs11::KEK_BYTES;
use crate::private;

const PREFIX: &str = "keymill-share-1";
/// Bytes of a set's id: they also tell whether the shares gave the key back that they were made of.
const SET_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;

/// How many custodians there are, and how many of them it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Custodians {
    pub(super) threshold: u8,
    pub(super) count: u8,
}

impl Custodians {
    /// Reads `3-of-5`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let numbers = text.split_once("-of-").and_then(|(threshold, count)| {
            Some(Self { threshold: threshold.parse().ok()?, count: count.parse().ok()? })
        });
        let custodians = numbers.ok_or("write it as in 3-of-5: any 3 of 5 custodians open the copy")?;
        match custodians {
            Self { threshold: 0 | 1, .. } => {
                Err("it takes 2 custodians at least: one alone would hold the domain's keys".to_owned())
            }
            Self { threshold, count } if threshold > count => {
                Err(format!("it cannot take {threshold} of {count} custodians"))
            }
            Self { count, .. } if count > MAX_SHARES => {
                Err(format!("there are {MAX_SHARES} custodians at most"))
            }
            _ => Ok(custodians),
        }
    }
}

impl fmt::Display for Custodians {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.threshold, self.count)
    }
}

/// What one custodian holds.
pub(super) struct Share {
    /// Which set it is of.
    pub(super) set: String,
    pub(super) custodians: Custodians,
    share: shamir::Share,
}

/// Returns the id of the set of shares that `kek` is split into.
pub(super) fn set_of(kek: &Sensitive) -> String {
    // Of 256 random bits this tells nothing that helps to find them.
    let hash = digest::hmac_sha256(b"keymill custodians' set", kek.expose());
    digest::hex(&hash[..SET_BYTES])
}

/// Splits the key, and sees that shares give it back.
pub(super) fn split(kek: &Sensitive, custodians: Custodians) -> Result<Vec<Share>> {
    let Custodians { threshold, count } = custodians;
    let parts = shamir::split(kek, threshold, count, random::draw)
        .map_err(Failure::because("the shares of the custodians"))?;
    let set = set_of(kek);
    let shares: Vec<Share> =
        parts.into_iter().map(|share| Share { set: set.clone(), custodians, share }).collect();
    let copied = |share: &Share| Share { share: copied(&share.share), set: share.set.clone(), custodians };
    let last: Vec<Share> = shares.iter().rev().take(usize::from(threshold)).map(copied).collect();
    match digest::equal(combine(&last, None)?.expose(), kek.expose()) {
        true => Ok(shares),
        false => Err(Failure::new("the shares do not give their key back: this machine computes wrongly")),
    }
}

fn copied(share: &shamir::Share) -> shamir::Share {
    shamir::Share { at: share.at, values: Sensitive::copied(share.values.expose()) }
}

/// Gives back the key that the shares are of; `set` is the one that the copy names.
pub(super) fn combine(shares: &[Share], set: Option<&str>) -> Result<Sensitive> {
    let Some(first) = shares.first() else {
        return Err(Failure::wrong_use("no share is given"));
    };
    let wanted = set.unwrap_or(&first.set);
    for share in shares {
        if share.set != wanted {
            return Err(Failure::wrong_use(format!(
                "share {} is of set {}, and the copy is of set {wanted}",
                share.share.at, share.set
            ))
            .next(
                "bring the shares that were handed out in one ceremony, and the copy that was made there",
            ));
        }
        if share.custodians != first.custodians {
            return Err(Failure::wrong_use(format!(
                "shares of set {wanted} do not agree on how many of them it takes: {} and {}",
                first.custodians, share.custodians
            )));
        }
    }
    let numbers = shares.iter().map(|share| share.share.at);
    if let Some(twice) = numbers.clone().find(|at| numbers.clone().filter(|other| other == at).count() > 1) {
        return Err(Failure::wrong_use(format!("share {twice} is given twice"))
            .next("bring the share of another custodian"));
    }
    let needed = usize::from(first.custodians.threshold);
    if shares.len() < needed {
        return Err(Failure::wrong_use(format!(
            "set {wanted} takes {needed} shares of {}, and {} {} given",
            first.custodians.count,
            shares.len(),
            if shares.len() == 1 { "is" } else { "are" }
        ))
        .next("bring the share of another custodian"));
    }
    let parts: Vec<shamir::Share> = shares[..needed].iter().map(|share| copied(&share.share)).collect();
    let kek = shamir::combine(&parts);
    match digest::equal(set_of(&kek).as_bytes(), wanted.as_bytes()) {
        true => Ok(kek),
        false => Err(Failure::new(format!(
            "the shares do not give the key of set {wanted}: one of them was altered"
        ))
        .next("try with the share of another custodian in the place of each")),
    }
}

impl Share {
    /// Returns which of the shares it is.
    pub(super) fn number(&self) -> u8 {
        self.share.at
    }

    /// Writes the line that a custodian keeps.
    pub(super) fn line(&self) -> Zeroizing<String> {
        let Custodians { threshold, count } = self.custodians;
        let values = Zeroizing::new(digest::hex(self.share.values.expose()));
        let body = Zeroizing::new(format!(
            "{PREFIX}:{}:{threshold}:{count}:{}:{}",
            self.set, self.share.at, *values
        ));
        Zeroizing::new(format!("{}:{}", *body, checksum(&body)))
    }

    /// Reads a line; `place` says in an error where it came from.
    pub(super) fn parse(text: &str, place: &str) -> Result<Self> {
        let refused = |why: &str| {
            Err(Failure::wrong_use(format!("{place}: {why}"))
                .next(format!("a share is one line that begins with {PREFIX}: and ends with its checksum")))
        };
        let mut line = Zeroizing::new(String::with_capacity(text.len()));
        line.extend(text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()));
        let Some((body, sum)) = line.rsplit_once(':') else {
            return refused("that is no share");
        };
        let mut parts = body.split(':');
        if parts.next() != Some(PREFIX) {
            return refused("that is no share");
        }
        if sum != checksum(body) {
            return refused("its checksum does not fit: a character was misread or is missing");
        }
        let number = |part: Option<&str>| part.and_then(|text| text.parse().ok());
        let set = parts.next().unwrap_or_default().to_owned();
        let (threshold, count, at) = (number(parts.next()), number(parts.next()), number(parts.next()));
        let values = parts.next().and_then(bytes);
        match (threshold, count, at, values, parts.next()) {
            (Some(threshold), Some(count), Some(at), Some(values), None)
                if values.len() == KEK_BYTES
                    && (1..=count).contains(&at)
                    && (2..=count).contains(&threshold) =>
            {
                let share = shamir::Share { at, values };
                Ok(Self { set, custodians: Custodians { threshold, count }, share })
            }
            _ => refused("that is no share of this version"),
        }
    }

    /// Reads the file of a share: the one line in it that is not for people.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let file =
            private::read(path)?.ok_or_else(|| Failure::wrong_use(format!("{shown} does not exist")))?;
        let text = std::str::from_utf8(file.expose())
            .map_err(|_| Failure::wrong_use(format!("{shown}: that is no share")))?;
        let line = text.lines().find(|line| line.trim_start().to_ascii_lowercase().starts_with(PREFIX));
        Self::parse(line.unwrap_or_default(), &shown)
    }

    /// Writes the file of a share, with what its custodian is to know.
    pub(super) fn file(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "# Share {} of {} of the keys of a keymill domain; any {} of set {} open the copy.\n\
             # Keep it apart from the other shares and from the copy, and let nobody see it.\n{}\n",
            self.share.at,
            self.custodians.count,
            self.custodians.threshold,
            self.set,
            *self.line()
        ))
    }
}

fn checksum(body: &str) -> String {
    digest::hex(&digest::sha256(body.as_bytes())[..CHECKSUM_BYTES])
}

/// Reads hexadecimal digits.
fn bytes(digits: &str) -> Option<Sensitive> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = Sensitive::zeroed(digits.len() / 2);
    for (at, byte) in out.expose_mut().iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(byte: u8) -> (Sensitive, Vec<Share>) {
        let kek = Sensitive::new(vec![byte; KEK_BYTES]);
        let shares = split(&kek, Custodians { threshold: 3, count: 5 }).unwrap();
        (kek, shares)
    }

    fn again(share: &Share) -> Share {
        Share::parse(&share.line(), "a share").unwrap()
    }

    fn refusal(shares: &[Share], set: &str) -> String {
        combine(shares, Some(set)).err().unwrap().to_string()
    }

    #[test]
    fn shares_that_were_written_and_read_give_their_key() {
        let (kek, shares) = shares(7);
        for which in [[0, 1, 2], [4, 2, 0]] {
            let read: Vec<Share> = which.iter().map(|index| again(&shares[*index])).collect();
            assert_eq!(combine(&read, Some(&set_of(&kek))).unwrap().expose(), kek.expose());
        }
        // Typed from paper: in groups and capitals.
        let line = shares[0].line();
        let (start, rest) = line.split_at(50);
        let typed = format!(" {} {}\n", start.to_ascii_uppercase(), rest);
        assert_eq!(Share::parse(&typed, "typed").unwrap().number(), 1);
        assert!(shares[4].line().len() <= 120, "fits a line of print");
    }

    #[test]
    fn a_wrong_mix_is_told() {
        let (kek, ours) = shares(7);
        let (_, others) = shares(8);
        let set = set_of(&kek);
        assert!(refusal(&[again(&ours[0]), again(&others[1]), again(&ours[2])], &set).contains("of set"));
        assert!(refusal(&[again(&others[0])], &set).contains("and the copy is of set"));
        assert!(
            refusal(&[again(&ours[0]), again(&ours[1])], &set)
                .contains("takes 3 shares of 5, and 2 are given")
        );
        assert!(
            refusal(&[again(&ours[0]), again(&ours[1]), again(&ours[0])], &set)
                .contains("share 1 is given twice")
        );
        assert!(combine(&[], None).is_err());
        // A share of the right set and checksum, but with other bytes.
        let mut altered = again(&ours[2]);
        altered.share.values.expose_mut()[5] ^= 1;
        assert!(refusal(&[again(&ours[0]), again(&ours[1]), altered], &set).contains("altered"));
    }

    #[test]
    fn every_character_that_is_misread_is_noticed() {
        let (_, shares) = shares(7);
        let line = shares[1].line();
        for at in 0..line.len() {
            let mut wrong = line.to_string().into_bytes();
            wrong[at] = if wrong[at] == b'4' { b'5' } else { b'4' };
            let wrong = String::from_utf8(wrong).unwrap();
            let told = Share::parse(&wrong, "paper").err().unwrap().to_string();
            assert!(told.contains("paper") && !told.contains(&line[40..60]), "{told}");
        }
        for text in ["", "keymill-share-1", "keymill-share-1:", "keymill-share-2:00", &line[..line.len() - 1]]
        {
            assert!(Share::parse(text, "paper").is_err(), "{text}");
        }
    }

    #[test]
    fn how_many_it_takes_is_written_plainly() {
        assert_eq!(Custodians::parse("3-of-5"), Ok(Custodians { threshold: 3, count: 5 }));
        for bad in ["", "3", "3of5", "0-of-5", "1-of-5", "6-of-5", "2-of-33", "2-of-256", "-1-of-5", "3-of-"]
        {
            assert!(Custodians::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_lives_in_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("share");
        let (_, shares) = shares(7);
        private::create(&path, shares[3].file().as_bytes()).unwrap();
        assert_eq!(Share::read(&path).unwrap().number(), 4);
        private::replace(&path, b"# no share\n").unwrap();
        assert!(Share::read(&path).err().unwrap().to_string().contains("no share"));
        assert!(Share::read(&directory.path().join("absent")).is_err());
    }
}
