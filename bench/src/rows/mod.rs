//! The rows, a file a path. Each starts its servers, measures, and leaves nothing running but what the rows share.

mod audit;
mod envelope;
mod fairness;
mod http;
mod in_process;
mod issue;
mod keys;
mod lane;
mod secret;
mod sign;
mod single;
mod tcp;
mod tls;
pub(crate) mod token;

use crate::error::Result;
use crate::plan::Plan;

/// Measures every row that is wanted.
pub(crate) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    in_process::measure(plan)?;
    keys::measure(plan)?;
    tcp::measure(plan)?;
    single::measure(plan)?;
    tls::measure(plan)?;
    sign::measure(plan)?;
    issue::measure(plan)?;
    http::measure(plan)?;
    audit::measure(plan)?;
    lane::measure(plan)?;
    envelope::measure(plan)?;
    secret::measure(plan)?;
    fairness::measure(plan)?;
    token::measure(plan)
}

/// Returns `1 KiB` for 1024.
fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        _ => format!("{} KiB", bytes / 1024),
    }
}
