//! The instance gateway at `/`: Protocol Buffers, signed by a client key; every refusal is its `Error` message.

use std::sync::OnceLock;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::access::{AccessSnapshot, Principal};
use keymill_core::id::AccessKeyId;
use keymill_core::seam::auth::{AuthError, Authenticator, Credential};
use keymill_wire::gateway::messages::*;
use prost::Message;
use serde_json::json;

use crate::client::{Answer, Client, now};
use crate::site::{Site, three_guesses};

/// The private half of every client key of these tests.
fn private_half() -> &'static RsaKeyPair {
    static PAIR: OnceLock<RsaKeyPair> = OnceLock::new();
    PAIR.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
}

/// Knows a client key of each access key: `KAAP.` and its id.
pub(crate) struct ClientKeys;

impl Authenticator for ClientKeys {
    fn scheme(&self) -> &'static str {
        "client-key"
    }

    fn authenticate(
        &self,
        offered: &Credential<'_>,
        signed: &[u8],
        known: &AccessSnapshot,
    ) -> Result<Principal, AuthError> {
        let Credential::ClientKey { id, signature } = *offered else { return Err(AuthError::Unknown) };
        let id = id.strip_prefix("KAAP.").and_then(|id| id.parse::<AccessKeyId>().ok());
        let id = id.filter(|id| known.access_keys.contains_key(id)).ok_or(AuthError::Unknown)?;
        let public = private_half().public_key().as_ref();
        let verified = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public).verify(signed, signature);
        verified.map_err(|_| AuthError::Mismatch)?;
        Ok(Principal::of_access_key(id))
    }
}

/// A request, each part of which a test may change before or after it is signed.
#[derive(Clone)]
struct Request {
    target: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn new(api: &str, caller: &str, body: Vec<u8>) -> Self {
        let sha256 = keymill_wire::acs3::hex(digest::digest(&digest::SHA256, &body).as_ref()).to_uppercase();
        let headers = [
            ("accept", "application/x-protobuf".to_owned()),
            ("host", "a".to_owned()),
            ("date", date(now().as_s())),
            ("x-kms-apiversion", "dkms-gcs-0.2".to_owned()),
            ("x-kms-apiname", api.to_owned()),
            ("x-kms-signaturemethod", "RSA_PKCS1_SHA_256".to_owned()),
            ("x-kms-acccesskeyid", format!("KAAP.{caller}")),
            ("content-type", "application/x-protobuf".to_owned()),
            ("content-sha256", sha256),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).into();
        Self { target: "/", headers, body }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn get(&self, name: &str) -> &str {
        &self.headers.iter().find(|(found, _)| found == name).unwrap().1
    }

    fn sign(self) -> Self {
        let mut to_sign = "POST\n".to_owned();
        for name in ["content-sha256", "content-type", "date"] {
            to_sign += &format!("{}\n", self.get(name));
        }
        let mut signed: Vec<_> = self.headers.iter().filter(|(name, _)| name.starts_with("x-kms-")).collect();
        signed.sort();
        signed.iter().for_each(|(name, value)| to_sign += &format!("{name}:{value}\n"));
        to_sign.push('/');
        let mut signature = vec![0; private_half().public_modulus_len()];
        let random = SystemRandom::new();
        private_half().sign(&RSA_PKCS1_SHA256, &random, to_sign.as_bytes(), &mut signature).unwrap();
        self.with("authorization", &format!("Bearer {}", STANDARD.encode(signature)))
    }

    fn send(&self, client: &mut Client) -> Answer {
        let headers: String = self.headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let head =
            format!("POST {} HTTP/1.1\r\n{headers}content-length: {}\r\n\r\n", self.target, self.body.len());
        *client = client.again();
        client.send_raw(&[head.as_bytes(), &self.body].concat());
        client.read().expect("an answer")
    }
}

/// Writes a date as RFC 1123 has it.
fn date(s: u64) -> String {
    let text = keymill_core::Timestamp::from_ms(s * 1000).to_string();
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        [text[5..7].parse::<usize>().unwrap() - 1];
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(s / 86_400 % 7) as usize];
    format!("{weekday}, {} {month} {} {} GMT", &text[8..10], &text[..4], &text[11..19])
}

/// Calls as one access key, by its client key.
struct Caller {
    client: Client,
    id: String,
}

impl Caller {
    fn root(site: &Site) -> Self {
        Self { client: site.client(), id: site.root.id.clone() }
    }

    /// Makes an access key that may use one key, and calls by its client key.
    fn of_key(site: &Site, key: &str) -> Self {
        let grants = json!([{"Role": "RbacPermission/Template/CryptoServiceKeyUser", "Resources": [format!("key/{key}")]}]);
        let made = site.client().call("CreateAccessKey", &json!({"Grants": grants}));
        Self { client: site.client(), id: made["AccessKeyId"].as_str().unwrap().to_owned() }
    }

    fn request(&self, api: &str, message: &impl Message) -> Request {
        Request::new(api, &self.id, message.encode_to_vec())
    }

    fn answer(&mut self, api: &str, message: &impl Message) -> Answer {
        self.request(api, message).sign().send(&mut self.client)
    }

    fn call<R: Message + Default>(&mut self, api: &str, message: &impl Message) -> R {
        let answer = self.answer(api, message);
        assert_eq!(answer.status, 200, "{api}: {:?}", Error::decode(&*answer.body).map(|e| e.error_message));
        assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
        R::decode(&*answer.body).unwrap()
    }

    fn refused(&mut self, api: &str, message: &impl Message) -> (u16, String) {
        refusal(&self.answer(api, message))
    }
}

/// Returns status and code of a refusal after checking its form.
fn refusal(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.header("content-type"), Some("application/x-protobuf"), "{answer:?}");
    let error = Error::decode(&*answer.body).unwrap();
    assert_eq!(error.status_code, i32::from(answer.status));
    assert_eq!(answer.header("x-acs-request-id"), Some(&*error.request_id));
    assert!(!error.error_message.is_empty() && !error.request_id.is_empty());
    (answer.status, error.error_code)
}

fn key(site: &Site, spec: &str, usage: &str) -> String {
    let made = site.client().call("CreateKey", &json!({"KeySpec": spec, "KeyUsage": usage}));
    made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
}

fn encrypt(key: &str, plaintext: &'static [u8]) -> EncryptRequest {
    EncryptRequest { key_id: key.to_owned(), plaintext: plaintext.into(), ..EncryptRequest::default() }
}

#[test]
fn what_is_encrypted_is_opened_with_its_associated_data_and_nonce_or_without_a_word_of_it() {
    let site = Site::start();
    let mut caller = Caller::root(&site);
    for (spec, algorithm) in
        [("Aliyun_AES_256", "AES_GCM"), ("Aliyun_AES_128", "AES_GCM"), ("Aliyun_SM4", "SM4_GCM")]
    {
        let key = key(&site, spec, "ENCRYPT/DECRYPT");
        let request = EncryptRequest { aad: (&b"aad"[..]).into(), ..encrypt(&key, b"hello") };
        let made: EncryptResponse = caller.call("Encrypt", &request);
        assert_eq!((&*made.key_id, &*made.algorithm, made.iv.len()), (&*key, algorithm, 12));
        let request = DecryptRequest {
            ciphertext_blob: made.ciphertext_blob.clone(),
            key_id: key.clone(),
            algorithm: made.algorithm.clone(),
            aad: (&b"aad"[..]).into(),
            iv: made.iv.clone(),
            padding_mode: made.padding_mode.clone(),
        };
        let opened: DecryptResponse = caller.call("Decrypt", &request);
        assert_eq!(
            (&*opened.plaintext, &*opened.key_id, &*opened.algorithm),
            (&b"hello"[..], &*key, algorithm)
        );
        // The blob tells all but the associated data.
        let short = AdvanceDecryptRequest {
            ciphertext_blob: made.ciphertext_blob.clone(),
            aad: (&b"aad"[..]).into(),
            ..AdvanceDecryptRequest::default()
        };
        let opened: AdvanceDecryptResponse = caller.call("AdvanceDecrypt", &short);
        assert_eq!((&*opened.plaintext, opened.key_version_id.len()), (&b"hello"[..], 36));
        // It is the encryption context of one pair.
        let blob = STANDARD.encode(&made.ciphertext_blob);
        let context = json!({"Aad": STANDARD.encode("aad")});
        let opened =
            site.client().call("Decrypt", &json!({"CiphertextBlob": blob, "EncryptionContext": context}));
        assert_eq!(opened["Plaintext"], STANDARD.encode("hello"));
        for wrong in [
            DecryptRequest { iv: vec![0; 12].into(), ..request.clone() },
            DecryptRequest { aad: (&b"aae"[..]).into(), ..request.clone() },
            DecryptRequest { aad: (&b""[..]).into(), ..request.clone() },
            DecryptRequest {
                algorithm: if algorithm == "AES_GCM" { "SM4_GCM" } else { "AES_GCM" }.into(),
                ..request.clone()
            },
            DecryptRequest { ciphertext_blob: made.ciphertext_blob.slice(..50), ..request.clone() },
        ] {
            assert_eq!(caller.refused("Decrypt", &wrong), (400, "InvalidParameter".to_owned()));
        }
    }
}

#[test]
fn the_other_forms_of_encryption_and_data_keys_go_the_same_way() {
    let site = Site::start();
    let mut caller = Caller::root(&site);
    let key = site.client().key();
    let plain = encrypt(&key, b"hello");
    let made: AdvanceEncryptResponse = caller.call("AdvanceEncrypt", &plain);
    assert_eq!((made.iv.len(), made.key_version_id.len(), &*made.padding_mode), (12, 36, "NO_PADDING"));
    let request = KmsDecryptRequest { ciphertext_blob: made.ciphertext_blob, ..KmsDecryptRequest::default() };
    assert_eq!(&*caller.call::<KmsDecryptResponse>("KmsDecrypt", &request).plaintext, b"hello");
    let request =
        KmsEncryptRequest { key_id: key.clone(), plaintext: (&b"hi"[..]).into(), aad: (&b"a"[..]).into() };
    let made: KmsEncryptResponse = caller.call("KmsEncrypt", &request);
    let request = KmsDecryptRequest { ciphertext_blob: made.ciphertext_blob, aad: (&b"a"[..]).into() };
    assert_eq!(&*caller.call::<KmsDecryptResponse>("KmsDecrypt", &request).plaintext, b"hi");

    let aad: bytes::Bytes = (&b"of a table"[..]).into();
    let mut request = GenerateDataKeyRequest { key_id: key.clone(), aad: aad.clone(), ..Default::default() };
    let made: GenerateDataKeyResponse = caller.call("GenerateDataKey", &request);
    assert_eq!((made.plaintext.len(), made.iv.len(), &*made.algorithm), (32, 12, "AES_GCM"));
    let open =
        DecryptRequest { ciphertext_blob: made.ciphertext_blob, aad: aad.clone(), ..Default::default() };
    assert_eq!(caller.call::<DecryptResponse>("Decrypt", &open).plaintext, made.plaintext);
    let advanced = AdvanceGenerateDataKeyRequest { key_id: key.clone(), number_of_bytes: 1024, aad };
    let made: AdvanceGenerateDataKeyResponse = caller.call("AdvanceGenerateDataKey", &advanced);
    assert_eq!((made.plaintext.len(), made.key_version_id.len()), (1024, 36));
    request.number_of_bytes = -1;
    assert_eq!(caller.refused("GenerateDataKey", &request), (400, "InvalidParameter".to_owned()));
    request.number_of_bytes = 1025;
    assert_eq!(caller.refused("GenerateDataKey", &request).1, "Rejected.LimitExceeded.DataKeyBytes");
    for (algorithm, code) in [("AES_CBC", "UnsupportedOperation"), ("SM4_GCM", "InvalidParameter")] {
        let request =
            GenerateDataKeyRequest { algorithm: algorithm.into(), number_of_bytes: 0, ..request.clone() };
        assert_eq!(caller.refused("GenerateDataKey", &request), (400, code.to_owned()));
    }
    // What a caller may not choose.
    let own_iv = EncryptRequest { iv: vec![0; 12].into(), ..plain.clone() };
    assert_eq!(caller.refused("Encrypt", &own_iv), (400, "UnsupportedOperation".to_owned()));
    let cbc = EncryptRequest { algorithm: "AES_CBC".into(), ..plain.clone() };
    assert_eq!(caller.refused("Encrypt", &cbc), (400, "UnsupportedOperation".to_owned()));
    let padded = EncryptRequest { padding_mode: "PKCS7_PADDING".into(), ..plain };
    assert_eq!(caller.refused("Encrypt", &padded), (400, "InvalidParameter".to_owned()));
}

#[test]
fn key_pairs_sign_and_encrypt_in_their_own_way_where_none_is_named() {
    let site = Site::start();
    let mut caller = Caller::root(&site);
    for (spec, algorithm) in
        [("RSA_2048", "RSA_PSS_SHA_256"), ("EC_P256", "ECDSA_SHA_256"), ("EC_SM2", "SM2DSA")]
    {
        let key = key(&site, spec, "SIGN/VERIFY");
        let request =
            SignRequest { key_id: key.clone(), message: (&b"hello"[..]).into(), ..Default::default() };
        let signed: SignResponse = caller.call("Sign", &request);
        assert_eq!((&*signed.algorithm, &*signed.message_type), (algorithm, "RAW"));
        let mut request = VerifyRequest {
            key_id: key.clone(),
            message: (&b"hello"[..]).into(),
            message_type: "RAW".into(),
            signature: signed.signature,
            algorithm: signed.algorithm,
            ..Default::default()
        };
        assert!(caller.call::<VerifyResponse>("Verify", &request).value);
        request.message = (&b"hellp"[..]).into();
        assert!(!caller.call::<VerifyResponse>("Verify", &request).value);
        let request = GetPublicKeyRequest { key_id: key };
        let told: GetPublicKeyResponse = caller.call("GetPublicKey", &request);
        assert!(told.public_key.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{}", told.public_key);
    }
    for (spec, algorithm) in [("RSA_2048", "RSAES_OAEP_SHA_256"), ("EC_SM2", "SM2PKE")] {
        let key = key(&site, spec, "ENCRYPT/DECRYPT");
        let made: EncryptResponse = caller.call("Encrypt", &encrypt(&key, b"hello"));
        assert_eq!((&*made.algorithm, &*made.padding_mode, made.iv.len()), (algorithm, "", 0));
        let mut request =
            DecryptRequest { ciphertext_blob: made.ciphertext_blob, key_id: key, ..Default::default() };
        assert_eq!(&*caller.call::<DecryptResponse>("Decrypt", &request).plaintext, b"hello");
        request.aad = (&b"a"[..]).into();
        assert_eq!(caller.refused("Decrypt", &request), (400, "InvalidParameter".to_owned()));
    }
    let key = key(&site, "HMAC_SHA_256", "GENERATE/VERIFY");
    let made: HmacResponse =
        caller.call("Hmac", &HmacRequest { key_id: key.clone(), message: (&b"m"[..]).into() });
    assert_eq!(made.signature.len(), 32);
    let request = SignRequest { key_id: key, message: (&b"m"[..]).into(), ..Default::default() };
    assert_eq!(caller.refused("Sign", &request), (400, "InvalidParameter".to_owned()));
}

#[test]
fn a_data_key_pair_opens_again_and_its_halves_belong_together() {
    let site = Site::start();
    let mut caller = Caller::root(&site);
    let key_id = site.client().key();
    for spec in ["RSA_2048", "EC_P256", "EC_P256K", "EC_SM2"] {
        let aad: bytes::Bytes = (&b"of a device"[..]).into();
        let mut request = AdvanceGenerateDataKeyPairRequest {
            key_id: key_id.clone(),
            key_pair_spec: spec.into(),
            aad: aad.clone(),
            ..Default::default()
        };
        let made: AdvanceGenerateDataKeyPairResponse = caller.call("AdvanceGenerateDataKeyPair", &request);
        assert_eq!((&*made.key_pair_spec, &*made.algorithm, made.iv.len()), (spec, "AES_GCM", 12));
        assert!(made.private_key_plaintext.starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
        assert!(made.public_key.starts_with(b"-----BEGIN PUBLIC KEY-----\n"));
        let blob = made.private_key_ciphertext_blob;
        let open =
            DecryptRequest { ciphertext_blob: blob, iv: made.iv, aad: aad.clone(), ..Default::default() };
        assert_eq!(caller.call::<DecryptResponse>("Decrypt", &open).plaintext, made.private_key_plaintext);
        request.key_format = "DER".into();
        let made: AdvanceGenerateDataKeyPairWithoutPlaintextResponse = caller.call(
            "AdvanceGenerateDataKeyPairWithoutPlaintext",
            &AdvanceGenerateDataKeyPairWithoutPlaintextRequest {
                key_id: request.key_id.clone(),
                key_pair_spec: spec.into(),
                key_format: "DER".into(),
                aad: aad.clone(),
            },
        );
        let open = AdvanceDecryptRequest {
            ciphertext_blob: made.private_key_ciphertext_blob,
            aad,
            ..Default::default()
        };
        let private = caller.call::<AdvanceDecryptResponse>("AdvanceDecrypt", &open).plaintext;
        assert!(private[0] == 0x30 && made.public_key[0] == 0x30);
        if spec == "RSA_2048" {
            let pair = RsaKeyPair::from_pkcs8(&private).unwrap();
            let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
                aws_lc_rs::encoding::AsDer::as_der(pair.public_key()).unwrap();
            assert_eq!(public.as_ref(), &*made.public_key);
        }
    }
    let pair = |spec: &str, format: &str, algorithm: &str| GenerateDataKeyPairRequest {
        key_id: key_id.clone(),
        key_pair_spec: spec.into(),
        key_format: format.into(),
        algorithm: algorithm.into(),
        ..Default::default()
    };
    let _: GenerateDataKeyPairResponse =
        caller.call("GenerateDataKeyPair", &pair("EC_P256", "PEM", "AES_GCM"));
    let made: GenerateDataKeyPairWithoutPlaintextResponse =
        caller.call("GenerateDataKeyPairWithoutPlaintext", &pair("EC_P256", "DER", ""));
    assert_eq!(made.public_key.len(), 91);
    for (wrong, code) in [
        (pair("Ed25519", "", ""), "InvalidParameter"),
        (pair("Aliyun_AES_256", "", ""), "InvalidParameter"),
        (pair("EC_P256", "JWK", ""), "InvalidParameter"),
        (pair("EC_P256", "", "AES_CBC"), "UnsupportedOperation"),
        (pair("", "", ""), "MissingParameter"),
    ] {
        assert_eq!(caller.refused("GenerateDataKeyPair", &wrong), (400, code.to_owned()));
    }
}

#[test]
fn random_bytes_are_of_the_length_that_was_asked_for() {
    let site = Site::start();
    let mut caller = Caller::root(&site);
    for length in [1, 32, 1024] {
        let drawn: GenerateRandomResponse = caller.call("GenerateRandom", &GenerateRandomRequest { length });
        assert_eq!(drawn.random.len(), length as usize);
    }
    for length in [0, 1025, -1, i32::MIN] {
        let refused = caller.refused("GenerateRandom", &GenerateRandomRequest { length });
        assert_eq!(refused, (400, "InvalidParameter".to_owned()), "{length}");
    }
}

#[test]
fn a_key_that_one_may_not_use_looks_like_one_that_does_not_exist() {
    let site = Site::start();
    let (own, absent) = (site.client().key(), "00000000-0000-4000-8000-000000000000".to_owned());
    let other = [
        key(&site, "Aliyun_AES_256", "ENCRYPT/DECRYPT"),
        key(&site, "RSA_2048", "ENCRYPT/DECRYPT"),
        key(&site, "EC_P256", "SIGN/VERIFY"),
    ];
    let mut caller = Caller::of_key(&site, &own);
    let _: EncryptResponse = caller.call("Encrypt", &encrypt(&own, b"hello"));
    let told = |caller: &mut Caller, key: &str| {
        let key_id = key.to_owned();
        let message = bytes::Bytes::from_static(b"m");
        let mut told = Vec::new();
        for algorithm in ["", "AES_GCM", "SM4_GCM", "AES_CBC", "RSAES_OAEP_SHA_256", "SM2PKE", "x"] {
            for iv in [bytes::Bytes::new(), vec![1; 12].into()] {
                let (algorithm, key_id) = (algorithm.to_owned(), key_id.clone());
                let request = EncryptRequest { key_id, algorithm, iv, ..encrypt(key, b"m") };
                told.push(caller.answer("Encrypt", &request));
                told.push(caller.answer(
                    "GenerateDataKey",
                    &GenerateDataKeyRequest {
                        key_id: request.key_id,
                        algorithm: request.algorithm,
                        ..Default::default()
                    },
                ));
            }
        }
        for algorithm in ["", "RSA_PSS_SHA_256", "ECDSA_SHA_256", "x"] {
            let (key_id, algorithm) = (key_id.clone(), algorithm.to_owned());
            let request = SignRequest { key_id, algorithm, message: message.clone(), ..Default::default() };
            told.push(caller.answer("Sign", &request));
        }
        told.push(caller.answer("GetPublicKey", &GetPublicKeyRequest { key_id: key_id.clone() }));
        told.push(caller.answer("Hmac", &HmacRequest { key_id, message }));
        let shown = |answer: Answer| {
            let error = Error::decode(&*answer.body).unwrap();
            (answer.status, error.error_code, error.error_message)
        };
        told.into_iter().map(shown).collect::<Vec<_>>()
    };
    let expected = told(&mut caller, &absent);
    assert!(expected.iter().any(|(status, code, _)| (*status, &**code) == (404, "Forbidden.KeyNotFound")));
    for key in &other {
        assert_eq!(told(&mut caller, key), expected);
    }
}

#[test]
fn strangers_are_refused_alike_and_every_refusal_is_a_message() {
    let site = Site::start();
    let mut caller = Caller::root(&site);
    let request = caller.request("GenerateRandom", &GenerateRandomRequest { length: 8 });
    let client = &mut site.client();
    assert_eq!(request.clone().sign().send(client).status, 200);
    let mut told = |request: Request| {
        let answer = request.send(client);
        let message = Error::decode(&*answer.body).unwrap().error_message;
        (refusal(&answer), message)
    };
    let no_match = told(request.clone().sign().with("x-kms-apiname", "Encrypt"));
    assert_eq!(no_match.0, (401, "SignatureNotMatch".to_owned()));
    let unknown = request.clone().with("x-kms-acccesskeyid", "KAAP.00000000-0000-4000-8000-000000000001");
    assert_eq!(told(unknown.sign()), no_match, "who is not known is told no more");
    assert_eq!(told(request.clone().sign().with("authorization", "Bearer AAAA")), no_match);
    for (name, changed) in [
        ("date", date(now().as_s() + 1)),
        ("x-kms-apiname", "Decrypt".to_owned()),
        ("x-kms-apiversion", "dkms-gcs-0.3".to_owned()),
        ("x-kms-signaturemethod", "ECDSA_SHA_256".to_owned()),
        ("x-kms-acccesskeyid", "KAAP.x".to_owned()),
        ("x-kms-more", "1".to_owned()),
        ("content-type", "application/x-protobuf; a=b".to_owned()),
        ("content-sha256", "0".repeat(64)),
    ] {
        assert_eq!(told(request.clone().sign().with(name, &changed)), no_match, "{name}");
    }
    let mut swapped = request.clone().sign();
    swapped.body = GenerateRandomRequest { length: 9 }.encode_to_vec();
    assert_eq!(told(swapped), no_match);

    let code = |request: Request, client: &mut Client| refusal(&request.send(client));
    let skewed = |by: i64| {
        let at = now().as_s().saturating_add_signed(by);
        request.clone().with("date", &date(at)).sign()
    };
    let skew = (400, "RequestTimeTooSkewed".to_owned());
    assert_eq!(code(skewed(-16 * 60), client), skew);
    assert_eq!(code(skewed(16 * 60), client), skew);
    assert_eq!(skewed(-14 * 60).send(client).status, 200);
    for (changed, status, expected) in [
        (request.clone().with("x-kms-apiname", "CreateKey").sign(), 400, "InvalidApiName"),
        (request.clone().with("x-kms-apiname", "GetSecretValue").sign(), 400, "InvalidParam"),
        (request.clone().with("x-kms-apiname", "Hash").sign(), 400, "UnsupportedOperation"),
        (request.clone().with("x-kms-apiversion", "dkms-gcs-0.1").sign(), 400, "InvalidApiVersion"),
        (request.clone().with("x-kms-signaturemethod", "HMAC_SHA_1").sign(), 400, "InvalidParam"),
        (request.clone().with("date", "yesterday").sign(), 400, "InvalidParam"),
        (request.clone().with("x-kms-apiname", "").sign(), 400, "MissingParameter"),
        (request.clone(), 400, "MissingParameter"),
        (Request { target: "/?a=b", ..request.clone() }.sign(), 400, "InvalidParam"),
        (Request::new("Encrypt", &caller.id, b"\x08\x01".to_vec()).sign(), 400, "InvalidParam"),
        (Request::new("Encrypt", &caller.id, b"\x0a\x7f".to_vec()).sign(), 400, "InvalidParam"),
        (Request::new("Encrypt", &caller.id, Vec::new()).sign(), 400, "MissingParameter"),
        (
            Request::new("Encrypt", &caller.id, vec![0; 3 * 1024 * 1024 + 1]).sign(),
            413,
            "Rejected.BodyTooLarge",
        ),
    ] {
        assert_eq!(code(changed, client), (status, expected.to_owned()));
    }
    // Fields that are not known are passed over.
    let newer = [&GenerateRandomRequest { length: 8 }.encode_to_vec()[..], b"\x7a\x03new"].concat();
    assert_eq!(Request::new("GenerateRandom", &caller.id, newer).sign().send(client).status, 200);
    let large = encrypt(&site.client().key(), &[0; 6_145]);
    assert_eq!(caller.refused("Encrypt", &large).1, "Rejected.LimitExceeded.PlaintextBytes");
}

#[test]
fn requests_are_recorded_and_a_client_key_that_is_switched_off_is_refused() {
    let site = Site::start();
    let key = site.client().key();
    let mut caller = Caller::of_key(&site, &key);
    let _: EncryptResponse = caller.call("Encrypt", &encrypt(&key, b"hello"));
    let _: GenerateRandomResponse = caller.call("GenerateRandom", &GenerateRandomRequest { length: 8 });
    assert_eq!(caller.refused("Hash", &GetPublicKeyRequest::default()).1, "UnsupportedOperation");
    site.client().call("UpdateAccessKey", &json!({"AccessKeyId": caller.id, "Status": "Inactive"}));
    let refused = caller.refused("GenerateRandom", &GenerateRandomRequest { length: 8 });
    assert_eq!(refused, (401, "SignatureNotMatch".to_owned()));
    let lines = site.stop();
    let of_caller =
        |what: &str| lines.iter().filter(|line| line.contains(&caller.id) && line.contains(what)).count();
    assert_eq!(of_caller("\"AdvanceEncrypt\""), 1, "{lines:#?}");
    assert_eq!(of_caller("\"GenerateRandom\""), 1);
    assert_eq!(of_caller("\"unknown\""), 1);
}

// D14
#[test]
fn a_source_of_guesses_is_throttled_and_told_so_in_the_words_of_this_dialect() {
    let site = Site::start_with(three_guesses);
    let key = key(&site, "Aliyun_AES_256", "ENCRYPT/DECRYPT");
    let mut known = Caller::root(&site);
    known.call::<EncryptResponse>("Encrypt", &encrypt(&key, b"x"));
    let mut fresh = Caller::of_key(&site, &key);
    let mut nobody = Caller { client: site.client(), id: "nobody-knows-me".into() };
    for _ in 0..3 {
        assert_eq!(nobody.refused("Encrypt", &encrypt(&key, b"x")), (401, "SignatureNotMatch".into()));
    }
    for caller in [&mut nobody, &mut fresh] {
        let answer = caller.answer("Encrypt", &encrypt(&key, b"x"));
        assert_eq!(refusal(&answer), (429, "Rejected.Throttling".into()));
        assert!(answer.header("retry-after").is_some());
    }
    known.call::<EncryptResponse>("Encrypt", &encrypt(&key, b"x"));
}
