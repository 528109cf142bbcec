//! Parameters of the cloud's dialect, as a query or a form body brings them: decoded pairs, what is signed of them, and what each operation
//! makes of them.

use keymill_core::operation::Operation;
use keymill_wire::aliyun::parameters::Parameters;
use keymill_wire::aliyun::signature::string_to_sign;
use keymill_wire::aliyun::xml;
use keymill_wire::form;

use crate::memory::{room, within};
use crate::target::{Seed, tells};

/// Takes the first byte for the operation.
pub(crate) fn check(bytes: &[u8]) {
    let Some((first, encoded)) = bytes.split_first() else { return };
    let operation = Operation::ALL[usize::from(*first) % Operation::ALL.len()];
    let pairs = match within(room(encoded.len()), || form::decode(encoded)) {
        Ok(pairs) => pairs,
        Err(error) => return tells(&error),
    };
    let pairs = || pairs.iter().map(|(name, value)| (&**name, &**value));
    reads_back(&string_to_sign("POST", pairs()), pairs().collect());
    let parameters = match Parameters::gather(pairs()) {
        Ok(parameters) => parameters,
        Err(error) => return tells(&error),
    };
    // A map is looked for in each field; a list copies its entries once for each level that it is nested.
    match within(room(16 * encoded.len()), || parameters.decode(operation)) {
        Ok(decoded) => assert_eq!(decoded.request.operation(), operation),
        Err(error) => tells(&error),
    }
    if let Some(xml) = within(room(16 * encoded.len()), || xml::write("KMS", encoded)) {
        // No text begins or ends an element.
        assert!(xml.matches('<').count() == xml.matches('>').count() && !xml.contains('\0'));
    }
}

/// Reads the string to sign again: it tells apart whatever differs.
fn reads_back(to_sign: &str, mut signed: Vec<(&str, &str)>) {
    signed.retain(|(name, _)| *name != "Signature");
    signed.sort_unstable();
    let canonical = to_sign.strip_prefix("POST&%2F&").expect("it begins with the method and the path");
    // A plus sign is escaped in what is signed, so the decoder of queries reads it rightly.
    let escaped = format!("x={canonical}");
    let canonical = form::decode(escaped.as_bytes()).expect("it is escaped text");
    let read = match form::decode(canonical[0].1.as_bytes()) {
        Ok(read) => read,
        Err(error) => panic!("{error}"),
    };
    let read: Vec<_> = read.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(read, signed);
}

/// Returns requests of some operations.
pub(crate) fn seeds() -> Vec<Seed> {
    let seed = |operation: Operation, query: &str| {
        let at = Operation::ALL.iter().position(|other| *other == operation).unwrap_or(0);
        [&[at as u8], query.as_bytes()].concat()
    };
    let encrypt =
        "KeyId=alias%2Fx&Plaintext=aGk%3D&EncryptionContext=%7B%22a%22%3A%22b%22%7D&RegionId=cn-hangzhou";
    vec![
        ("encrypt", seed(Operation::Encrypt, encrypt)),
        ("text", seed(Operation::Encrypt, "KeyId=k&Plaintext=a+b&EncryptionContext.a.b=%E5%AF%86")),
        ("page", seed(Operation::ListKeys, "PageNumber=1&PageSize=10&Signature=AAAA&Empty=")),
        ("flag", seed(Operation::BatchGenerateDataKey, "KeyId=k&Count=3&WithoutPlaintext=True")),
        (
            "list",
            seed(
                Operation::CreateAccessKey,
                "Grants.1.Effect=Allow&Grants.1.Role=Root&Grants.1.Resources.1=*",
            ),
        ),
        (
            "json",
            seed(Operation::CreateAccessKey, "Grants=%5B%7B%22Effect%22%3A%22Allow%22%7D%5D&Description=d"),
        ),
        (
            "instance",
            seed(
                Operation::UpdateKmsInstanceBindVpc,
                "KmsInstanceId=kst-1&BindVpcs=%5B%7B%22VpcId%22%3A%22a%22%2C%22VSwitchId%22%3A%22b%22%7D%5D",
            ),
        ),
        ("xml", seed(Operation::CreateKey, r#"{"Keys":{"Key":[{"KeyId":"a<&"},null,1,true]}}"#)),
    ]
}
