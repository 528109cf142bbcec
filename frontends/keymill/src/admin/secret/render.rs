//! `keymill secret template`: a configuration file of a template, with secrets in their places.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use keymill_core::operation::SecretDataType;
use zeroize::Zeroizing;

use super::fetch;
use super::run::value_at;
use super::template::{Piece, Wrong, parse};
use crate::admin::Api;
use crate::failure::{Failure, Result};
use crate::{output, private, process};

/// Bytes of a template, at most.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Args, Clone, Debug)]
pub(super) struct TemplateArgs {
    /// The template: {{ secret "NAME" }} and {{ secret "NAME" "FIELD" }} stand for values, {{ "{{" }} for two braces
    #[arg(value_name = "TEMPLATE")]
    template: PathBuf,
    /// Where the result goes: a file that only you can read, in the place of one that is there; - for standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Makes the file.
pub(super) fn run(api: &Api, args: &TemplateArgs) -> Result<()> {
    process::keep_memory_private()?;
    let shown = args.template.display();
    // What is no file may have no length, and no end.
    let mut template = String::new();
    let file = File::open(&args.template).map_err(Failure::because(&shown))?;
    file.take(MAX_BYTES + 1).read_to_string(&mut template).map_err(Failure::because(&shown))?;
    if template.len() as u64 > MAX_BYTES {
        return Err(Failure::new(format!("{shown} is longer than {MAX_BYTES} bytes")));
    }
    let pieces =
        parse(&template).map_err(|Wrong { line, why }| Failure::new(format!("{shown}:{line}: {why}")))?;
    let names = pieces.iter().filter_map(|piece| match piece {
        Piece::Secret { place, .. } => Some(place.name.clone()),
        Piece::Text(_) | Piece::Literal(_) => None,
    });
    let fetched = fetch::current(api, names)?;
    let mut values = Vec::new();
    for piece in &pieces {
        let Piece::Secret { place, line } = piece else { continue };
        let is_bytes =
            matches!(fetched.get(&place.name), Some(Ok(value)) if value.data_type == SecretDataType::Binary);
        if is_bytes {
            return Err(Failure::new(format!(
                "{shown}:{line}: secret {place}: its value is bytes and no text"
            )));
        }
        values.push(value_at(&fetched, place).map_err(Failure::because(format_args!("{shown}:{line}")))?);
    }
    let bytes = rendered(&pieces, &values);
    match args.out == Path::new("-") {
        true => {
            let mut out = io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush()).map_err(Failure::of_output)
        }
        false => {
            private::replace(&args.out, &bytes)?;
            output::line(format_args!("{} is made, with {} secrets in it", args.out.display(), values.len()))
        }
    }
}

fn rendered(pieces: &[Piece<'_>], values: &[Zeroizing<Vec<u8>>]) -> Zeroizing<Vec<u8>> {
    let mut next = values.iter();
    let parts: Vec<&[u8]> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.as_bytes(),
            Piece::Literal(text) => text.as_bytes(),
            Piece::Secret { .. } => next.next().map_or(&b""[..], |value| value.as_slice()),
        })
        .collect();
    // At once: a growing buffer would leave copies behind.
    Zeroizing::new(parts.concat())
}
