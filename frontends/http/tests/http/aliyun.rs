//! The cloud's dialect at `/`: parameters wherever they stand; text, XML, and refusals in the form that SDKs read.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::key::KeySpec;
use keymill_wire::aliyun::signature::string_to_sign;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Credentials, Signed, now};
use crate::site::{Site, three_guesses};

/// Signs parameters by RPC version 1, and sends them.
struct Rpc {
    client: Client,
    nonce: u64,
}

impl Rpc {
    fn new(site: &Site) -> Self {
        Self { client: site.client(), nonce: 0 }
    }

    fn signed(&mut self, method: &str, action: &str, parameters: &[(&str, &str)]) -> Vec<(String, String)> {
        let Credentials { id, secret } = self.client.credentials.clone();
        self.nonce += 1;
        let (nonce, timestamp) = (format!("rpc-{}-{}", std::process::id(), self.nonce), now().to_string());
        let common = [
            ("Action", action),
            ("Version", "2016-01-20"),
            ("AccessKeyId", &id),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", &nonce),
            ("Timestamp", &timestamp),
        ];
        let mut pairs: BTreeMap<&str, &str> = common.into_iter().chain(parameters.iter().copied()).collect();
        pairs.retain(|_, value| *value != "\0absent");
        let to_sign = string_to_sign(method, pairs.clone());
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, format!("{secret}&").as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, to_sign.as_bytes()).as_ref());
        pairs.entry("Signature").or_insert(&signature);
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn send(&mut self, method: &str, query: &[(String, String)], body: &[(String, String)]) -> Answer {
        let (query, body) = (encoded(query), encoded(body));
        let form = if body.is_empty() { "" } else { "content-type: application/x-www-form-urlencoded\r\n" };
        let head = format!(
            "{method} /?{query} HTTP/1.1\r\nhost: kms.local\r\n{form}content-length: {}\r\n\r\n",
            body.len()
        );
        self.client = self.client.again();
        self.client.send_raw(&[head.as_bytes(), body.as_bytes()].concat());
        self.client.read().expect("an answer")
    }

    fn call(&mut self, action: &str, parameters: &[(&str, &str)]) -> Answer {
        let pairs = self.signed("POST", action, parameters);
        self.send("POST", &pairs, &[])
    }

    fn ok(&mut self, action: &str, parameters: &[(&str, &str)]) -> Value {
        let answer = self.call(action, parameters);
        assert_eq!(answer.status, 200, "{action}: {}", answer.text());
        answer.json()
    }

    fn refused(&mut self, action: &str, parameters: &[(&str, &str)]) -> (u16, String) {
        refusal(&self.call(action, parameters))
    }
}

fn encoded(pairs: &[(String, String)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    };
    pairs
        .iter()
        .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
        .collect::<Vec<_>>()
        .join("&")
}

/// Returns status and code of a refusal after checking that it has what every SDK reads.
fn refusal(answer: &Answer) -> (u16, String) {
    let error = answer.json();
    let text = |name: &str| error[name].as_str().unwrap_or_else(|| panic!("{name} in {error}")).to_owned();
    assert_eq!(answer.header("x-acs-request-id"), Some(&*text("RequestId")));
    assert_eq!(
        (error["HttpStatus"].as_u64(), text("HostId")),
        (Some(answer.status.into()), "kms.local".into())
    );
    assert!(!text("Message").is_empty() && text("Recommend").is_empty());
    (answer.status, text("Code"))
}

#[test]
fn parameters_stand_in_the_query_or_the_body_of_a_post_or_a_get() {
    let site = Site::start();
    let mut rpc = Rpc::new(&site);
    let key = rpc.ok("CreateKey", &[("Description", "a b*~ü")])["KeyMetadata"]["KeyId"]
        .as_str()
        .unwrap()
        .to_owned();
    let context = r#"{"a":"1","b c":"ü"}"#;
    let sealed = rpc.ok("Encrypt", &[("KeyId", &key), ("Plaintext", "AAEC"), ("EncryptionContext", context)]);
    let blob = sealed["CiphertextBlob"].as_str().unwrap();
    let parameters = [("CiphertextBlob", blob), ("EncryptionContext.b c", "ü"), ("EncryptionContext.a", "1")];
    for (method, split) in [("POST", 0), ("POST", 99), ("GET", 99), ("POST", 3)] {
        let pairs = rpc.signed(method, "Decrypt", &parameters);
        let (query, body) = pairs.split_at(split.min(pairs.len()));
        let answer = rpc.send(method, query, body);
        assert_eq!(answer.status, 200, "{method}: {}", answer.text());
        assert_eq!(
            (answer.json()["Plaintext"].as_str(), answer.json()["KeyId"].as_str()),
            (Some("AAEC"), Some(&*key))
        );
    }
    assert_eq!(rpc.refused("Decrypt", &parameters[..2]), (400, "InvalidParameter".into()));
    let described = rpc.ok("DescribeKey", &[("KeyId", &key)]);
    assert_eq!(described["KeyMetadata"]["Description"], "a b*~ü");
    let listed = rpc.ok("ListKeys", &[("PageNumber", "1"), ("PageSize", "5")]);
    assert_eq!((&listed["TotalCount"], &listed["Keys"]["Key"][0]["KeyId"]), (&json!(1), &json!(key)));

    // In both places it has no meaning, and a body of another type is none.
    let pairs = rpc.signed("POST", "DescribeKey", &[("KeyId", &key)]);
    let at = pairs.iter().position(|(name, _)| name == "KeyId").unwrap();
    assert_eq!(
        refusal(&rpc.send("POST", &pairs, &pairs[at..=at])),
        (400, "ParseRequestParameterException".into())
    );
    rpc.client = rpc.client.again();
    let head = format!(
        "POST /?{} HTTP/1.1\r\nhost: kms.local\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\na=b",
        encoded(&pairs)
    );
    rpc.client.send_raw(head.as_bytes());
    assert_eq!(refusal(&rpc.client.read().unwrap()), (400, "ParseRequestParameterException".into()));
}

#[test]
fn text_that_is_no_base64_comes_back_as_it_was() {
    let site = Site::start();
    let mut rpc = Rpc::new(&site);
    let key = rpc.ok("CreateKey", &[])["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    let other = rpc.ok("CreateKey", &[])["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    for text in ["a secret", "AAE", "密\n\"<&\u{1}", "AAE=", ""] {
        let sealed = rpc.ok("Encrypt", &[("KeyId", &key), ("Plaintext", text)]);
        let blob = sealed["CiphertextBlob"].as_str().unwrap();
        assert_eq!(rpc.ok("Decrypt", &[("CiphertextBlob", blob)])["Plaintext"], text);
        // Under another key as well.
        let again = rpc.ok("ReEncrypt", &[("CiphertextBlob", blob), ("DestinationKeyId", &other)]);
        let again = again["CiphertextBlob"].as_str().unwrap();
        assert_eq!(rpc.ok("Decrypt", &[("CiphertextBlob", again)])["Plaintext"], text);
        // Our own dialect has bytes for both.
        let body = json!({"Items": [again], "DestinationKeyId": key});
        let batch = rpc.client.again().call("BatchReEncrypt", &body)["Items"][0].as_str().unwrap().to_owned();
        assert_eq!(rpc.ok("Decrypt", &[("CiphertextBlob", &batch)])["Plaintext"], text);
        let opened =
            rpc.client.again().call("Decrypt", &json!({"CiphertextBlob": batch}))["Plaintext"].clone();
        let bytes = STANDARD.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec());
        assert_eq!(opened, STANDARD.encode(bytes));
        // The mark is authenticated.
        let mut flipped = STANDARD.decode(blob).unwrap();
        flipped[1] ^= 0x80;
        assert_eq!(
            rpc.refused("Decrypt", &[("CiphertextBlob", &STANDARD.encode(flipped))]),
            (400, "InvalidParameter".into())
        );
    }
}

#[test]
fn refusals_have_the_codes_of_the_cloud() {
    let site = Site::start();
    let mut rpc = Rpc::new(&site);
    let absent = "\0absent";
    let code = |status: u16, code: &str| (status, code.to_owned());
    for (action, parameters, expected) in [
        ("NoSuchThing", vec![], code(404, "InvalidAction.NotFound")),
        ("describekey", vec![], code(404, "InvalidAction.NotFound")),
        ("DescribeKey", vec![], code(400, "MissingParameter")),
        ("DescribeKey", vec![("KeyId", "no-such")], code(404, "Forbidden.KeyNotFound")),
        ("DescribeKey", vec![("KeyId", "alias/no-such")], code(404, "Forbidden.AliasNotFound")),
        ("DescribeKey", vec![("KeyId", "k"), ("Version", "2015-01-01")], code(400, "InvalidVersion")),
        ("DescribeKey", vec![("KeyId", "k"), ("Version", absent)], code(400, "MissingParameter")),
        ("DescribeKey", vec![("KeyId", "k"), ("Action", absent)], code(400, "MissingParameter")),
        ("CreateKey", vec![("KeySpec", "DES")], code(400, "InvalidParameter")),
        ("CreateKey", vec![("Policy", "{}")], code(400, "InvalidParameter")),
        ("CreateKey", vec![("DKMSInstanceId", "kst-1")], code(404, "Forbidden.ResourceNotFound")),
        ("ListKeys", vec![("PageSize", "many")], code(400, "InvalidParameter")),
        ("Decrypt", vec![("CiphertextBlob", "AAAA")], code(400, "InvalidParameter")),
        ("ListKeys", vec![("SignatureMethod", "HMAC-SHA256")], code(400, "UnsupportedAuthentication")),
        ("ListKeys", vec![("SignatureVersion", "2.0")], code(400, "UnsupportedAuthentication")),
        ("ListKeys", vec![("SecurityToken", "t")], code(400, "UnsupportedAuthentication")),
        ("ListKeys", vec![("SignatureNonce", absent)], code(400, "IncompleteSignature")),
        ("ListKeys", vec![("AccessKeyId", "nobody-knows-me")], code(404, "InvalidAccessKeyId.NotFound")),
        ("ListKeys", vec![("Signature", "AAAA")], code(400, "SignatureDoesNotMatch")),
        ("ListKeys", vec![("Signature", "")], code(400, "SignatureDoesNotMatch")),
        ("ListKeys", vec![("Timestamp", "yesterday")], code(400, "IllegalTimestamp")),
        ("ListKeys", vec![("Timestamp", "2020-01-01T00:00:00Z")], code(400, "InvalidTimeStamp.Expired")),
    ] {
        assert_eq!(rpc.refused(action, &parameters), expected, "{action} {parameters:?}");
    }
    let pairs = rpc.signed("POST", "ListKeys", &[]);
    assert_eq!(rpc.send("POST", &pairs, &[]).status, 200);
    assert_eq!(refusal(&rpc.send("POST", &pairs, &[])), code(400, "SignatureNonceUsed"));
    assert_eq!(refusal(&rpc.send("GET", &pairs, &[])), code(400, "SignatureDoesNotMatch"));
    // Nothing is signed twice over.
    rpc.client = rpc.client.again();
    let pairs = rpc.signed("POST", "ListKeys", &[]);
    let head =
        format!("POST /?{} HTTP/1.1\r\nhost: kms.local\r\nauthorization: none\r\n\r\n", encoded(&pairs));
    rpc.client.send_raw(head.as_bytes());
    assert_eq!(rpc.client.read().unwrap().status, 400);
    rpc.client = rpc.client.again();
    rpc.client.send_raw(b"PUT / HTTP/1.1\r\nhost: kms.local\r\n\r\n");
    assert_eq!(refusal(&rpc.client.read().unwrap()), code(403, "UnsupportedHTTPMethod"));
    rpc.client = rpc.client.again();
    rpc.client.send_raw(b"GET / HTTP/1.1\r\nhost: kms.local\r\n\r\n");
    assert_eq!(refusal(&rpc.client.read().unwrap()), code(400, "IncompleteSignature"));
}

/// One SDK takes what stands between the first two colons, and compares it with what it signed itself.
#[test]
fn a_signature_that_differs_is_told_what_was_to_be_signed_and_nobody_else_is() {
    let site = Site::start();
    let mut rpc = Rpc::new(&site);
    let parameters = [("KeyId", "k"), ("Plaintext", "VEVMTC1OT0JPRFk="), ("Signature", "AAAA")];
    let pairs = rpc.signed("POST", "Encrypt", &parameters);
    let answer = rpc.send("POST", &pairs, &[]);
    assert_eq!(refusal(&answer), (400, "SignatureDoesNotMatch".into()));
    let message = answer.json()["Message"].as_str().unwrap().to_owned();
    let to_sign = string_to_sign("POST", pairs.iter().map(|(name, value)| (&**name, &**value)));
    assert_eq!(message.split(':').collect::<Vec<_>>()[1..], [&*to_sign]);
    let long = "x".repeat(20_000);
    let pairs = rpc.signed("POST", "Encrypt", &[("KeyId", "k"), ("Plaintext", &long), ("Signature", "AAAA")]);
    let at = pairs.iter().position(|(name, _)| name == "Plaintext").unwrap();
    let answer = rpc.send("POST", &[&pairs[..at], &pairs[at + 1..]].concat(), &pairs[at..=at]);
    assert!(
        answer.body.len() < 1_000 && answer.json()["Message"].as_str().unwrap().matches(':').count() == 1
    );
    drop(rpc);
    assert!(site.stop().iter().all(|line| !line.contains("VEVMTC1OT0JPRFk")), "the audit has it");
}

#[test]
fn answers_are_xml_for_who_asks_for_it() {
    let site = Site::start();
    let mut rpc = Rpc::new(&site);
    let key = rpc.ok("CreateKey", &[("Format", "json")])["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    let answer = rpc.call("ListKeys", &[("Format", "XML")]);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/xml;charset=utf-8")));
    let text = answer.text();
    assert!(
        text.contains("<KMS>")
            && text.contains("<Key><KeyArn>acs:kms:")
            && text.contains(&format!("<KeyId>{key}</KeyId>")),
        "{text}"
    );
    let refused = rpc.call("DescribeKey", &[("Format", "XML"), ("KeyId", "none")]);
    let text = refused.text();
    assert!(
        refused.status == 404
            && text.contains("<Error>")
            && text.contains("<Code>Forbidden.KeyNotFound</Code>"),
        "{text}"
    );
}

/// SDKs put whole parameters into the query: 30,720 bytes of a secret that have to be escaped are 92,160 there.
#[test]
fn a_query_longer_than_the_parser_takes_is_served_and_one_beyond_all_bounds_is_refused() {
    let site = Site::start();
    let mut rpc = Rpc::new(&site);
    let long = "ü ".repeat(8_000);
    for method in ["POST", "GET"] {
        let pairs =
            rpc.signed(method, "CreateKey", &[("Description", &long), ("Filler", &"*".repeat(10_000))]);
        let query = encoded(&pairs);
        assert!((100_000..120_000).contains(&query.len()), "{}", query.len());
        let answer = rpc.send(method, &pairs, &[]);
        // It was read and verified: the description is longer than one may be.
        assert_eq!(refusal(&answer), (400, "Rejected.LimitExceeded.DescriptionCharacters".into()));
    }
    let text = "*".repeat(6_000);
    let key = rpc.ok("CreateKey", &[("Description", &text), ("Filler", &"+".repeat(20_000))]);
    assert_eq!(key["KeyMetadata"]["Description"], text);
    // Signed in the headers as well, and the connection goes on.
    let mut request = crate::client::Signed::new("ListKeys", "").without("content-type");
    request.path = "/".into();
    let filler: &str = Box::leak("a".repeat(70_000).into_boxed_str());
    request.query = vec![("Filler", filler), ("PageSize", "5")];
    let mut client = site.client();
    for _ in 0..2 {
        let request =
            request.clone().with("x-acs-signature-nonce", format!("{:?}", std::time::Instant::now()));
        let answer = client.send(&request.sign(&site.root));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("connection"), None);
    }
    // The header that carries it is nobody else's to send.
    let pairs = rpc.signed("POST", "ListKeys", &[]);
    let head = format!("POST / HTTP/1.1\r\nhost: kms.local\r\nx-keymill-query: {}\r\n\r\n", encoded(&pairs));
    client.send_raw(head.as_bytes());
    assert_eq!(client.read().unwrap().status, 400);
    let pairs = rpc.signed("POST", "ListKeys", &[("Filler", &"a".repeat(140_000))]);
    let answer = {
        rpc.client = rpc.client.again();
        rpc.client
            .send_raw(format!("POST /?{} HTTP/1.1\r\nhost: kms.local\r\n\r\n", encoded(&pairs)).as_bytes());
        rpc.client.read()
    };
    assert!(answer.is_none_or(|answer| answer.status == 431 || answer.status == 400));
}

#[test]
fn keys_are_listed_by_any_value_of_a_filter_and_by_all_filters() {
    let site = Site::start();
    let mut rpc = Rpc::new(&site);
    let mut key = |tags: &str| {
        let made = rpc.ok("CreateKey", &[("Tags", tags)]);
        made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
    };
    let pay = key(r#"[{"TagKey":"team","TagValue":"pay"}]"#);
    let hr = key(r#"[{"TagKey":"team","TagValue":"hr"},{"TagKey":"stage","TagValue":"test"}]"#);
    let bare = key("[]");
    rpc.ok("DisableKey", &[("KeyId", &hr)]);
    rpc.ok("CreateAlias", &[("KeyId", &bare), ("AliasName", "alias/bare")]);
    let all = [&pay, &hr, &bare];
    for (filters, expected) in [
        (r#"[]"#, &all[..]),
        (r#"[{"Key":"KeyState","Values":["Enabled"]}]"#, &[&pay, &bare]),
        (r#"[{"Key":"KeyState","Values":["Enabled","Disabled"]}]"#, &all),
        (r#"[{"Key":"KeyState","Values":["Enabled"]},{"Key":"KeyState","Values":["Disabled"]}]"#, &all),
        (r#"[{"Key":"KeyState","Values":["Enabled"]},{"Key":"TagKey","Values":["team"]}]"#, &[&pay]),
        (r#"[{"Key":"TagValue","Values":["test","pay"]}]"#, &[&pay, &hr]),
        (r#"[{"Key":"AliasName","Values":["alias/bare","alias/none","no alias"]}]"#, &[&bare]),
        (
            r#"[{"Key":"KeySpec","Values":["Aliyun_AES_256"]},{"Key":"KeyUsage","Values":["ENCRYPT/DECRYPT"]}]"#,
            &all,
        ),
        (r#"[{"Key":"ProtectionLevel","Values":["HSM"]}]"#, &[]),
        (
            r#"[{"Key":"ProtectionLevel","Values":["SOFTWARE"]},{"Key":"CreatorType","Values":["User"]}]"#,
            &all,
        ),
        (r#"[{"Key":"CreatorType","Values":["Service"]}]"#, &[]),
        (r#"[{"Key":"DKMSInstanceId","Values":["kst-1"]}]"#, &[]),
        (r#"[{"Key":"TagKey","Values":[]}]"#, &[]),
    ] {
        let listed = rpc.ok("ListKeys", &[("Filters", filters)]);
        let ids: Vec<_> = listed["Keys"]["Key"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["KeyId"].as_str().unwrap())
            .collect();
        assert_eq!(ids, expected.iter().map(|id| &***id).collect::<Vec<_>>(), "{filters}");
        assert_eq!(listed["TotalCount"], expected.len(), "{filters}");
    }
    let eleven: Vec<_> = (0..11).map(|n| format!("\"v{n}\"")).collect();
    for bad in [
        r#"[{"Key":"keystate","Values":["Enabled"]}]"#.to_owned(),
        r#"[{"Key":"KeyState"}]"#.to_owned(),
        r#"{"Key":"KeyState","Values":[]}"#.to_owned(),
        format!(r#"[{{"Key":"TagKey","Values":[{}]}}]"#, eleven.join(",")),
        format!("[{}]", [r#"{"Key":"TagKey","Values":[]}"#; 11].join(",")),
    ] {
        let (status, code) = rpc.refused("ListKeys", &[("Filters", &bad)]);
        assert!(status == 400 && ["InvalidParameter", "MissingParameter"].contains(&&*code), "{bad}: {code}");
    }
}

#[test]
fn the_service_tells_which_keys_it_makes() {
    let site = Site::start();
    let mut rpc = Rpc::new(&site);
    let told = rpc.ok("DescribeService", &[]);
    assert_eq!(told["ProtectionLevels"]["ProtectionLevel"], json!([{"Type": "SOFTWARE"}]));
    let specs = told["KeySpecs"]["KeySpec"].as_array().unwrap().clone();
    for spec in &specs {
        let usages = spec["Usages"]["Usage"].as_array().unwrap();
        assert_eq!(spec["SupportedProtectionLevels"]["SupportedProtectionLevel"], json!(["SOFTWARE"]));
        for usage in usages {
            // It says the truth.
            rpc.ok(
                "CreateKey",
                &[("KeySpec", spec["Name"].as_str().unwrap()), ("KeyUsage", usage.as_str().unwrap())],
            );
        }
    }
    assert_eq!(
        specs.iter().map(|spec| spec["Name"].as_str().unwrap()).collect::<Vec<_>>(),
        KeySpec::ALL.map(KeySpec::name)
    );
    assert_eq!(rpc.refused("OpenKmsService", &[]), (400, "Forbidden.Opened".into()));
}

#[test]
fn what_says_how_a_body_is_read_is_signed_and_a_query_comes_once() {
    let site = Site::start();
    let mut client = site.client();
    let form = "application/x-www-form-urlencoded";
    let mut signed = crate::client::Signed::new("ListKeys", "PageSize=5").with("content-type", form);
    signed.path = "/".into();
    assert_eq!(client.send(&signed.clone().sign(&site.root)).status, 200);
    // The same, but with a type that nobody signed.
    let unsigned =
        signed.clone().with("x-acs-signature-nonce", "another").without("content-type").sign(&site.root);
    let mut client = site.client();
    let answer = client.send(&unsigned.with("content-type", form));
    assert_eq!((answer.status, &answer.json()["Code"]), (400, &json!("IncompleteSignature")));
    // An authorization that is no text is one all the same.
    let mut rpc = Rpc::new(&site);
    let pairs = rpc.signed("POST", "ListKeys", &[]);
    let head = format!("POST /?{} HTTP/1.1\r\nhost: kms.local\r\nauthorization: ", encoded(&pairs));
    let mut client = site.client();
    client.send_raw(&[head.as_bytes(), b"\xff\r\n\r\n"].concat());
    assert_eq!(client.read().unwrap().status, 400);
}

#[test]
fn a_change_signed_in_its_parameters_is_refused_by_another_node_on_the_same_store() {
    let site = Site::start();
    let mut rpc = Rpc::new(&site);
    let key = site.client().key();
    let other = site.neighbour();
    let pairs = rpc.signed("POST", "DisableKey", &[("KeyId", &key)]);
    assert_eq!(rpc.send("POST", &pairs, &[]).status, 200);
    let mut there = Rpc::new(&other);
    assert_eq!(refusal(&there.send("POST", &pairs, &[])), (400, "SignatureNonceUsed".to_owned()));
    let metadata = other.client().call("DescribeKey", &json!({ "KeyId": key }));
    assert_eq!(metadata["KeyMetadata"]["KeyState"], "Enabled");
}

// D14
#[test]
fn a_source_of_guesses_is_throttled_however_it_signs() {
    let site = Site::start_with(three_guesses);
    let mut known = Rpc::new(&site);
    known.ok("ListKeys", &[]);
    let mut guessing = Rpc::new(&site);
    guessing.client.credentials.secret = "x".into();
    for _ in 0..3 {
        assert_eq!(guessing.refused("ListKeys", &[]), (400, "SignatureDoesNotMatch".into()));
    }
    // Of an id that was let in from there it still is; it is another that is not.
    guessing.client.credentials.id = "nobody-knows-me".into();
    assert_eq!(guessing.refused("ListKeys", &[]), (429, "Throttling".into()));
    let acs3 = Signed { path: "/".into(), ..Signed::new("ListKeys", "") };
    let answer = known.client.send(&acs3.without("content-type").sign(&guessing.client.credentials));
    assert_eq!(refusal_anywhere(&answer), (429, "Throttling".into()));
    known.ok("ListKeys", &[]);
}

fn refusal_anywhere(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["Code"].as_str().unwrap().to_owned())
}
