//! Where a listener may be.

use std::net::{SocketAddr, TcpListener};

use keymill_runtime::FrontendError;
use keymill_tls::ServerTls;

/// Binds a listener; `section` is where its TLS is set, for the error.
///
/// # Errors
/// [`FrontendError`] where the address is taken, or lies outside loopback without TLS.
pub fn bind(
    address: SocketAddr,
    tls: Option<&ServerTls>,
    section: &str,
) -> Result<TcpListener, FrontendError> {
    if tls.is_none() && !address.ip().to_canonical().is_loopback() {
        return Err(FrontendError(format!(
            "{address} is outside loopback, where a listener needs TLS: set certificate and key in [{section}]"
        )));
    }
    let failed = |error| FrontendError(format!("listening on {address}: {error}"));
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    // D12
    #[test]
    fn outside_loopback_nothing_is_bound_without_tls_and_the_error_says_what_to_set() {
        for outside in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
            let told = bind(outside.parse().unwrap(), None, "http.tls").unwrap_err().to_string();
            assert!(told.contains("outside loopback") && told.contains("[http.tls]"), "{told}");
        }
        for inside in ["127.0.0.1:0", "127.9.8.7:0"] {
            assert!(bind(inside.parse().unwrap(), None, "http.tls").is_ok());
        }
    }
}
