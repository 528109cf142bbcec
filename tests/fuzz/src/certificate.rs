//! A client certificate: whose fingerprint is of all its bytes, and whose URIs stay within their bounds. A verifier of chains stands in front
//! of this one, and is somebody else's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_tls::read_peer;

use crate::memory::{room, within};
use crate::target::Seed;

/// Ed25519, with two URIs, a name and an address.
const WITH_URIS: &str = "MIIBZzCCARmgAwIBAgIBATAFBgMrZXAwETEPMA0GA1UEAwwGbG9hZGVyMB4XDTI2MTEyOTE0NTUzOVoXDTM2MTEyNjE0NTUzOVow\
ETEPMA0GA1UEAwwGbG9hZGVyMCowBQYDK2VwAyEAFuLMduQmXvxyQykOxx6EeoxngKMLFGoA8EOtjQr+7gqjgZUwgZIwHQYDVR0O\
BBYEFNcl28ODpkBoyBSRRebHqHEeb0WhMB8GA1UdIwQYMBaAFNcl28ODpkBoyBSRRebHqHEeb0WhMA8GA1UdEwEB/wQFMAMBAf8w\
PwYDVR0RBDgwNoYXc3BpZmZlOi8vZXhhbXBsZS9sb2FkZXKGBXVybjpigg5sb2FkZXIuZXhhbXBsZYcEfwAAATAFBgMrZXADQQCf\
zdzI5aN+nBglEDJPaivLJLZBnOZc/dsD00hS0NP9OL0wvozV+AscHAssTJkOje89UV7xll4PTYb+QDGubFgP";
/// Ed25519, without a name of any kind but its subject.
const WITHOUT: &str = "MIIBGTCBzKADAgECAgECMAUGAytlcDAMMQowCAYDVQQDDAFhMB4XDTI2MTEyOTE0NTU0MFoXDTM2MTEyNjE0NTU0MFowDDEKMAgG\
A1UEAwwBYTAqMAUGAytlcAMhAMPqMy7ukliAW7ObaL2X9sqNJ/D4ayfw53ed6Ec+0oCuo1MwUTAdBgNVHQ4EFgQUOWl/iHSRErm4\
DVaExTeZDQ5UNoAwHwYDVR0jBBgwFoAUOWl/iHSRErm4DVaExTeZDQ5UNoAwDwYDVR0TAQH/BAUwAwEB/zAFBgMrZXADQQAVDvE4\
NaJuVslOEn+wavjAGWC4rnxr9+c7qDZubeUrQxwaTlq4saqm02KmNWba3wTfcbF5BTfkXFmamK3V6HMI";

/// Reads a certificate.
pub(crate) fn check(bytes: &[u8]) {
    match within(room(bytes.len()), || read_peer(bytes)) {
        Ok(peer) => {
            assert_eq!(peer.fingerprint, keymill_crypto::digest::sha256(bytes));
            assert!(peer.uris.len() <= 16);
            for uri in peer.uris {
                assert!(uri.len() <= 2048 && uri.is_ascii());
                assert!(
                    memchr::memmem::find(bytes, uri.as_bytes()).is_some(),
                    "{uri:?} stands in the certificate"
                );
            }
        }
        Err(error) => assert!(error.to_string().len() < 500, "{error}"),
    }
}

/// Returns one with URIs, one without, and one that is cut.
pub(crate) fn seeds() -> Vec<Seed> {
    let der = |text| STANDARD.decode(text).expect("it is base64");
    let cut = der(WITH_URIS)[..200].to_vec();
    vec![("uris", der(WITH_URIS)), ("none", der(WITHOUT)), ("cut", cut)]
}
