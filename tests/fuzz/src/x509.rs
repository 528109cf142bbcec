//! What comes to the certificate manager: certificates and chains, requests for them, questions about revocation, and PKCS #12. What is taken
//! is written again alike; what is signed passes only as it was signed, so some targets sign what they are given.

use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::certificate::{AltName, DistinguishedName};
use keymill_core::key::SignAlgorithm;
use keymill_core::time::Timestamp;
use keymill_x509::{
    Certificate, SigningRequest, check_chain, name_der, ocsp, pem, pkcs12, read_pem_chain, request,
};

use crate::memory::{room, within};
use crate::target::{Seed, tells};

/// Within the validity of the seeds.
const NOW: Timestamp = Timestamp::from_ms(1_900_000_000_000);
/// Before the signature: Ed25519 (RFC 8410 §4), and what stands before its key.
const ED25519: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
const ED25519_KEY: &[u8] = &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// Ed25519: an authority with name constraints.
const ROOT: &str = "MIIBhTCCATegAwIBAgIQSMOi5GGVmllFaxgrS+16kjAFBgMrZXAwLjELMAkGA1UEBhMCREUxEDAOBgNVBAoMB0V4YW1wbGUxDTAL\
BgNVBAMMBHJvb3QwHhcNMjUwMTAxMDAwMDAwWhcNNDkxMjMxMjM1OTU5WjAuMQswCQYDVQQGEwJERTEQMA4GA1UECgwHRXhhbXBs\
ZTENMAsGA1UEAwwEcm9vdDAqMAUGAytlcAMhALu+5ASEpbnHrN7zuNCXzr7EVKfHLYfFMtoFWUosEYy6o2swaTAPBgNVHRMBAf8E\
BTADAQH/MA4GA1UdDwEB/wQEAwIBhjAnBgNVHR4BAf8EHTAboAswCYIHZXhhbXBsZaEMMAqHCAoAAAD/AAAAMB0GA1UdDgQWBBQH\
CFSiw+nAFVY8P5LFnnpAInpMhzAFBgMrZXADQQCEy0ojataWlcQfTKK3VL5u0jWzLYwtToLLxhLqVS0yMCOKcINGmesmKFgOrdob\
hdJTLRlIU0Yirb9DGrKAwAQK";
/// One below it.
const MIDDLE: &str = "MIIBYzCCARWgAwIBAgIQVZve34+YVrWOppF6LzH9bjAFBgMrZXAwLjELMAkGA1UEBhMCREUxEDAOBgNVBAoMB0V4YW1wbGUxDTAL\
BgNVBAMMBHJvb3QwHhcNMjUwMTAxMDAwMDAwWhcNNDkxMjMxMjM1OTU5WjARMQ8wDQYDVQQDDAZtaWRkbGUwKjAFBgMrZXADIQBK\
W+85mE+Y2USv5cArgbNjgELp8vnLRy2Rp1f6DxbaXaNmMGQwEgYDVR0TAQH/BAgwBgEB/wIBADAOBgNVHQ8BAf8EBAMCAYYwHQYD\
VR0OBBYEFFfa2FSaM7zsMSyA/ximFC4CoPOBMB8GA1UdIwQYMBaAFAcIVKLD6cAVVjw/ksWeekAiekyHMAUGAytlcANBANJFngtH\
MZQtr3ymvaQdvwlqE8atKITs+NjLgq5NdtIatbRIHetwz63yrERzqqo5mKflUs6pRAnz3+DupQ3z6Aw=";
/// One for a server, with names of every kind.
const LEAF: &str = "MIIBhzCCATmgAwIBAgIQeZkwHs3MVXyhAVuwIz/5TDAFBgMrZXAwETEPMA0GA1UEAwwGbWlkZGxlMB4XDTI1MDEwMTAwMDAwMFoX\
DTQ5MTIzMTIzNTk1OVowDzENMAsGA1UEAwwEbGVhZjAqMAUGAytlcAMhAPp60WNgN/duvwqF9OYRHGYdj9th9tkJ0QuK19vVxsXb\
o4GoMIGlMA4GA1UdDwEB/wQEAwIHgDATBgNVHSUEDDAKBggrBgEFBQcDATA+BgNVHREENzA1ggxsZWFmLmV4YW1wbGWHBMAAAgGG\
EnNwaWZmZTovL2V4YW1wbGUvYYELYUBiLmV4YW1wbGUwHQYDVR0OBBYEFIggcGgZaufWSGdTvanHYpBt2t5qMB8GA1UdIwQYMBaA\
FFfa2FSaM7zsMSyA/ximFC4CoPOBMAUGAytlcANBAFPYn8vKSWObWzLBcvdjsA88t53oqx9NGy1hSnfpV8dVa8qGkHVIHj93UllZ\
TXK71HpOPakgxGshqPx1J+ioDAI=";
/// SM2, signed by itself.
const SM2: &str = "MIIBXDCCAQKgAwIBAgIQeURP9vQtJJKmBWoW5MmiYjAKBggqgRzPVQGDdTAOMQwwCgYDVQQDDANzbTIwHhcNMjUwMTAxMDAwMDAw\
WhcNNDkxMjMxMjM1OTU5WjAOMQwwCgYDVQQDDANzbTIwWTATBgcqhkjOPQIBBggqgRzPVQGCLQNCAATfaPmMJGHCXw7yhPhb8Bb7\
4CETP+TO6++ApckIcCNXOANKPkwjdAKt7JtRikI9r+GvbdkOKW1zd/EGBh8KAceRo0IwQDAPBgNVHRMBAf8EBTADAQH/MA4GA1Ud\
DwEB/wQEAwIBhjAdBgNVHQ4EFgQUI8dBQ6SHTbhSz9hjMT03yBBMUOUwCgYIKoEcz1UBg3UDSAAwRQIgHqcdpdikxRS601ER9F7C\
vFzWhLk5HDqn42N6IzTDncwCIQDXDLVSoC7QT1gyvzTVP0HsjZEAFjoyLO2HuXdl1TbMag==";
/// A request of openssl, with a challenge password, and names and an authority asked for.
const REQUEST: &str = "MIH1MIGoAgEAMB4xCzAJBgNVBAYTAkRFMQ8wDQYDVQQDDAZvcmRlcnMwKjAFBgMrZXADIQDkaH++9kNOxbyDKaF1jMOfGNbDzB1g\
Uoh1X3cY3eHhAaBXMBcGCSqGSIb3DQEJBzEKDAhzZWNyZXQxMjA8BgkqhkiG9w0BCQ4xLzAtMBoGA1UdEQQTMBGCCWEuZXhhbXBs\
ZYcECgAAATAPBgNVHRMBAf8EBTADAQH/MAUGAytlcANBAG5dL1LnNEur81YaXTNlLT8jflQI48bEmv4tUSOQxRyzqJv6Y60GGYkN\
e1GmXQdUHWKeims1Ni758wN2UZWa2gQ=";
/// A question of openssl: two certificates, and a nonce.
const QUESTION: &str = "MIHhMIHeMIG2MGcwZTANBglghkgBZQMEAgEFAAQgq9rmr1RpECYKDVlqE87+sa4JQLPZ1Df0+e+Mjyz+fLMEIAcIVKLD6cAVVjw/\
ksWeekAiekyH9qhYMOnuvbW3hm1SAhB5mTAezcxVfKEBW7AjP/lMMEswSTAJBgUrDgMCGgUABBSTlZndL1aeSfEqUus15JdA4ipH\
NAQUOo2dYnKiKKVNOn8LY3HjG58vpi0CEFWb3t+PmFa1jqaRei8x/W6iIzAhMB8GCSsGAQUFBzABAgQSBBAkkKHWXlNYpvuGpamG\
pco2";
/// A question about one, without.
const SHORT_QUESTION: &str =
    "MEIwQDA+MDwwOjAJBgUrDgMCGgUABBSTlZndL1aeSfEqUus15JdA4ipHNAQUOo2dYnKiKKVNOn8LY3HjG58vpi0CAQc=";
/// A file of openssl: a key and a certificate, by 10 iterations under [`PASSWORD`].
const PKCS12: &str = "MIIDwwIBAzCCA3oGCSqGSIb3DQEHAaCCA2sEggNnMIIDYzCCAnEGCSqGSIb3DQEHBqCCAmIwggJeAgEAMIICVwYJKoZIhvcNAQcB\
MFYGCSqGSIb3DQEFDTBJMCgGCSqGSIb3DQEFDDAbBAiRL2ptiaseeQIBCjAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQdjUK\
wHHGspKCmgGpKCCuZYCCAfBMCys8K3kRv+vky2rj7QO0D+r7BCAmKG4f+rJVYx28mGsqRd9BGNAMKWzjZe4gaqXFS4vbd8M+/Kqg\
SFqt2Wjbn6HPYgeJI/cnACBIPG9HBGlZaiynwouyKVz67GiiUBMERFXsEfWUD/3ctKJkXtcvbq4X3cFFHi0Y1JtM48pXuAGlDAku\
Dv8WRRQHBl2vk05oHJFKHwFTtNdqzpO4a0B3fr30ktVp0csbl5/Udn+0khKSDBeLCwqAm2xv6JgvT86PIiWjD0qYhjP8g7QCVBQ0\
0N+0frjsacbyoGZWlVzMshsiUS+FgJ+M4ghaEP/EaqwFDpVgM89MKG0kD7Q6Nr1996wSldsiccMR5ON6/8NDi4498OBWK8QLJqdX\
HogsW+7r0ApuyuOPE2udi3iBZ09wI/eGKfWllOQvWNO0jaYAvwD7NRy5qf80dRqJ2YNX/iz8fSr9JwtYNg8VxhNhKMca40ba2nAT\
tz4Zbo4rAfpjYvSS/dnNtGe6tAICWCO4sJfdsey+kShigADlClWYLYxeWktp1cpHRwtmUTMnv2ucPU14MrAxYD8T6bMzv36WCtuJ\
tkh/8OCJYymrlCkk6C4JEyuHvSPWYqapbltrUQ+agNXtNf/55NYLc1GIXgfTSbseRboklL91ch6ns/9vSF6EMIHrBgkqhkiG9w0B\
BwGggd0EgdowgdcwgdQGCyqGSIb3DQEMCgECoIGdMIGaMFYGCSqGSIb3DQEFDTBJMCgGCSqGSIb3DQEFDDAbBAgB8NCI+HAVcAIB\
CjAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQrEBu07H56czVw7/6aNy5GwRAqJ/ZEgUEGwJzNr0rGHQ29Lu40ei92D1SdJWT\
7mR39RXBjtjycvduOM/8duKjZwWqQaItHyMFkuGnU+y/xdxgnjElMCMGCSqGSIb3DQEJFTEWBBTn4VsuBRdYhj91sNo5O07GESLa\
mjBAMDEwDQYJYIZIAWUDBAIBBQAEIMFjUwCxt2zWaB0mTWH8ZF5uJ8PVo7U2LKN94019GSnlBAjgLF1no6jdvAIBCg==";
const PASSWORD: &str = "secret";

fn decoded(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("it is base64")
}

/// The tables of SM2 are made once, and are no certificate's.
fn warm() {
    static WARM: OnceLock<()> = OnceLock::new();
    WARM.get_or_init(|| {
        let one = Certificate::read(&decoded(SM2)).expect("the seed is good");
        one.is_signed_by(&one).expect("the seed signed itself");
    });
}

/// Tag, length and contents.
fn tlv(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let length = (contents.len() as u32).to_be_bytes();
    let skip = length.iter().take_while(|byte| **byte == 0).count().min(3);
    let mut out = vec![tag];
    if contents.len() >= 0x80 {
        out.push(0x80 | (4 - skip) as u8);
    }
    out.extend(&length[skip..]);
    out.extend(contents);
    out
}

/// One certificate, in DER.
pub(crate) mod one {
    use super::*;

    /// Reads a certificate, and asks whether it signed itself.
    pub(crate) fn check(bytes: &[u8]) {
        warm();
        let read = match within(room(bytes.len()), || Certificate::read(bytes)) {
            Ok(read) => read,
            Err(error) => return tells(&error),
        };
        assert_eq!(read.der, bytes);
        assert!(read.alt_names.len() <= 512 && !read.serial.is_empty() && read.serial.len() <= 40);
        assert_eq!(read.serial_bytes().len() * 2, read.serial.len());
        for part in [&read.subject_der, &read.issuer_der, &read.public_key] {
            assert!(memchr::memmem::find(bytes, part).is_some());
        }
        for text in [&read.subject, &read.issuer] {
            assert!(!text.chars().any(char::is_control), "{text:?}");
            // In our vocabulary it is a name again, which is written and is the same text.
            if let Ok(name) = DistinguishedName::parse(text)
                && let Ok(der) = name_der(&name)
            {
                assert!(der.len() < 64 * 1024);
                assert_eq!(DistinguishedName::parse(&name.to_string()).expect("it was one"), name);
            }
        }
        for name in &read.alt_names {
            assert_eq!(&name.to_string().parse::<AltName>().expect("it is one"), name);
        }
        within(room(bytes.len()), || read.is_signed_by(&read)).unwrap_or_else(|error| tells(&error));
        let again = read_pem_chain(&read.pem(), 1).expect("it was read");
        assert!(again.len() == 1 && again[0].der == bytes);
    }

    /// Returns certificates of Ed25519 and SM2, and one that is cut.
    pub(crate) fn seeds() -> Vec<Seed> {
        let cut = decoded(LEAF)[..200].to_vec();
        vec![("root", decoded(ROOT)), ("leaf", decoded(LEAF)), ("sm2", decoded(SM2)), ("cut", cut)]
    }
}

/// A chain, in PEM; or in DER, one after the other, so that what is changed is not the base64 alone.
pub(crate) mod chain {
    use super::*;

    /// Reads a chain and checks it.
    pub(crate) fn check(bytes: &[u8]) {
        warm();
        let text = match std::str::from_utf8(bytes) {
            Ok(text) if text.contains("-----BEGIN") => text.to_owned(),
            _ => split(bytes).map(|der| pem("CERTIFICATE", der)).collect(),
        };
        let chain = match within(2 * room(text.len()), || read_pem_chain(&text, 10)) {
            Ok(chain) => chain,
            Err(error) => return tells(&error),
        };
        assert!((1..=10).contains(&chain.len()));
        let written: String = chain.iter().map(Certificate::pem).collect();
        let again = read_pem_chain(&written, 10).expect("it was read");
        assert!(again.iter().map(|one| &one.der).eq(chain.iter().map(|one| &one.der)));
        match within(2 * room(text.len()), || check_chain(&chain, NOW)) {
            Ok(()) => {
                for pair in chain.windows(2) {
                    pair[0].is_signed_by(&pair[1]).expect("the chain was checked");
                    assert!(pair[1].authority.is_some());
                }
            }
            Err(error) => tells(&error),
        }
    }

    /// Cuts values of DER whose length is in two bytes, as those of certificates are.
    fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        std::iter::from_fn(move || {
            let [0x30, 0x82, high, low, ..] = bytes else { return None };
            let length = 4 + usize::from(u16::from_be_bytes([*high, *low]));
            let (one, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            Some(one)
        })
    }

    /// Returns a chain of three, in both forms, out of order, and a block that has no end.
    pub(crate) fn seeds() -> Vec<Seed> {
        let ders = [LEAF, MIDDLE, ROOT].map(decoded);
        let text: String = ders.iter().map(|der| pem("CERTIFICATE", der)).collect();
        let turned = [&ders[1][..], &ders[0], &ders[2]].concat();
        let open = text[..text.len() - 20].as_bytes().to_vec();
        vec![("pem", text.clone().into_bytes()), ("der", ders.concat()), ("order", turned), ("open", open)]
    }
}

/// A request for a certificate. An input that begins with zero is a subject, with its length before it, and attributes, which are signed here.
pub(crate) mod csr {
    use super::*;

    /// Reads a request.
    pub(crate) fn check(bytes: &[u8]) {
        warm();
        let made = match bytes {
            [0, length, rest @ ..] => signed(rest.split_at(rest.len().min(usize::from(*length)))),
            _ => bytes.to_vec(),
        };
        let read = match within(room(made.len()), || SigningRequest::read(&made)) {
            Ok(read) => read,
            Err(error) => return tells(&error),
        };
        assert!(read.subject.is_some() || !read.alt_names.is_empty());
        assert!(read.alt_names.len() <= 512);
        // What was asked is asked again alike.
        let Some(subject) = &read.subject else { return };
        match request(subject, &read.alt_names, &read.public_key, SignAlgorithm::Ed25519) {
            Ok(part) => {
                let signature = pair().sign(part.bytes());
                let whole = part.finish(signature.as_ref()).expect("there is a signature");
                match SigningRequest::read(&whole) {
                    Ok(again) => {
                        assert_eq!(again.subject.as_ref(), Some(subject));
                        assert_eq!(again.alt_names, read.alt_names);
                    }
                    // Where the key is another's.
                    Err(error) => tells(&error),
                }
            }
            Err(error) => tells(&error),
        }
    }

    fn pair() -> &'static Ed25519KeyPair {
        static PAIR: OnceLock<Ed25519KeyPair> = OnceLock::new();
        PAIR.get_or_init(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any seed is one"))
    }

    fn signed((subject, attributes): (&[u8], &[u8])) -> Vec<u8> {
        let key = [ED25519_KEY, pair().public_key().as_ref()].concat();
        let info = tlv(0x30, &[&[2, 1, 0], subject, &key, &tlv(0xa0, &[attributes])]);
        let signature = pair().sign(&info);
        tlv(0x30, &[&info, ED25519, &tlv(3, &[&[0], signature.as_ref()])])
    }

    /// Returns a request in DER and PEM, and its parts to be signed.
    pub(crate) fn seeds() -> Vec<Seed> {
        let whole = decoded(REQUEST);
        // The subject stands at 9, and the attributes at 87, for 87 less 2 bytes.
        let parts = [&[0, 32][..], &whole[9..41], &whole[87..174]].concat();
        vec![("parts", parts), ("pem", pem("CERTIFICATE REQUEST", &whole).into_bytes()), ("der", whole)]
    }
}

/// A question about revocation.
pub(crate) mod question {
    use super::*;

    /// Reads a question, and answers it.
    pub(crate) fn check(bytes: &[u8]) {
        let asked = match within(room(bytes.len()), || ocsp::read_request(bytes)) {
            Ok(asked) => asked,
            Err(error) => return tells(&error),
        };
        assert!((1..=ocsp::MAX_IDS).contains(&asked.ids.len()));
        assert!(asked.nonce.as_ref().is_none_or(|nonce| (1..=128).contains(&nonce.len())));
        let answers: Vec<_> = asked
            .ids
            .iter()
            .map(|id| ocsp::Answer { id, status: ocsp::Status::Good, this_update: NOW, next_update: NOW })
            .collect();
        let name = Certificate::read(&decoded(ROOT)).expect("the seed is good").subject_der;
        let nonce = asked.nonce.as_deref();
        let answer = ocsp::answer(&name, NOW, &answers, nonce, &[], SignAlgorithm::Ed25519);
        let answer = answer.expect("what was read is answered");
        for id in &asked.ids {
            assert!(id.serial.len() <= 20 && id.serial.first() != Some(&0));
            assert!(memchr::memmem::find(answer.bytes(), &id.issuer_key_hash).is_some());
        }
        assert!(answer.finish(&[1; 64]).is_ok());
    }

    /// Returns questions about two certificates and about one, and one that is cut.
    pub(crate) fn seeds() -> Vec<Seed> {
        let two = decoded(QUESTION);
        let cut = two[..two.len() - 3].to_vec();
        vec![("two", two), ("one", decoded(SHORT_QUESTION)), ("cut", cut)]
    }
}

/// PKCS #12. An input that begins with zero is its content, whose MAC is made here: nothing else comes past that.
pub(crate) mod container {
    use super::*;

    /// Opens a file.
    pub(crate) fn check(bytes: &[u8]) {
        let made = match bytes {
            [0, content @ ..] => protected(content),
            _ => bytes.to_vec(),
        };
        match within(room(made.len()), || pkcs12::open(&made, PASSWORD)) {
            Ok((key, certificates)) => {
                assert!(!key.is_empty() && (1..=10).contains(&certificates.len()));
                assert!(certificates.iter().all(|der| Certificate::read(der).is_ok()));
                let other = pkcs12::open(&made, "another").map(drop).expect_err("it has a password");
                tells(&other);
                assert!(other.to_string().contains("the password is wrong"));
            }
            Err(error) => tells(&error),
        }
    }

    /// Puts a MAC to a content: SHA-256, one iteration (RFC 7292 appendix B).
    fn protected(content: &[u8]) -> Vec<u8> {
        let words: Vec<u8> = PASSWORD.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect();
        let block = |bytes: &[u8]| bytes.iter().copied().cycle().take(64).collect::<Vec<_>>();
        let key = digest(&SHA256, &[block(&[3]), block(b"salt"), block(&words)].concat());
        let mac = sign(&Key::new(HMAC_SHA256, key.as_ref()), content);
        let sha256 = &[0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0];
        let data = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
        let safe = tlv(0x30, &[data, &tlv(0xa0, &[&tlv(4, &[content])])]);
        let info = tlv(0x30, &[sha256, &tlv(4, &[mac.as_ref()])]);
        tlv(0x30, &[&[2, 1, 3], &safe, &tlv(0x30, &[&info, &tlv(4, &[b"salt"]), &[2, 1, 1]])])
    }

    /// Returns a file, its content, and one that is cut.
    pub(crate) fn seeds() -> Vec<Seed> {
        let whole = decoded(PKCS12);
        // The content stands at 30, for 871 bytes.
        let content = [&[0][..], &whole[30..901]].concat();
        let cut = whole[..whole.len() - 3].to_vec();
        vec![("content", content), ("file", whole), ("cut", cut)]
    }
}
