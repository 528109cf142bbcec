//! What each request becomes, by what it says and what is known of its key.

use keymill_core::blob::{Algorithm, Header};
use keymill_core::id::CmkId;
use keymill_core::operation::Operation;

use super::*;

const KEY: &str = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";

fn known(spec: KeySpec) -> KeySketch {
    let first_version = KeyVersionId::from_bytes([9; 16]);
    KeySketch { spec, usage: spec.usages()[0], first_version }
}

fn said(api: Api, change: impl FnOnce(&mut Said)) -> Said {
    let mut said = Said { key: KEY.to_owned(), ..Said::of(api) };
    change(&mut said);
    said
}

fn operation(said: &Said, spec: Option<KeySpec>) -> Result<Operation, ErrorKind> {
    let known = spec.map(known);
    said.ask(known.as_ref()).map(|asked| asked.request.operation()).map_err(|error| error.kind())
}

#[test]
fn every_operation_is_found_by_its_name_and_asks_for_what_it_says() {
    for api in Api::ALL {
        assert_eq!(Api::by_name(api.name()).unwrap(), api);
        let said = said(api, |said| {
            (said.data, said.number, said.spec) = (Bytes::from_static(b"m"), 1, "EC_P256".to_owned());
            said.secret = "db/conn".to_owned();
        });
        assert_eq!(operation(&said, None), Ok(api.operation()), "{api:?}");
    }
    for (name, kind) in [
        ("Hash", ErrorKind::Unsupported),
        ("encrypt", ErrorKind::OperationNotFound),
        ("CreateKey", ErrorKind::OperationNotFound),
        ("", ErrorKind::OperationNotFound),
    ] {
        assert_eq!(Api::by_name(name).unwrap_err().kind(), kind, "{name}");
    }
}

#[test]
fn an_algorithm_decides_and_the_key_does_where_there_is_none() {
    let encrypt = |algorithm: &str, spec| {
        operation(&said(Api::Encrypt, |said| said.algorithm = algorithm.to_owned()), spec)
    };
    assert_eq!(encrypt("", None), Ok(Operation::AdvanceEncrypt));
    assert_eq!(encrypt("", Some(KeySpec::Aes256)), Ok(Operation::AdvanceEncrypt));
    assert_eq!(encrypt("", Some(KeySpec::EcP256)), Ok(Operation::AdvanceEncrypt));
    assert_eq!(encrypt("", Some(KeySpec::Rsa2048)), Ok(Operation::AsymmetricEncrypt));
    assert_eq!(encrypt("", Some(KeySpec::EcSm2)), Ok(Operation::AsymmetricEncrypt));
    // What is known of the key does not change what is refused.
    for spec in [None, Some(KeySpec::Aes256), Some(KeySpec::Rsa2048)] {
        assert_eq!(encrypt("AES_CBC", spec), Ok(Operation::AdvanceEncrypt));
        assert_eq!(encrypt("SM4_GCM", spec), Ok(Operation::AdvanceEncrypt));
        assert_eq!(encrypt("RSAES_OAEP_SHA_256", spec), Ok(Operation::AsymmetricEncrypt));
        assert_eq!(encrypt("SM2PKE", spec), Ok(Operation::AsymmetricEncrypt));
        assert_eq!(encrypt("ECIES_DH_SHA_1_XOR_HMAC", spec), Err(ErrorKind::Unsupported));
        assert_eq!(encrypt("aes_gcm", spec), Err(ErrorKind::InvalidParameter));
    }
    let data_key = |algorithm: &str, spec| {
        operation(&said(Api::GenerateDataKey, |said| said.algorithm = algorithm.to_owned()), spec)
    };
    assert_eq!(data_key("AES_GCM", Some(KeySpec::Aes128)), Ok(Operation::GenerateDataKey));
    assert_eq!(data_key("AES_GCM", Some(KeySpec::Sm4)), Err(ErrorKind::InvalidParameter));
    assert_eq!(data_key("SM4_GCM", None), Ok(Operation::GenerateDataKey));
    for spec in [None, Some(KeySpec::Aes256)] {
        assert_eq!(data_key("AES_ECB", spec), Err(ErrorKind::Unsupported));
        assert_eq!(data_key("SM2PKE", spec), Err(ErrorKind::InvalidParameter));
    }
}

#[test]
fn a_signature_is_made_by_the_first_version_in_the_first_way_of_the_key() {
    let said = said(Api::Sign, |said| said.digest = Bytes::from_static(&[7; 32]));
    for (spec, algorithm) in [
        (KeySpec::Rsa3072, SignAlgorithm::RsaPssSha256),
        (KeySpec::EcP256K, SignAlgorithm::EcdsaSha256),
        (KeySpec::EcSm2, SignAlgorithm::Sm2Dsa),
    ] {
        let known = known(spec);
        let asked = said.ask(Some(&known)).unwrap();
        let Request::AsymmetricSign(request) = asked.request else { panic!("{:?}", asked.request) };
        assert_eq!((request.algorithm, request.key_version_id), (algorithm, known.first_version));
        assert_eq!((asked.algorithm, asked.kind), (algorithm.name(), "DIGEST"));
    }
}

#[test]
fn what_is_signed_is_a_message_or_its_digest() {
    let signed = |kind: &str, digest: &'static [u8], message: &'static [u8]| {
        let said = said(Api::Sign, |said| {
            said.kind = kind.to_owned();
            said.digest = Bytes::from_static(digest);
            said.data = Bytes::from_static(message);
        });
        let asked = said.ask(None).map_err(|error| error.kind())?;
        let Request::AsymmetricSign(request) = asked.request else { panic!("{:?}", asked.request) };
        assert!(request.digest.is_some() != request.message.is_some());
        Ok((request.digest.is_some(), asked.kind))
    };
    assert_eq!(signed("", b"d", b""), Ok((true, "DIGEST")));
    assert_eq!(signed("DIGEST", b"d", b""), Ok((true, "DIGEST")));
    assert_eq!(signed("DIGEST", b"", b"m"), Ok((true, "DIGEST")));
    assert_eq!(signed("", b"", b"m"), Ok((false, "RAW")));
    assert_eq!(signed("RAW", b"", b"m"), Ok((false, "RAW")));
    assert_eq!(signed("RAW", b"d", b""), Err(ErrorKind::InvalidParameter));
    assert_eq!(signed("", b"d", b"m"), Err(ErrorKind::InvalidParameter));
    assert_eq!(signed("raw", b"", b"m"), Err(ErrorKind::InvalidParameter));
    assert_eq!(signed("", b"", b""), Err(ErrorKind::MissingParameter));
}

#[test]
fn the_nonce_of_a_ciphertext_is_told_by_the_bytes_of_gcm() {
    let header =
        Header { algorithm: Algorithm::Xaes256Gcm, text: false, cmk: CmkId::from_bytes([1; 16]), version: 1 };
    let nonce: Vec<u8> = (0..24).collect();
    let blob = Bytes::from([&header.to_bytes()[..], &nonce, &[0; 20]].concat());
    let asked_for = |iv: &[u8]| {
        let said =
            said(Api::Decrypt, |said| (said.data, said.iv) = (blob.clone(), Bytes::copy_from_slice(iv)));
        let asked = said.ask(None).unwrap();
        let Request::AdvanceDecrypt(request) = asked.request else { panic!("{:?}", asked.request) };
        (request.iv.as_deref().map(<[u8]>::to_vec), request.check().is_ok())
    };
    assert_eq!(asked_for(&nonce[12..]), (Some(nonce.clone()), true));
    assert_eq!(asked_for(&nonce), (Some(nonce.clone()), true));
    assert_eq!(asked_for(&[]), (None, true));
    for other in [&nonce[..12], &nonce[13..], &[0; 12][..], &[0; 16]] {
        assert_eq!(asked_for(other), (Some(other.to_vec()), false), "{other:?}");
    }
}

#[test]
fn what_a_caller_may_not_choose_is_passed_on_to_be_refused() {
    let said = said(Api::Encrypt, |said| {
        said.iv = Bytes::from_static(&[0; 12]);
        said.padding = "PKCS7_PADDING".to_owned();
    });
    let asked = said.ask(Some(&known(KeySpec::Aes256))).unwrap();
    let Request::AdvanceEncrypt(request) = asked.request else { panic!("{:?}", asked.request) };
    assert_eq!(request.check().unwrap_err().kind(), ErrorKind::Unsupported);
    let error = said.ask(Some(&known(KeySpec::Rsa2048))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    assert!(error.message().starts_with("Iv: "), "{error}");
}

#[test]
fn a_data_key_pair_has_a_kind_and_a_form() {
    let pair = |spec: &str, format: &str| {
        let said = said(Api::GenerateDataKeyPair, |said| {
            (said.spec, said.format) = (spec.to_owned(), format.to_owned());
        });
        let asked = said.ask(None).map_err(|error| error.kind())?;
        let Request::GenerateDataKeyPair(request) = asked.request else { panic!("{:?}", asked.request) };
        Ok((request.key_pair_spec, request.key_format))
    };
    assert_eq!(pair("RSA_2048", ""), Ok((KeySpec::Rsa2048, None)));
    assert_eq!(pair("EC_SM2", "DER"), Ok((KeySpec::EcSm2, Some(KeyFormat::Der))));
    assert_eq!(pair("", "DER"), Err(ErrorKind::MissingParameter));
    assert_eq!(pair("RSA_1024", ""), Err(ErrorKind::InvalidParameter));
    assert_eq!(pair("RSA_2048", "der"), Err(ErrorKind::InvalidParameter));
}

#[test]
fn numbers_are_not_negative_and_zero_is_none() {
    for (number, bytes) in [(0, Some(None)), (16, Some(Some(16))), (-1, None), (i32::MIN, None)] {
        let said = said(Api::AdvanceGenerateDataKey, |said| said.number = number);
        let asked = said.ask(None).ok().map(|asked| match asked.request {
            Request::GenerateDataKey(request) => request.number_of_bytes,
            other => panic!("{other:?}"),
        });
        assert_eq!(asked, bytes, "{number}");
    }
}

#[test]
fn a_key_is_needed_by_all_but_what_has_none_and_ciphertexts_that_name_theirs() {
    for api in Api::ALL {
        let said = said(api, |said| {
            (said.key, said.data, said.spec) =
                (String::new(), Bytes::from_static(b"m"), "EC_P256".to_owned());
        });
        let is_needed = operation(&said, None) == Err(ErrorKind::MissingParameter);
        let has_none =
            matches!(api, Api::Decrypt | Api::AdvanceDecrypt | Api::KmsDecrypt | Api::GenerateRandom);
        assert_eq!(is_needed, !has_none, "{api:?}");
    }
}

#[test]
fn a_secret_is_asked_for_by_name_and_version_or_stage_and_an_odd_name_is_told_by_its_field() {
    let asked = |secret: &str, version: &str, stage: &str| {
        let said = said(Api::GetSecretValue, |said| {
            (said.secret, said.version, said.stage) = (secret.into(), version.into(), stage.into());
        });
        match said.ask(None) {
            Ok(asked) => match asked.request {
                Request::GetSecretValue(r) => Ok((r.secret_name.0, r.version_id, r.version_stage)),
                other => panic!("{other:?}"),
            },
            Err(error) => Err((error.kind(), error.message().to_owned())),
        }
    };
    assert_eq!(asked("db/conn", "", ""), Ok(("db/conn".parse().unwrap(), None, None)));
    let both = asked("acs:kms:r:1:secret/db", "v1", "ACSCurrent").unwrap();
    assert_eq!((both.1.unwrap().as_str(), both.2.unwrap().as_str()), ("v1", "ACSCurrent"));
    assert_eq!(asked("", "v1", "").unwrap_err().0, ErrorKind::MissingParameter);
    for (secret, version, stage, field) in [
        ("a b", "", "", "SecretName: "),
        ("a", "a b", "", "VersionId: "),
        ("a", "", "a\nb", "VersionStage: "),
    ] {
        let (kind, message) = asked(secret, version, stage).unwrap_err();
        assert!(kind == ErrorKind::InvalidParameter && message.starts_with(field), "{message}");
    }
}
