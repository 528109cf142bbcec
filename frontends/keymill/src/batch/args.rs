//! The command line of `keymill batch`, as clap reads it; `plan` checks what it says.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use keymill_core::limit;

/// What each direction's help ends with.
const AFTER_HELP: &str = "\
A sealed cell is km1: and the unpadded base64url of the ciphertext, of the value without CSV quotes or JSON escapes; \
km1j: stands before JSON values that are no plain strings. All other bytes of the file stay as they are, and decrypting \
restores it byte for byte. Empty cells are sealed like any other, so that nobody sees which were empty; empty lines stay. \
Rows are counted without the header.

A run that ends early, even by a crash, leaves a checkpoint beside the output (OUT.keymill-progress); the same command with \
--resume goes on from there.";

/// The options of `batch encrypt`, `batch decrypt` and `batch reencrypt`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct BatchArgs {
    /// File to read; - is standard input
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input: Place,
    /// File to write; - is standard output
    #[arg(long = "out", value_name = "FILE")]
    pub(crate) output: Place,
    /// Format of the input; otherwise by its extension (.csv, .tsv, .ndjson, .jsonl)
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// Columns of CSV to seal or open, by the names of the header, or by number from 1 with --no-header
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', conflicts_with = "fields")]
    pub(crate) columns: Vec<String>,
    /// Fields of NDJSON to seal or open; a dot descends into an object, \. is a dot
    #[arg(long, value_name = "PATH,...", value_delimiter = ',')]
    pub(crate) fields: Vec<String>,
    /// Key to encrypt under: id, ARN or alias (encrypt and reencrypt; ciphertexts name the key that opens them)
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Encryption context: name=column takes the value from the row, name=literal:text is the same for all
    #[arg(long, value_name = "NAME=VALUE,...", value_delimiter = ',')]
    pub(crate) context: Vec<String>,
    /// Continue from the checkpoint beside the output, or start where there is neither
    #[arg(long, conflicts_with = "force")]
    pub(crate) resume: bool,
    /// Overwrite the output and its checkpoint
    #[arg(long)]
    pub(crate) force: bool,
    /// Connections to the server; of several nodes each gets one at least
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) connections: u16,
    /// Cells in one request
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=limit::BATCH_ITEMS as i64))]
    pub(crate) batch_items: u32,
    /// Bytes of cells in one request; a single row may exceed it
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024, value_parser = clap::value_parser!(u32).range(1..=8 * 1024 * 1024))]
    pub(crate) batch_bytes: u32,
    /// The first row of the CSV is data; columns go by number
    #[arg(long)]
    pub(crate) no_header: bool,
    /// Delimiter of the CSV: one ASCII character, or tab [default: comma; tab for .tsv]
    #[arg(long, value_name = "CHAR")]
    pub(crate) delimiter: Option<Delimiter>,
    /// When encrypting, seal cells that are sealed already once more
    #[arg(long)]
    pub(crate) allow_reencrypt: bool,
    /// When decrypting or re-encrypting, leave cells that are not sealed as they are
    #[arg(long)]
    pub(crate) skip_plain: bool,
    /// Leave empty cells (in NDJSON: "" and null) as they are, which shows where they are
    #[arg(long)]
    pub(crate) keep_empty: bool,
    /// Leave lines of NDJSON without one of the fields as they are
    #[arg(long)]
    pub(crate) ignore_missing: bool,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Where bytes come from or go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Standard input or output.
    Standard,
    /// A file.
    File(PathBuf),
}

impl Place {
    /// Returns the path to show in errors.
    pub(super) fn path(&self) -> &Path {
        match self {
            Place::Standard => Path::new("-"),
            Place::File(path) => path,
        }
    }
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("an empty file name".to_owned()),
            "-" => Ok(Place::Standard),
            path => Ok(Place::File(path.into())),
        }
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// RFC 4180, lines ended by LF or CRLF.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// The byte between fields of CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delimiter(pub(super) u8);

impl FromStr for Delimiter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            b"tab" | b"\\t" => Ok(Self(b'\t')),
            // A sealed cell without quotes must not hold the delimiter.
            [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"\r\n:-_".contains(byte) => {
                Ok(Self(*byte))
            }
            _ => {
                Err("takes one ASCII character that is no letter, digit, quote, line end, :, - or _"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(self.0))
    }
}
