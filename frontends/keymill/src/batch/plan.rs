//! A checked command line: what a run does, and a hash of all that its output depends on.

use aws_lc_rs::digest;
use keymill_core::id::KeyRef;

use super::Direction;
use super::args::{BatchArgs, Delimiter, Format, Place};
use super::context::ContextPlan;
use super::error::BatchError;

/// A checked command line.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) direction: Direction,
    pub(super) input: Place,
    pub(super) output: Place,
    pub(super) format: Format,
    /// Columns or fields to seal or open.
    pub(super) selection: Vec<String>,
    pub(super) key: Option<KeyRef>,
    pub(super) context: ContextPlan,
    pub(super) header: bool,
    pub(super) delimiter: u8,
    pub(super) allow_reencrypt: bool,
    pub(super) skip_plain: bool,
    pub(super) keep_empty: bool,
    pub(super) ignore_missing: bool,
    pub(super) resume: bool,
    pub(super) force: bool,
    pub(super) connections: usize,
    pub(super) batch_items: usize,
    pub(super) batch_bytes: usize,
    pub(super) silent: bool,
    fingerprint: String,
}

impl Plan {
    /// Checks the command line.
    ///
    /// # Errors
    /// Wrong use, each with what to write instead.
    pub(super) fn new(direction: Direction, args: &BatchArgs) -> Result<Self, BatchError> {
        let extension = match &args.input {
            Place::File(path) => path.extension().and_then(|extension| extension.to_str()),
            Place::Standard => None,
        };
        let format = match (args.format, extension) {
            (Some(format), _) => format,
            (None, Some("csv" | "tsv")) => Format::Csv,
            (None, Some("ndjson" | "jsonl")) => Format::Ndjson,
            _ => {
                return Err(BatchError::usage(
                    "--format csv or ndjson is needed, the input's name does not tell",
                ));
            }
        };
        let selection = match format {
            Format::Csv if !args.fields.is_empty() => {
                return Err(BatchError::usage("--fields is for NDJSON; CSV takes --columns"));
            }
            Format::Ndjson if !args.columns.is_empty() => {
                return Err(BatchError::usage("--columns is for CSV; NDJSON takes --fields"));
            }
            Format::Ndjson if args.no_header || args.delimiter.is_some() => {
                return Err(BatchError::usage("--no-header and --delimiter are for CSV"));
            }
            Format::Csv if args.ignore_missing => {
                return Err(BatchError::usage("--ignore-missing is for NDJSON"));
            }
            Format::Csv => args.columns.clone(),
            Format::Ndjson => args.fields.clone(),
        };
        if selection.iter().all(String::is_empty) {
            let option = if format == Format::Csv { "--columns" } else { "--fields" };
            return Err(BatchError::usage(format!("{option} must name what to seal or open")));
        }
        if args.json && args.output == Place::Standard {
            return Err(BatchError::usage("--json and --out - would both write to standard output"));
        }
        if args.resume && (args.input == Place::Standard || args.output == Place::Standard) {
            return Err(BatchError::usage("--resume needs files, not - for input or output"));
        }
        let delimiter = match args.delimiter {
            Some(Delimiter(byte)) => byte,
            None if extension == Some("tsv") => b'\t',
            None => b',',
        };
        let mut plan = Self {
            direction,
            input: args.input.clone(),
            output: args.output.clone(),
            format,
            selection,
            key: key(direction, args)?,
            context: ContextPlan::parse(&args.context)?,
            header: !args.no_header,
            delimiter,
            allow_reencrypt: args.allow_reencrypt,
            skip_plain: args.skip_plain,
            keep_empty: args.keep_empty,
            ignore_missing: args.ignore_missing,
            resume: args.resume,
            force: args.force,
            connections: args.connections.into(),
            batch_items: args.batch_items as usize,
            batch_bytes: args.batch_bytes as usize,
            silent: args.quiet || args.json,
            fingerprint: String::new(),
        };
        plan.fingerprint = plan.fingerprint_with(args.key.as_deref());
        Ok(plan)
    }

    /// Returns a hash of every argument that the output's bytes depend on.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn fingerprint_with(&self, key: Option<&str>) -> String {
        let mut selection = self.selection.clone();
        selection.sort_unstable();
        let spelled = serde_json::json!([
            format!("{:?}", self.format),
            selection,
            key,
            self.context.spelled(),
            self.header,
            self.delimiter,
            self.allow_reencrypt,
            self.skip_plain,
            self.keep_empty,
            self.ignore_missing,
        ]);
        hex(digest::digest(&digest::SHA256, spelled.to_string().as_bytes()).as_ref())
    }
}

/// Returns bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(direction: Direction, args: &BatchArgs) -> Result<Option<KeyRef>, BatchError> {
    match (direction, args.key.as_deref()) {
        (Direction::Encrypt, None) => {
            Err(BatchError::usage("encrypt needs --key: a key id, an ARN or an alias"))
        }
        (Direction::ReEncrypt, None) => {
            Err(BatchError::usage("reencrypt needs --key, under whose newest version all is sealed anew"))
        }
        (Direction::Encrypt | Direction::ReEncrypt, Some(text)) => match KeyRef::parse(text) {
            KeyRef::Unknown => Err(BatchError::usage(format!(
                "--key {text} is no key id, ARN or alias (an alias is written alias/NAME)"
            ))),
            key => Ok(Some(key)),
        },
        (Direction::Decrypt, None) => Ok(None),
        (Direction::Decrypt, Some(_)) => Err(BatchError::usage(
            "--key is for encrypt and reencrypt; each ciphertext names the key that opens it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        batch: BatchArgs,
    }

    fn parse(line: &str) -> Result<BatchArgs, clap::Error> {
        Cli::try_parse_from(std::iter::once("batch").chain(line.split_whitespace())).map(|cli| cli.batch)
    }

    fn plan(direction: Direction, line: &str) -> Result<Plan, BatchError> {
        Plan::new(direction, &parse(line).unwrap())
    }

    const PEOPLE: &str = "--in people.csv --out sealed.csv --columns email,card --key alias/people";

    #[test]
    fn the_short_way_gives_the_defaults() {
        let plan = plan(Direction::Encrypt, PEOPLE).unwrap();
        assert_eq!((plan.format, plan.delimiter, plan.header), (Format::Csv, b',', true));
        assert_eq!((plan.connections, plan.batch_items, plan.batch_bytes), (2, 256, 256 * 1024));
        assert_eq!(plan.selection, ["email", "card"]);
    }

    #[test]
    fn contexts_repeat_or_stand_behind_commas() {
        let one = plan(Direction::Encrypt, &format!("{PEOPLE} --context row=id,table=literal:x")).unwrap();
        let two = plan(Direction::Encrypt, &format!("{PEOPLE} --context table=literal:x --context row=id"))
            .unwrap();
        assert_eq!(one.context.spelled(), two.context.spelled());
        assert_eq!(one.fingerprint(), two.fingerprint());
    }

    #[test]
    fn what_cannot_be_is_wrong_use() {
        use Direction::{Decrypt, Encrypt, ReEncrypt};
        for (direction, line) in [
            (ReEncrypt, "--in a.csv --out b --columns c"),
            (Encrypt, "--in a.csv --out b --columns c"),
            (Encrypt, "--in a.csv --out b --columns c --key people"),
            (Decrypt, "--in a.csv --out b --columns c --key alias/people"),
            (Decrypt, "--in - --out b --columns c"),
            (Decrypt, "--in a.txt --out b --columns c"),
            (Decrypt, "--in a.csv --out b"),
            (Decrypt, "--in a.csv --out b --fields c"),
            (Decrypt, "--in a.jsonl --out b --columns c"),
            (Decrypt, "--in a.jsonl --out b --fields c --no-header"),
            (Decrypt, "--in a.csv --out - --columns c --json"),
            (Decrypt, "--in a.csv --out - --columns c --resume"),
        ] {
            assert_eq!(plan(direction, line).unwrap_err().exit_code(), 2, "{line}");
        }
        for bad in ["--delimiter x", "--delimiter -", "--delimiter ,,", "--connections 0", "--resume --force"]
        {
            assert!(parse(&format!("--in a.csv --out b --columns c {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_fingerprint_tells_what_changes_the_output_and_nothing_else() {
        let base = plan(Direction::Encrypt, PEOPLE).unwrap();
        for same in ["--connections 9", "--batch-items 1", "--quiet", "--resume", "--force"] {
            let other = plan(Direction::Encrypt, &format!("{PEOPLE} {same}")).unwrap();
            assert_eq!(base.fingerprint(), other.fingerprint(), "{same}");
        }
        for other in ["--context a=b", "--keep-empty", "--no-header", "--delimiter ;", "--allow-reencrypt"] {
            let other = plan(Direction::Encrypt, &format!("{PEOPLE} {other}")).unwrap();
            assert_ne!(base.fingerprint(), other.fingerprint());
        }
        let key = plan(Direction::Encrypt, &PEOPLE.replace("alias/people", "alias/others")).unwrap();
        assert_ne!(base.fingerprint(), key.fingerprint());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
