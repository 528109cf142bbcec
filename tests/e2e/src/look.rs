//! What a test looks at from outside: audit lines, metrics, files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keymill_crypto::audit::ChainReport;
use keymill_harness::{Live, Site};
use memchr::memmem;
use serde_json::Value;

/// Waits until `look` finds something; what a thread of the engine does on its own time cannot be waited for otherwise.
///
/// # Panics
/// After twenty seconds.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What some series of an installation have for its name.
const INSTALLATION: &str = "instance=\"default\",";

/// Returns the metrics; those of an instance without its name, which stands at each series.
pub fn metrics(live: &Live) -> String {
    let text = live.gate().expose_metrics();
    match live.instance().map(|id| format!("instance=\"{id}\"")) {
        Some(label) => {
            let forms = [format!("{{{label}}}"), format!("{label},"), format!(",{label}")];
            forms.iter().fold(text, |text, form| text.replace(form, ""))
        }
        None => text,
    }
}

/// Reads a series of the metrics, by its name with labels.
pub fn metric(live: &Live, series: &str) -> f64 {
    let text = metrics(live);
    let named = live.instance().map(|_| series.replace(INSTALLATION, ""));
    let series = named.as_deref().unwrap_or(series);
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series} in {text}")).parse().expect("a number")
}

/// Reads all whole audit lines that are kept.
pub fn audit_lines(site: &Site) -> Vec<Value> {
    let mut lines = Vec::new();
    for (path, bytes) in files(&site.audit()) {
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            lines.extend(
                bytes[..whole]
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .map(|line| serde_json::from_slice(line).expect("an audit line is JSON")),
            );
        }
    }
    lines
}

/// Returns the ids of the requests that an audit line records.
pub fn requests_of(line: &Value) -> Vec<String> {
    let alike = line["alike"].as_array().into_iter().flatten().map(|alike| &alike[0]);
    line.get("request")
        .into_iter()
        .chain(alike)
        .map(|id| id.as_str().expect("an id is text").to_owned())
        .collect()
}

/// Checks every chain of a stopped engine.
///
/// # Panics
/// Where one is not good.
pub fn verified(site: &Site) -> Vec<ChainReport> {
    let reports = site.verify();
    for report in &reports {
        assert!(report.is_good(), "{}: {}", report.head.chain, report.bad.as_ref().expect("it is bad"));
    }
    reports
}

/// Reads every file under a directory.
pub fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            found.push((path, bytes));
        }
    }
    found
}

/// Returns the files under a directory that hold those bytes.
pub fn find_in_files(directory: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let holds = |(path, content): (PathBuf, Vec<u8>)| memmem::find(&content, bytes).map(|_| path);
    files(directory).into_iter().filter_map(holds).collect()
}
