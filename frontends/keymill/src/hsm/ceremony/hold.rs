//! `keymill hsm ceremony` itself: the tokens are found, their wrapping keys compared by people, the keys made, copied for the
//! custodians, and the transcript written.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use keymill_core::Sensitive;
use keymill_core::time::Timestamp;
use keymill_crypto::digest;

use super::copy::CopyFile;
use super::custodians::{Custodians, Share, set_of, split};
use super::grouped;
use super::transcript::{Copy, Proof, Token, Transcript};
use crate::failure::{Failure, Result};
use crate::hsm::deadline::uninterrupted;
use crate::hsm::{DomainArgs, ModuleArgs, TokenArgs, load, parse_label, pin, prompt, refused};
use crate::plugins::pkcs11::{Ceremony, DomainCopy, MadeDomain, Party, PartyReport, WrappingKey};
use crate::{output, private, process};

/// The flags of a ceremony. Those that name a token stand once for all tokens, or once for each, in the order of the tokens.
#[derive(Args, Clone, Debug)]
pub(super) struct HoldArgs {
    /// The vendor's PKCS#11 library: once for all tokens, or once for each
    #[arg(long, value_name = "PATH")]
    module: Vec<PathBuf>,
    /// The label of a token that takes part; the first makes the keys
    #[arg(long, value_name = "LABEL", value_parser = parse_label)]
    token: Vec<String>,
    /// The serial number of each token, in their order, where two have one label
    #[arg(long, value_name = "NUMBER")]
    serial: Vec<String>,
    #[command(flatten)]
    domain: DomainArgs,
    /// File with the user's PIN, mode 0600: once for all tokens, or once for each; else KEYMILL_HSM_PIN, else it is asked for
    #[arg(long, value_name = "FILE")]
    pin_file: Vec<PathBuf>,
    /// Leave a copy of the keys that any M of N custodians open together, such as 3-of-5; without it, no token can join later
    #[arg(long, value_name = "M-of-N", value_parser = Custodians::parse, requires = "copy")]
    custodians: Option<Custodians>,
    /// File for the custodians' copy; it must not exist yet
    #[arg(long, value_name = "FILE", requires = "custodians")]
    copy: Option<PathBuf>,
    /// Directory for the shares, one file each, mode 0600; without it, each is shown once at the terminal
    #[arg(long, value_name = "DIR", requires = "custodians")]
    share_directory: Option<PathBuf>,
    /// File for the transcript, which holds no secret; it must not exist yet
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
    /// Ask nothing; --confirm says for each token but the first what was read there
    #[arg(long, requires = "confirm")]
    yes: bool,
    /// The last 4 characters of a wrapping key's fingerprint, read at its token by `ceremony wrapping-key`
    #[arg(long, value_name = "SERIAL=xxxx", requires = "yes", value_parser = parse_confirmation)]
    confirm: Vec<(String, String)>,
    /// Write and print the transcript as JSON
    #[arg(long)]
    json: bool,
}

fn parse_confirmation(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((serial, characters)) if characters.len() == 4 && !serial.is_empty() => {
            Ok((serial.to_owned(), characters.to_ascii_lowercase()))
        }
        _ => Err("write it as SERIAL=xxxx, with the last 4 characters of the fingerprint".to_owned()),
    }
}

pub(super) fn run(args: HoldArgs) -> Result<()> {
    process::harden()?;
    let transcript_file = args.check()?;
    let parties = args.parties()?;
    let mut ceremony = Ceremony::begin(&parties).map_err(refused)?;
    // From here on, whatever fails takes away what was made.
    let held = match args.held(&mut ceremony) {
        Ok(held) => held,
        Err(failure) => return Err(undone(&mut ceremony, failure)),
    };
    let finished = uninterrupted(|| ceremony.finish());
    let trouble = finished.as_ref().err().map(ToString::to_string);
    let transcript = held.transcript(trouble);
    let text = match args.json {
        true => serde_json::to_string_pretty(&transcript).map_err(Failure::because("JSON"))? + "\n",
        false => transcript.to_string(),
    };
    // The tokens are made: whatever becomes of the file, somebody sees it.
    output::line(text.trim_end())?;
    private::create(transcript_file, text.as_bytes()).map_err(|failure| {
        Failure::new(format!("the tokens are made, but their transcript is not written: {failure}"))
            .next("keep what stands above")
    })?;
    finished.map_err(refused)?;
    if !args.json {
        let first = &parties[0];
        output::line(format_args!(
            "\nThis transcript is in {}.\n  next: keymill hsm doctor --module {} --token {}, and so for each token",
            transcript_file.display(),
            first.module.path().display(),
            first.token_label
        ))?;
    }
    Ok(())
}

/// Takes away what was made, and says what could not be.
fn undone(ceremony: &mut Ceremony, failure: Failure) -> Failure {
    let stays = uninterrupted(|| ceremony.roll_back());
    match stays.is_empty() {
        true => failure,
        false => Failure::new(format!("{failure}\nAnd this is left behind: {}", stays.join("; ")))
            .next("`keymill hsm ceremony clean` destroys it, token by token"),
    }
}

/// What a ceremony has made.
struct Held {
    keys: Vec<WrappingKey>,
    confirmed: Vec<&'static str>,
    domain: MadeDomain,
    copy: Option<Copy>,
}

impl HoldArgs {
    /// Checks what can be checked before any token is looked at.
    fn check(&self) -> Result<&Path> {
        let count = self.token.len();
        let each = |flag: &str, given: usize, all: bool| match given {
            0 => Ok(()),
            1 if all => Ok(()),
            given if given == count => Ok(()),
            given => Err(Failure::wrong_use(format!("{flag} is given {given} times for {count} tokens"))
                .next("give it once for each token, in the order of the tokens")),
        };
        if self.token.is_empty() || self.module.is_empty() {
            return Err(Failure::wrong_use(
                "a ceremony needs --module PATH and --token LABEL, for each token",
            )
            .next("`keymill hsm ceremony --help` tells how it goes"));
        }
        if count == 1 && self.custodians.is_none() {
            return Err(Failure::wrong_use(
                "a ceremony for one token and no custodians makes nothing in common",
            )
            .next("name the other tokens, or --custodians M-of-N; `keymill hsm init` makes a token alone"));
        }
        each("--module", self.module.len(), true)?;
        each("--pin-file", self.pin_file.len(), true)?;
        each("--serial", self.serial.len(), false)?;
        let Some(transcript) = &self.transcript else {
            return Err(Failure::wrong_use("a ceremony needs --transcript FILE")
                .next("name a file that does not exist yet: it is written once, and looked up for years"));
        };
        private::check_new(transcript)?;
        if let Some(copy) = &self.copy {
            private::check_new(copy)?;
        }
        if self.custodians.is_some() {
            for file in self.share_files() {
                private::check_new(&file)?;
            }
            if self.share_directory.is_none() && !prompt::possible() {
                return Err(Failure::wrong_use(
                    "no --share-directory, and no terminal to show the shares at",
                )
                .next("name a directory for the shares, and take each to its custodian"));
            }
        }
        if !self.yes && count > 1 && !prompt::possible() {
            return Err(Failure::wrong_use("there is no terminal to confirm the fingerprints at").next(
                "run `keymill hsm ceremony wrapping-key` at each token, and give --yes with --confirm SERIAL=xxxx for each but the first",
            ));
        }
        Ok(transcript)
    }

    fn share_files(&self) -> Vec<PathBuf> {
        let count = self.custodians.map_or(0, |custodians| custodians.count);
        let directory = self.share_directory.iter();
        directory.flat_map(|path| (1..=count).map(|at| path.join(format!("share-{at}")))).collect()
    }

    /// Finds each token, and only then reads the PINs.
    fn parties(&self) -> Result<Vec<Party>> {
        let of = |paths: &[PathBuf], at: usize| paths.get(at).or(paths.first()).cloned();
        let mut found = Vec::new();
        for (at, label) in self.token.iter().enumerate() {
            let path = of(&self.module, at).expect("it was checked that there is one");
            let module = load(&path)?;
            let token = TokenArgs {
                module: ModuleArgs { module: path },
                token: label.clone(),
                serial: self.serial.get(at).cloned(),
            };
            let info = token.present(&module)?;
            found.push((module, label.clone(), info.serial));
        }
        let party = |(at, (module, token_label, serial)): (usize, (_, String, String))| {
            let pin = pin::read_of(&token_label, of(&self.pin_file, at).as_deref())?;
            Ok(Party { module, token_label, token_serial: Some(serial), domain: self.domain.name(), pin })
        };
        found.into_iter().enumerate().map(party).collect()
    }

    /// Has the fingerprints compared, makes the keys, and hands out the copy.
    fn held(&self, ceremony: &mut Ceremony) -> Result<Held> {
        let keys = ceremony.wrapping_keys();
        let confirmed = self.confirmed(&keys)?;
        let kek = match self.custodians {
            Some(_) => Some(ceremony.draw_kek().map_err(refused)?),
            None => None,
        };
        let (domain, copy) = uninterrupted(|| ceremony.make_domain(kek.as_ref())).map_err(refused)?;
        let copy = match (self.custodians, kek, copy) {
            (Some(custodians), Some(kek), Some(copy)) => Some(self.hand_out(custodians, &kek, &copy)?),
            _ => None,
        };
        Ok(Held { keys, confirmed, domain, copy })
    }

    fn confirmed(&self, keys: &[WrappingKey]) -> Result<Vec<&'static str>> {
        let mut confirmed =
            vec!["not asked for: it makes the keys, and sends them to itself by its own public key"];
        for (index, key) in keys.iter().enumerate().skip(1) {
            let fingerprint = digest::hex(&digest::sha256(&key.spki));
            let (shown, last) = fingerprint.split_at(fingerprint.len() - 4);
            let wrong = |read: &str| {
                Err(Failure::new(format!(
                    "the fingerprint of token {} (serial number {}) does not end in {read}",
                    key.token, key.serial
                ))
                .next("read it again at the token; if it differs there, somebody put another key in its place: do not go on"))
            };
            if self.yes {
                let Some((_, read)) = self.confirm.iter().find(|(serial, _)| *serial == key.serial) else {
                    return Err(Failure::wrong_use(format!(
                        "no --confirm says what was read at token {}",
                        key.token
                    ))
                    .next(format!(
                        "--confirm {}=xxxx, from `keymill hsm ceremony wrapping-key` at the token",
                        key.serial
                    )));
                };
                if key.made {
                    return Err(Failure::new(format!(
                        "token {} had no wrapping key, so nobody can have read its fingerprint",
                        key.token
                    ))
                    .next("run `keymill hsm ceremony wrapping-key` at the token first"));
                }
                if !digest::equal(read.as_bytes(), last.as_bytes()) {
                    return wrong(read);
                }
                confirmed.push("by --confirm");
                continue;
            }
            if index == 1 {
                output::note(format_args!(
                    "The keys go to each token under its own wrapping key. Read the fingerprint at each token:\n  \
                     keymill hsm ceremony wrapping-key --module PATH --token LABEL, on the machine beside it"
                ))?;
            }
            output::note(format_args!(
                "\ntoken          {}\nserial number  {}\nSHA-256        {} ····",
                output::harmless(&key.token),
                output::harmless(&key.serial),
                grouped(shown)
            ))?;
            let read = prompt::line("The last 4 characters, as read at the token")?;
            let read = read.trim().to_ascii_lowercase();
            if !digest::equal(read.as_bytes(), last.as_bytes()) {
                return wrong(&read);
            }
            confirmed.push("typed at the terminal");
        }
        Ok(confirmed)
    }

    /// Writes the copy, and gives each custodian a share. If that fails, what was written is taken back.
    fn hand_out(&self, custodians: Custodians, kek: &Sensitive, copy: &DomainCopy) -> Result<Copy> {
        let set = set_of(kek);
        let shares = split(kek, custodians)?;
        let copy_file = self.copy.as_deref().expect("clap asks for it beside --custodians");
        let mut written = Written::default();
        let copy_sha256 = CopyFile::new(copy, &set, custodians).write(copy_file)?;
        written.0.push(copy_file.to_owned());
        let files = self.share_files();
        match files.is_empty() {
            true => shares.iter().try_for_each(show)?,
            false => {
                for (share, file) in shares.iter().zip(&files) {
                    private::create(file, share.file().as_bytes())?;
                    written.0.push(file.clone());
                }
            }
        }
        written.0.clear();
        let named = |path: &Path| path.display().to_string();
        Ok(Copy {
            set,
            threshold: custodians.threshold,
            shares: custodians.count,
            copy_file: named(copy_file),
            copy_sha256,
            share_files: files.iter().map(|file| named(file)).collect(),
        })
    }
}

/// Files that go again unless all of them are there.
#[derive(Default)]
struct Written(Vec<PathBuf>);

impl Drop for Written {
    fn drop(&mut self) {
        for file in &self.0 {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Shows a share to its custodian alone, once.
fn show(share: &Share) -> Result<()> {
    let number = share.number();
    prompt::line(&format!("Custodian {number} alone at the screen, with paper. Return shows the share"))?;
    output::note(format_args!("\n{}\n", *share.line()))?;
    prompt::line("Return, once it is written down and compared, clears the screen")?;
    // The screen, and what has scrolled off it.
    output::note("\x1b[2J\x1b[3J\x1b[H")
}

impl Held {
    fn transcript(self, trouble: Option<String>) -> Transcript {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_ms(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let parties = self.domain.parties.into_iter().zip(&self.keys).zip(self.confirmed);
        let token = |((party, key), confirmed): ((PartyReport, &WrappingKey), _)| {
            let PartyReport { token, serial, model, oaep, unwraps_limited } = party;
            let wrapping_key_sha256 = digest::hex(&digest::sha256(&key.spki));
            Token { token, serial, model, wrapping_key_sha256, confirmed, oaep, unwraps_limited }
        };
        Transcript {
            ceremony: "keys of a domain",
            program: format!("keymill {}", env!("CARGO_PKG_VERSION")),
            time: now.to_string(),
            domain: digest::hex(&self.domain.id),
            keys: self.domain.keys,
            tokens: parties.map(token).collect(),
            proof: Proof {
                challenge: digest::hex(&self.domain.challenge),
                answer: digest::hex(&self.domain.answer),
                wrapped_both_ways: true,
            },
            custodians: self.copy,
            wrapping_keys_destroyed: trouble.is_none(),
            trouble,
        }
    }
}
