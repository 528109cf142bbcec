//! The log: one line an event, on standard error, filtered by `KEYMILL_LOG` or the configuration.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Result};

/// Begins to log.
pub(crate) fn begin(configured: &str) -> Result<()> {
    let set = std::env::var("KEYMILL_LOG").ok().filter(|filter| !filter.is_empty());
    let (source, text) = match &set {
        Some(text) => ("KEYMILL_LOG", text.as_str()),
        None => ("log.filter", configured),
    };
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::wrong_use(format!("{source}: {error}"))
            .next("a filter is a level (error, warn, info, debug, trace), or target=level,…")
    })?;
    tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .try_init()
        .map_err(Failure::because("log"))
}
