//! Certificates through their whole life: made, signed elsewhere and put here, used, revoked, ended; kept over a restart and a crash; and nobody
//! else's. Their keys are found by no other way.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::{Credentials, ServerError};
use keymill_core::Timestamp;
use keymill_core::access::Grant;
use keymill_e2e::{Caller, Elsewhere, audit_lines, code, text, verified};
use keymill_harness::{Fuse, Live, Point, Setup, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const SUBJECT: &str = "CN=orders,OU=payments,O=Example,C=CN";
const NO_CERTIFICATE: &str = "Certificate.NotFound";
const WRONG_STATE: &str = "Rejected.StateModifiedFailed";

fn begin() -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn refused(answered: Result<Value, ServerError>) -> (String, String) {
    let error = answered.expect_err("it is refused");
    (error.code, error.message)
}

/// Makes a certificate; returns its id and its request.
fn create(caller: &mut Caller, spec: &str) -> (String, String) {
    let asked = json!({
        "KeySpec": spec, "Subject": SUBJECT, "SubjectAlternativeNames": ["orders.example", "IP:10.0.0.1"],
    });
    let reply = caller.ask_json("CreateCertificate", asked).unwrap();
    (text(&reply, "CertificateId"), text(&reply, "Csr"))
}

/// Makes one that is active.
fn active(caller: &mut Caller, spec: &str, elsewhere: &Elsewhere, now: Timestamp) -> String {
    let (id, csr) = create(caller, spec);
    upload(caller, &id, &elsewhere.certify(&csr, now, (-1, 30)), &elsewhere.pem()).unwrap();
    id
}

fn upload(caller: &mut Caller, id: &str, certificate: &str, chain: &str) -> Result<Value, ServerError> {
    let asked = json!({ "CertificateId": id, "Certificate": certificate, "CertificateChain": chain });
    caller.ask_json("UploadCertificate", asked)
}

fn sign(caller: &mut Caller, id: &str, algorithm: &str) -> Result<Value, ServerError> {
    let asked =
        json!({ "CertificateId": id, "Algorithm": algorithm, "Message": "aGVsbG8=", "MessageType": "RAW" });
    caller.ask_json("CertificatePrivateKeySign", asked)
}

fn verify(caller: &mut Caller, id: &str, algorithm: &str, signature: &str) -> Result<Value, ServerError> {
    let asked = json!({
        "CertificateId": id, "Algorithm": algorithm, "Message": "aGVsbG8=", "SignatureValue": signature,
    });
    caller.ask_json("CertificatePublicKeyVerify", asked)
}

fn set_status(caller: &mut Caller, id: &str, status: &str) -> Result<Value, ServerError> {
    caller.ask_json("UpdateCertificateStatus", json!({ "CertificateId": id, "Status": status }))
}

fn named(id: &str) -> Value {
    json!({ "CertificateId": id })
}

#[test]
fn a_certificate_is_made_signed_elsewhere_used_and_the_same_after_a_restart() {
    let (live, mut caller, credentials) = begin();
    let now = live.clock.now();
    let elsewhere = Elsewhere::new("elsewhere", now);
    let mut made = Vec::new();
    for (spec, algorithms, signed) in [
        ("RSA_2048", &["RSA_PKCS1_SHA_256", "RSA_PSS_SHA_256"][..], "ECDSA-SHA256"),
        ("EC_P256", &["ECDSA_SHA_256"], "ECDSA-SHA256"),
        ("EC_P384", &["ECDSA_SHA_384"], "ECDSA-SHA256"),
    ] {
        let (id, csr) = create(&mut caller, spec);
        let told = caller.ask_json("DescribeCertificate", named(&id)).unwrap();
        assert_eq!((&told["Status"], &told["Subject"]), (&json!("PENDING"), &json!(SUBJECT)));
        assert_eq!(told["SubjectAlternativeNames"], json!(["orders.example", "IP:10.0.0.1"]));
        let pending = caller.ask_json("GetCertificate", named(&id)).unwrap();
        assert_eq!((pending["Csr"].as_str(), pending.get("Certificate")), (Some(&*csr), None));
        let certificate = elsewhere.certify(&csr, now, (-1, 30));
        upload(&mut caller, &id, &certificate, &elsewhere.pem()).unwrap();
        let mut signatures = Vec::new();
        for algorithm in algorithms {
            let signature = text(&sign(&mut caller, &id, algorithm).unwrap(), "SignatureValue");
            signatures.push((*algorithm, signature));
        }
        made.push((id, certificate, signatures, signed));
    }
    let live = live.restart(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    for (id, certificate, signatures, signed) in &made {
        let told = caller.ask_json("DescribeCertificate", named(id)).unwrap();
        assert_eq!((&told["Status"], &told["Issuer"]), (&json!("ACTIVE"), &json!("CN=elsewhere")));
        assert_eq!(told["SignatureAlgorithm"], json!(signed));
        let got = caller.ask_json("GetCertificate", named(id)).unwrap();
        assert_eq!(
            (text(&got, "Certificate"), text(&got, "CertificateChain")),
            (certificate.clone(), elsewhere.pem())
        );
        for (algorithm, signature) in signatures {
            assert_eq!(verify(&mut caller, id, algorithm, signature).unwrap()["SignatureValid"], json!(true));
            let mut other = signature.clone();
            other.replace_range(20..21, if &other[20..21] == "A" { "B" } else { "A" });
            assert_eq!(verify(&mut caller, id, algorithm, &other).unwrap()["SignatureValid"], json!(false));
        }
    }
    verified(&live.halt());
}

#[test]
fn a_key_of_rsa_signs_and_decrypts() {
    let (live, mut caller, _) = begin();
    let elsewhere = Elsewhere::new("elsewhere", live.clock.now());
    let id = active(&mut caller, "RSA_2048", &elsewhere, live.clock.now());
    sign(&mut caller, &id, "RSA_PSS_SHA_256").unwrap();
    let asked = json!({ "CertificateId": id, "Algorithm": "RSAES_OAEP_SHA_1", "Plaintext": "c2VjcmV0" });
    let sealed = text(&caller.ask_json("CertificatePublicKeyEncrypt", asked).unwrap(), "CiphertextBlob");
    let asked = json!({ "CertificateId": id, "Algorithm": "RSAES_OAEP_SHA_1", "CiphertextBlob": sealed });
    let opened = caller.ask_json("CertificatePrivateKeyDecrypt", asked).unwrap();
    assert_eq!(opened["Plaintext"], json!("c2VjcmV0"));
    let odd = json!({ "CertificateId": id, "Algorithm": "RSAES_OAEP_SHA_1", "CiphertextBlob": "AAAA" });
    assert_eq!(code(caller.ask_json("CertificatePrivateKeyDecrypt", odd)), "InvalidParameter");
    assert_eq!(code(sign(&mut caller, &id, "ECDSA_SHA_256")), "InvalidParameter");
}

#[test]
fn what_may_be_done_depends_on_its_state_and_its_time() {
    let (live, mut caller, credentials) = begin();
    let now = live.clock.now();
    let elsewhere = Elsewhere::new("elsewhere", now);
    let (pending, _) = create(&mut caller, "EC_P256");
    assert_eq!(code(sign(&mut caller, &pending, "ECDSA_SHA_256")), WRONG_STATE);
    for status in ["ACTIVE", "INACTIVE", "REVOKED"] {
        assert_eq!(code(set_status(&mut caller, &pending, status)), WRONG_STATE, "{status}");
    }
    let id = active(&mut caller, "EC_P256", &elsewhere, now);
    let signature = text(&sign(&mut caller, &id, "ECDSA_SHA_256").unwrap(), "SignatureValue");
    set_status(&mut caller, &id, "DISABLED").unwrap();
    assert_eq!(caller.ask_json("DescribeCertificate", named(&id)).unwrap()["Status"], json!("INACTIVE"));
    assert_eq!(code(sign(&mut caller, &id, "ECDSA_SHA_256")), "Rejected.Disabled");
    assert_eq!(code(verify(&mut caller, &id, "ECDSA_SHA_256", &signature)), "Rejected.Disabled");
    set_status(&mut caller, &id, "ACTIVE").unwrap();
    sign(&mut caller, &id, "ECDSA_SHA_256").unwrap();
    set_status(&mut caller, &id, "REVOKED").unwrap();
    assert_eq!(code(sign(&mut caller, &id, "ECDSA_SHA_256")), "Rejected.Disabled");
    assert_eq!(verify(&mut caller, &id, "ECDSA_SHA_256", &signature).unwrap()["SignatureValid"], json!(true));
    assert_eq!(code(set_status(&mut caller, &id, "ACTIVE")), WRONG_STATE);
    assert_eq!(code(set_status(&mut caller, &id, "PENDING")), "InvalidParameter");
    assert_eq!(code(upload(&mut caller, &id, &elsewhere.pem(), "")), WRONG_STATE);

    let other = active(&mut caller, "EC_P256", &elsewhere, now);
    let signature = text(&sign(&mut caller, &other, "ECDSA_SHA_256").unwrap(), "SignatureValue");
    live.clock.jump_to_offset_ms(31 * 86_400_000);
    let mut caller = Caller::new(&live, &credentials);
    let (code, message) = refused(sign(&mut caller, &other, "ECDSA_SHA_256"));
    assert!(code == WRONG_STATE && message.contains("valid from"), "{message}");
    assert_eq!(
        verify(&mut caller, &other, "ECDSA_SHA_256", &signature).unwrap()["SignatureValid"],
        json!(true)
    );
}

#[test]
fn what_does_not_fit_is_refused_with_what_is_wrong_and_changes_nothing() {
    let (live, mut caller, _) = begin();
    let now = live.clock.now();
    let (elsewhere, stranger) = (Elsewhere::new("elsewhere", now), Elsewhere::new("stranger", now));
    let ((id, csr), (_, other_csr)) = (create(&mut caller, "EC_P256"), create(&mut caller, "EC_P256"));
    let good = elsewhere.certify(&csr, now, (-1, 30));
    for (certificate, chain, told) in [
        (elsewhere.certify(&other_csr, now, (-1, 30)), elsewhere.pem(), "another than the one that was made"),
        (elsewhere.certify(&csr, now, (-30, -1)), elsewhere.pem(), "expired on"),
        (elsewhere.certify(&csr, now, (1, 30)), elsewhere.pem(), "not valid before"),
        (good.clone(), stranger.pem(), "out of order"),
        (good.clone(), format!("{}{}", elsewhere.pem(), elsewhere.pem()), "twice"),
        (good.replace('M', "N"), elsewhere.pem(), "Certificate"),
        ("none".into(), elsewhere.pem(), "Certificate"),
        (good.clone(), "none".into(), "CertificateChain"),
    ] {
        let (code, message) = refused(upload(&mut caller, &id, &certificate, &chain));
        assert!(code == "InvalidParameter" && message.contains(told), "{told}: {code} {message}");
    }
    let status = caller.ask_json("DescribeCertificate", named(&id)).unwrap();
    assert_eq!(status["Status"], json!("PENDING"));
    for (member, value, told) in [
        ("Subject", json!("CN=a,O=b,OU=c"), "C is missing"),
        ("Subject", json!("CN=a\u{0}b,O=b,OU=c,C=CN"), "U+0000"),
        ("Subject", json!("nonsense"), "Subject"),
        ("KeySpec", json!("EC_P256K"), "EC_P256K"),
        ("KeySpec", json!("Aliyun_AES_256"), "Aliyun_AES_256"),
        ("SubjectAlternativeNames", json!(["a.example", "A.example"]), "twice"),
        ("SubjectAlternativeNames", json!(["\u{43e}rders.example"]), "ASCII"),
        ("SubjectAlternativeNames", json!(vec!["a.example"; 11]), "up to 10"),
    ] {
        let mut asked = json!({ "KeySpec": "EC_P256", "Subject": SUBJECT });
        asked[member] = value;
        let (code, message) = refused(caller.ask_json("CreateCertificate", asked));
        assert!(code == "InvalidParameter" && message.contains(told), "{told}: {code} {message}");
    }
    upload(&mut caller, &id, &good, &elsewhere.pem()).unwrap();
}

#[test]
fn nothing_but_its_certificate_leads_to_the_key() {
    let (live, mut caller, credentials) = begin();
    let plain = caller.create_key();
    let elsewhere = Elsewhere::new("elsewhere", live.clock.now());
    let id = active(&mut caller, "EC_P256", &elsewhere, live.clock.now());
    sign(&mut caller, &id, "ECDSA_SHA_256").unwrap();
    assert_eq!(caller.keys().unwrap(), [plain]);
    let site = live.halt();
    let lines = audit_lines(&site);
    let line = lines
        .iter()
        .find(|line| line["operation"] == "CertificatePrivateKeySign" && line["certificates"] == json!([id]));
    let key = line.expect("the audit names the certificate")["keys"][0]["cmk"].as_str().unwrap().to_owned();
    let created = lines.iter().find(|line| line["operation"] == "CreateCertificate").unwrap();
    assert!(created["certificates"].as_array().unwrap().len() == 1, "{created}");
    verified(&site);
    let live = site.start(Setup::new(EngineConfig::default()));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.keys().unwrap(), [plain]);
    for (operation, asked) in [
        ("DescribeKey", json!({ "KeyId": key })),
        ("GetKeyPolicy", json!({ "KeyId": key })),
        ("DisableKey", json!({ "KeyId": key })),
        ("ScheduleKeyDeletion", json!({ "KeyId": key, "PendingWindowInDays": 7 })),
        ("ListKeyVersions", json!({ "KeyId": key })),
        ("CreateAlias", json!({ "KeyId": key, "AliasName": "alias/x" })),
        ("TagResource", json!({ "KeyId": key, "Tags": [{ "TagKey": "a", "TagValue": "b" }] })),
    ] {
        assert_eq!(code(caller.ask_json(operation, asked)), "Forbidden.KeyNotFound", "{operation}");
    }
    // A grant of it alone makes it visible no more than that of all.
    let grants: Vec<Grant> =
        serde_json::from_value(json!([{ "Role": "KeyAdministrator", "Resources": [format!("key/{key}")] }]))
            .unwrap();
    let mut other = Caller::new(&live, &caller.credentials(grants));
    assert_eq!(other.keys().unwrap(), []);
}

#[test]
fn many_messages_are_signed_by_certificate() {
    let (live, mut caller, _) = begin();
    let elsewhere = Elsewhere::new("elsewhere", live.clock.now());
    let id = active(&mut caller, "EC_P256", &elsewhere, live.clock.now());
    let messages = json!(["aGVsbG8=", "d29ybGQ="]);
    let asked = json!({
        "CertificateId": id, "Algorithm": "ECDSA_SHA_256", "MessageType": "RAW", "Messages": messages,
    });
    let signed = caller.ask_json("BatchSign", asked).unwrap();
    let asked = json!({
        "CertificateId": id, "Algorithm": "ECDSA_SHA_256", "MessageType": "RAW", "Messages": messages,
        "Signatures": signed["Items"],
    });
    assert_eq!(caller.ask_json("BatchVerify", asked).unwrap()["Valid"], json!([true, true]));
    let both = json!({
        "CertificateId": id, "KeyId": id, "Algorithm": "ECDSA_SHA_256", "MessageType": "RAW", "Messages": messages,
    });
    assert_eq!(code(caller.ask_json("BatchSign", both)), "InvalidParameter");
    let neither = json!({ "Algorithm": "ECDSA_SHA_256", "MessageType": "RAW", "Messages": messages });
    assert_eq!(code(caller.ask_json("BatchSign", neither)), "MissingParameter");
}

#[test]
fn d6_who_may_not_use_one_is_told_of_none() {
    let (live, mut root, _) = begin();
    let elsewhere = Elsewhere::new("elsewhere", live.clock.now());
    let own = active(&mut root, "EC_P256", &elsewhere, live.clock.now());
    let other = active(&mut root, "EC_P256", &elsewhere, live.clock.now());
    let role = "RbacPermission/Template/CryptoServiceCertificateUser";
    let grants: Vec<Grant> =
        serde_json::from_value(json!([{ "Role": role, "Resources": [format!("certificate/{own}")] }]))
            .unwrap();
    let mut user = Caller::new(&live, &root.credentials(grants));
    sign(&mut user, &own, "ECDSA_SHA_256").unwrap();
    let none = "00000000-0000-4000-8000-000000000000";
    let told = [&*other, none, "nonsense"].map(|id| refused(sign(&mut user, id, "ECDSA_SHA_256")));
    assert!(told.iter().all(|one| *one == told[0] && one.0 == NO_CERTIFICATE), "{told:?}");
    let rows = user.ask_json("ListCertificates", json!({})).unwrap();
    assert_eq!(
        (&rows["TotalCount"], &rows["Certificates"]["Certificate"][0]["CertificateId"]),
        (&json!(1), &json!(own))
    );
    assert_eq!(
        code(user.ask_json("UpdateCertificateStatus", json!({ "CertificateId": own, "Status": "REVOKED" }))),
        NO_CERTIFICATE
    );
    assert_eq!(
        code(user.ask_json("CreateCertificate", json!({ "KeySpec": "EC_P256", "Subject": SUBJECT }))),
        "Forbidden.NoPermission"
    );
    // Who administers them uses no key of theirs.
    let grants: Vec<Grant> = serde_json::from_value(json!([{ "Role": "CertificateAdministrator" }])).unwrap();
    let mut admin = Caller::new(&live, &root.credentials(grants));
    assert_eq!(code(sign(&mut admin, &own, "ECDSA_SHA_256")), NO_CERTIFICATE);
    set_status(&mut admin, &own, "INACTIVE").unwrap();
}

#[test]
fn lists_are_asked_by_what_is_looked_for() {
    let (live, mut caller, _) = begin();
    let now = live.clock.now();
    let elsewhere = Elsewhere::new("elsewhere", now);
    let one = active(&mut caller, "EC_P256", &elsewhere, now);
    let (two, _) = create(&mut caller, "RSA_2048");
    let tag = json!({ "CertificateId": two, "Tags": [{ "TagKey": "team", "TagValue": "a" }] });
    caller.ask_json("TagResource", tag).unwrap();
    let mut ids = |asked: Value| -> Vec<String> {
        let reply = caller.ask_json("ListCertificates", asked).unwrap();
        let rows = reply["Certificates"]["Certificate"].as_array().unwrap();
        rows.iter().map(|row| text(row, "CertificateId")).collect()
    };
    let by = |key: &str, value: &str| json!({ "Filters": [{ "Key": key, "Values": [value] }] });
    assert_eq!(ids(json!({})), [one.clone(), two.clone()]);
    for (key, value) in
        [("Status", "PENDING"), ("KeySpec", "RSA_2048"), ("TagKey", "team"), ("TagValue", "a")]
    {
        assert_eq!(ids(by(key, value)), std::slice::from_ref(&two), "{key}");
    }
    assert_eq!(ids(by("Issuer", "elsewhere")), std::slice::from_ref(&one));
    assert_eq!(ids(by("Name", "orders.example")).len(), 2);
    let within = |days: u64| Timestamp::from_ms(now.as_ms() + days * 86_400_000).to_string();
    assert_eq!(ids(json!({ "ExpiresBefore": within(31) })), std::slice::from_ref(&one));
    assert!(ids(json!({ "ExpiresBefore": within(29) })).is_empty());
    assert_eq!(code(caller.ask_json("ListCertificates", by("Colour", "red"))), "InvalidParameter");
    let tags = caller.ask_json("ListResourceTags", named(&two)).unwrap();
    assert_eq!(tags["Tags"]["Tag"][0]["TagKey"], json!("team"));
    caller.ask_json("UntagResource", json!({ "CertificateId": two, "TagKeys": ["team"] })).unwrap();
    let told = caller.ask_json("DescribeCertificate", named(&two)).unwrap();
    assert_eq!(told["Tags"], json!({}));
    caller.ask_json("DeleteCertificate", named(&two)).unwrap();
    assert_eq!(code(caller.ask_json("GetCertificate", named(&two))), NO_CERTIFICATE);
    assert_eq!(code(caller.ask_json("DeleteCertificate", named(&two))), NO_CERTIFICATE);
}

#[test]
fn a_key_whose_certificate_never_came_is_gone_after_a_crash() {
    let fuse = Fuse::new();
    let around = fuse.clone();
    let setup = Setup::new(EngineConfig::default()).with_store(move |inner| around.store(inner));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    // The first commit is the key's.
    fuse.arm(Point::AfterCommit("cmk/"));
    let asked = json!({ "KeySpec": "EC_P256", "Subject": SUBJECT });
    assert!(caller.ask_json("CreateCertificate", asked).is_err());
    assert!(fuse.is_blown());
    let live = live.restart(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.ask_json("ListCertificates", json!({})).unwrap()["TotalCount"], json!(0));
    let site = live.halt();
    let ended = audit_lines(&site).iter().any(|line| line["rule"] == "its certificate was never made");
    assert!(ended, "the audit tells that the key went");
    verified(&site);
}
