//! PEM (RFC 7468): bytes in base64 between lines that say what they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::Result;

use crate::invalid;

/// Returns bytes in PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::with_capacity(text.len() + text.len() / 64 + 2 * label.len() + 40);
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = &*text;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// Reads every block of a text, with its label, as bytes; what stands between blocks is none of them (RFC 7468 §2). Blocks of more than
/// `most_bytes`, and more than `most` of them, are refused.
pub(crate) fn read<'a>(
    what: &'static str,
    text: &'a str,
    most: usize,
    most_bytes: usize,
) -> Result<Vec<(&'a str, Vec<u8>)>> {
    let wrong = |why: String| invalid(format!("{what}: {why}"));
    let mut blocks: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        if blocks.len() == most {
            return Err(wrong(format!("more than {most} blocks of PEM")));
        }
        let mut body = String::new();
        let end = loop {
            let line = lines.next().ok_or_else(|| wrong("a block of PEM has no end".into()))?;
            match line.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix("-----")) {
                Some(end) => break end,
                None => body.extend(line.split_ascii_whitespace()),
            }
            if body.len() / 4 * 3 > most_bytes {
                return Err(wrong(format!("a block of PEM exceeds the limit of {most_bytes} bytes")));
            }
        };
        if end != label {
            return Err(wrong("a block of PEM begins as one thing and ends as another".into()));
        }
        let bytes = STANDARD.decode(&body).map_err(|_| wrong("a block of PEM is not base64".into()))?;
        blocks.push((label, bytes));
    }
    Ok(blocks)
}
