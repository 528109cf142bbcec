//! Operations over both encodings.

use keymill_core::EncryptionContext;
use keymill_core::id::KeyRef;
use keymill_core::operation::{
    BatchDecryptRequest, BatchEncryptRequest, Bin, EncryptRequest, Operation, Reply, Request,
};
use keymill_wire::answer::decode_reply;
use serde_json::{Value, json};

use crate::client::{Answer, Client, JSON, MSGPACK, Signed};
use crate::site::Site;

const PLAIN: &str = "cGxhaW4=";

/// The body of a request in MessagePack: its frame without length, id and name.
fn packed(request: Request<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    keymill_wire::request::encode_request(1, &request, &mut frame).unwrap();
    let before = 4 + 1 + 1 + 1 + request.operation().name().len();
    frame.split_off(before)
}

fn send_packed(client: &mut Client, request: Request<'_>) -> Answer {
    let name = request.operation().name();
    let request = Signed::new(name, packed(request)).with("content-type", MSGPACK).sign(&client.credentials);
    client.send(&request)
}

#[test]
fn what_was_encrypted_in_json_is_decrypted_in_json() {
    let site = Site::start();
    let mut client = site.client();
    let key = client.key();
    let context = json!({"tenant": "a", "schlüssel": "密"});
    let sealed =
        client.call("Encrypt", &json!({"KeyId": key, "Plaintext": PLAIN, "EncryptionContext": context}));
    assert_eq!(sealed["KeyId"], key.as_str());
    let blob = &sealed["CiphertextBlob"];
    let opened = client.call("Decrypt", &json!({"CiphertextBlob": blob, "EncryptionContext": context}));
    assert_eq!(opened["Plaintext"], PLAIN);
    assert_eq!(opened["KeyVersionId"], sealed["KeyVersionId"]);
    assert_ne!(opened["RequestId"], sealed["RequestId"]);
    let answer = client.post("Decrypt", &json!({"CiphertextBlob": blob}));
    assert_eq!(answer.refusal(), (400, "InvalidParameter".into()));
}

#[test]
fn every_answer_names_its_request_in_a_header() {
    let site = Site::start();
    let mut client = site.client();
    let answer = client.post("ListKeys", &json!({}));
    assert_eq!(answer.header("x-acs-request-id"), answer.json()["RequestId"].as_str());
}

#[test]
fn messagepack_is_answered_in_messagepack_and_borrows_no_base64() {
    let site = Site::start();
    let mut client = site.client();
    let key = KeyRef::parse(&client.key());
    let request = EncryptRequest {
        key_id: key.clone(),
        plaintext: Bin::from(&b"\xff\0"[..]),
        encryption_context: Some(EncryptionContext::from_pairs([("a", "b")]).unwrap()),
        timeout_ms: None,
    };
    let answer = send_packed(&mut client, request.into());
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(MSGPACK)));
    assert!(matches!(decode_reply(Operation::Encrypt, &answer.body).unwrap(), Reply::Encrypt(_)));

    let items = [&b"one"[..], b"", b"three"];
    let request = BatchEncryptRequest {
        key_id: key,
        items: items.iter().map(|item| Bin::from(*item)).collect(),
        encryption_context: None,
        encryption_contexts: None,
        timeout_ms: None,
    };
    let answer = send_packed(&mut client, request.into());
    let Reply::BatchEncrypt(sealed) = decode_reply(Operation::BatchEncrypt, &answer.body).unwrap() else {
        panic!()
    };
    let mut blobs: Vec<Bin<'_>> = sealed.items.into_iter().map(|item| item.unwrap()).collect();
    blobs.insert(1, Bin::from(&b"junk"[..]));
    let request = BatchDecryptRequest {
        items: blobs,
        key_id: None,
        encryption_context: None,
        encryption_contexts: None,
        timeout_ms: None,
    };
    let answer = send_packed(&mut client, request.into());
    let Reply::BatchDecrypt(opened) = decode_reply(Operation::BatchDecrypt, &answer.body).unwrap() else {
        panic!()
    };
    let found: Vec<_> = opened.items.iter().map(|item| item.as_deref()).collect();
    assert_eq!(found, [Some(items[0]), None, Some(items[1]), Some(items[2])]);
    assert_eq!(opened.key_index, [Some(0), None, Some(0), Some(0)]);
    assert_eq!((opened.errors.len(), opened.errors[0].0), (1, 1));
}

#[test]
fn accept_chooses_the_encoding_of_the_answer_and_errors_are_json() {
    let site = Site::start();
    let mut client = site.client();
    let ask = |accept: &str, content_type: &str, body: &[u8]| {
        Signed::new("DescribeLimits", body).with("content-type", content_type).with("accept", accept)
    };
    let answer = client.send(&ask(MSGPACK, JSON, b"{}").sign(&client.credentials.clone()));
    assert_eq!(answer.header("content-type"), Some(MSGPACK));
    let answer = client.send(&ask(JSON, MSGPACK, b"\x80").sign(&client.credentials.clone()));
    assert!(answer.json()["RequestId"].is_string());
    let answer = client.send(&ask(MSGPACK, MSGPACK, b"\xc1").sign(&client.credentials.clone()));
    assert_eq!(answer.refusal(), (400, "ParseRequestParameterException".into()));
}

#[test]
fn every_data_operation_has_its_reply() {
    let site = Site::start();
    let mut client = site.client();
    let (a, b) = (client.key(), client.key());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sealed = client.call("Encrypt", &json!({"KeyId": a, "Plaintext": PLAIN}));
    let moved =
        client.call("ReEncrypt", &json!({"CiphertextBlob": sealed["CiphertextBlob"], "DestinationKeyId": b}));
    assert_eq!(moved["KeyId"], b.as_str());
    let opened = client.call("Decrypt", &json!({"CiphertextBlob": moved["CiphertextBlob"], "KeyId": b}));
    assert_eq!(opened["Plaintext"], PLAIN);

    let made = client.call("GenerateDataKey", &json!({"KeyId": a, "NumberOfBytes": 5}));
    assert_eq!(text(&made["Plaintext"]).len(), 8);
    let opened = client.call("Decrypt", &json!({"CiphertextBlob": made["CiphertextBlob"]}));
    assert_eq!(opened["Plaintext"], made["Plaintext"]);
    let made = client.call("GenerateDataKeyWithoutPlaintext", &json!({"KeyId": a}));
    assert!(made.get("Plaintext").is_none());
    let opened = client.call("Decrypt", &json!({"CiphertextBlob": made["CiphertextBlob"]}));
    assert_eq!(text(&opened["Plaintext"]).len(), 44);

    for without in [false, true] {
        let ask = json!({"KeyId": a, "Count": 3, "WithoutPlaintext": without});
        let made = client.call("BatchGenerateDataKey", &ask);
        let pairs = made["Items"].as_array().unwrap();
        assert_eq!(pairs.len(), 3);
        for pair in pairs {
            let opened = client.call("Decrypt", &json!({"CiphertextBlob": pair[0]}));
            assert_eq!(pair[1], if without { Value::Null } else { opened["Plaintext"].clone() });
        }
    }

    let sealed = client.call("BatchEncrypt", &json!({"KeyId": a, "Items": [PLAIN, ""]}));
    let items = [&sealed["Items"][0], &json!("anVuaw=="), &sealed["Items"][1]];
    let moved = client.call("BatchReEncrypt", &json!({"Items": items, "DestinationKeyId": b}));
    assert_eq!(moved["Items"][1], Value::Null);
    assert_eq!(moved["Errors"][0][0], 1);
    let items = [&moved["Items"][0], &moved["Items"][2]];
    let opened = client.call("BatchDecrypt", &json!({"Items": items}));
    assert_eq!((&opened["Items"], &opened["KeyIds"]), (&json!([PLAIN, ""]), &json!([b])));
}

#[test]
fn a_disabled_key_is_refused_on_every_connection_at_once() {
    let site = Site::start();
    let mut clients: Vec<_> = (0..8).map(|_| site.client()).collect();
    let key = clients[0].key();
    let ask = json!({"KeyId": key, "Plaintext": PLAIN});
    let blob = clients[0].call("Encrypt", &ask)["CiphertextBlob"].clone();
    clients.iter_mut().for_each(|client| assert_eq!(client.post("Encrypt", &ask).status, 200));
    clients[0].call("DisableKey", &json!({"KeyId": key}));
    for client in &mut clients {
        assert_eq!(client.post("Encrypt", &ask).refusal(), (409, "Rejected.Disabled".into()));
        let answer = client.post("Decrypt", &json!({"CiphertextBlob": blob}));
        assert_eq!(answer.refusal(), (409, "Rejected.Disabled".into()));
    }
    clients[0].call("EnableKey", &json!({"KeyId": key}));
    assert_eq!(clients[7].post("Encrypt", &ask).status, 200);
}

#[test]
fn what_a_known_principal_asks_in_vain_is_recorded() {
    let site = Site::start();
    let mut client = site.client();
    for (request, refusal) in [
        (Signed::new("Bogus", "{}"), (404, "InvalidAction.NotFound")),
        (Signed::new("encrypt", "{}"), (404, "InvalidAction.NotFound")),
        (Signed::new("ListKeys", "{"), (400, "ParseRequestParameterException")),
        (Signed::new("ListKeys", r#"{"Bogus":1}"#), (400, "InvalidParameter")),
        (
            Signed::new("ListKeys", "{}").with("content-type", "text/plain"),
            (400, "ParseRequestParameterException"),
        ),
        (Signed::new("ListKeys", "{}").without("content-type"), (400, "ParseRequestParameterException")),
        (Signed::new("ListKeys", "{}").with("x-acs-action", "ListAliases"), (400, "InvalidParameter")),
        (Signed::new("ListKeys", "{}").with("x-acs-version", "2016-01-21"), (400, "InvalidVersion")),
        (
            Signed { query: vec![("PageSize", "1")], ..Signed::new("ListKeys", "{}") },
            (400, "InvalidParameter"),
        ),
    ] {
        let answer = client.send(&request.sign(&client.credentials.clone()));
        assert_eq!(answer.refusal(), (refusal.0, refusal.1.to_owned()), "{}", answer.text());
        assert_ne!(answer.header("connection"), Some("close"), "the principal's connection is kept");
        let error = answer.json();
        assert!(!error["Message"].as_str().unwrap().contains("SECRET"));
    }
    let id = client.credentials.id.clone();
    let records = site.stop();
    let refused = records.iter().filter(|line| line.contains(&id) && line.contains("\"http\"")).count();
    assert_eq!(refused, 9, "{records:#?}");
}
