//! What shows that a password is known without telling it, and what a server keeps of it.

use aws_lc_rs::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use keymill_core::Sensitive;
use zeroize::Zeroizing;

use crate::packet::{Method, Nonce};

fn digest(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut context = Context::new(algorithm);
    parts.iter().for_each(|part| context.update(part));
    Zeroizing::new(context.finish().as_ref().to_vec())
}

/// Shows a password to a server that keeps its hash.
pub(crate) fn proof(method: Method, password: &Sensitive, nonce: &Nonce) -> Vec<u8> {
    let mask = |key: &[u8], by: &[u8]| key.iter().zip(by).map(|(a, b)| a ^ b).collect();
    match method {
        Method::Native => {
            let sha1 = &SHA1_FOR_LEGACY_USE_ONLY;
            let once = digest(sha1, &[password.expose()]);
            mask(&once, &digest(sha1, &[nonce, &digest(sha1, &[&once])]))
        }
        Method::CachingSha2 => {
            let once = digest(&SHA256, &[password.expose()]);
            mask(&once, &digest(&SHA256, &[&digest(&SHA256, &[&once]), nonce]))
        }
    }
}

/// What `mysql_native_password` keeps of a password: `*` and 40 hexadecimal digits.
pub(crate) fn native(password: &Sensitive) -> String {
    let sha1 = &SHA1_FOR_LEGACY_USE_ONLY;
    let twice = digest(sha1, &[&digest(sha1, &[password.expose()])]);
    twice.iter().fold("*".to_owned(), |text, byte| format!("{text}{byte:02X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As PASSWORD() of MariaDB has it.
    #[test]
    fn what_a_server_keeps_is_what_it_would_make_itself() {
        assert_eq!(native(&Sensitive::copied(b"notagoodpwd")), "*3A70EE9FC6594F88CE9E959CD51C5A1C002DC937");
        assert_eq!(native(&Sensitive::copied(b"password")), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }

    /// As Python makes them (hashlib).
    #[test]
    fn a_proof_is_the_one_that_a_server_expects() {
        let (password, nonce) = (Sensitive::copied(b"pencil"), b"abcdefghijklmnopqrst");
        assert_eq!(hex(&proof(Method::Native, &password, nonce)), "5279aebaa4562b3363b3e2c4329e2c19e8fb2797");
        assert_eq!(
            hex(&proof(Method::CachingSha2, &password, nonce)),
            "a4768237b040eef7295d9c34845afb4d4adbf9571c705e77f616caa29fa4edc8"
        );
    }
}
