//! The messages of the instance gateway (Protocol Buffers, proto3), by the numbers and types of their fields. Fields that are not known are
//! passed over, one that comes twice counts as it came last, and one of another wire type is refused: that is what Protocol Buffers say. An
//! empty field and an absent one are the same. Byte fields are parts of the body that they were read from.

use bytes::Bytes;

/// Makes the messages. They hold plaintexts and keys, so their `Debug` tells their name alone.
macro_rules! messages {
    (@message $name:ident [$($field:tt)*]) => {
        #[doc = concat!("`", stringify!($name), "` of the gateway.")]
        #[derive(Clone, PartialEq, ::prost::Message)]
        #[prost(skip_debug)]
        pub struct $name { $($field)* }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
    (@message $name:ident [$($done:tt)*] $tag:tt $field:ident bytes, $($rest:tt)*) => {
        messages! { @message $name [$($done)*
            #[doc = concat!("Field ", stringify!($tag), ", bytes.")]
            #[prost(bytes = "bytes", tag = $tag)]
            pub $field: Bytes,
        ] $($rest)* }
    };
    (@message $name:ident [$($done:tt)*] $tag:tt $field:ident text, $($rest:tt)*) => {
        messages! { @message $name [$($done)*
            #[doc = concat!("Field ", stringify!($tag), ", text.")]
            #[prost(string, tag = $tag)]
            pub $field: String,
        ] $($rest)* }
    };
    (@message $name:ident [$($done:tt)*] $tag:tt $field:ident number, $($rest:tt)*) => {
        messages! { @message $name [$($done)*
            #[doc = concat!("Field ", stringify!($tag), ", a number.")]
            #[prost(int32, tag = $tag)]
            pub $field: i32,
        ] $($rest)* }
    };
    (@message $name:ident [$($done:tt)*] $tag:tt $field:ident truth, $($rest:tt)*) => {
        messages! { @message $name [$($done)*
            #[doc = concat!("Field ", stringify!($tag), ", true or not.")]
            #[prost(bool, tag = $tag)]
            pub $field: bool,
        ] $($rest)* }
    };
    (@message $name:ident [$($done:tt)*] $tag:tt $field:ident texts, $($rest:tt)*) => {
        messages! { @message $name [$($done)*
            #[doc = concat!("Field ", stringify!($tag), ", texts.")]
            #[prost(string, repeated, tag = $tag)]
            pub $field: Vec<String>,
        ] $($rest)* }
    };
    ($($name:ident { $($tag:tt $field:ident $kind:ident),* })*) => {
        $( messages! { @message $name [] $($tag $field $kind,)* } )*

        /// Reads a body as each of the messages, and what could be read once more as it was written; returns how many could.
        #[cfg(test)]
        fn read_all(body: &Bytes) -> usize {
            use ::prost::Message;
            let mut read = 0;
            $(
                if let Ok(message) = $name::decode(body.clone()) {
                    let again = $name::decode(&*message.encode_to_vec());
                    assert_eq!(again.as_ref(), Ok(&message), "{message:?} is read as it was written");
                    read += 1;
                }
            )*
            read
        }
    };
}

messages! {
    EncryptRequest { 1 key_id text, 2 plaintext bytes, 3 algorithm text, 4 aad bytes, 5 iv bytes, 6 padding_mode text }
    EncryptResponse {
        1 key_id text, 2 ciphertext_blob bytes, 3 iv bytes, 4 request_id text, 5 algorithm text, 6 padding_mode text
    }
    DecryptRequest {
        1 ciphertext_blob bytes, 2 key_id text, 3 algorithm text, 4 aad bytes, 5 iv bytes, 6 padding_mode text
    }
    DecryptResponse { 1 key_id text, 2 plaintext bytes, 3 request_id text, 4 algorithm text, 5 padding_mode text }
    AdvanceEncryptRequest {
        1 key_id text, 2 plaintext bytes, 3 algorithm text, 4 aad bytes, 5 iv bytes, 6 padding_mode text
    }
    AdvanceEncryptResponse {
        1 key_id text, 2 ciphertext_blob bytes, 3 iv bytes, 4 request_id text, 5 algorithm text, 6 padding_mode text,
        7 key_version_id text
    }
    AdvanceDecryptRequest {
        1 ciphertext_blob bytes, 2 key_id text, 3 algorithm text, 4 aad bytes, 5 iv bytes, 6 padding_mode text
    }
    AdvanceDecryptResponse {
        1 key_id text, 2 plaintext bytes, 3 request_id text, 4 algorithm text, 5 padding_mode text, 6 key_version_id text
    }
    KmsEncryptRequest { 1 key_id text, 2 plaintext bytes, 3 aad bytes }
    KmsEncryptResponse { 1 key_id text, 2 ciphertext_blob bytes, 3 request_id text }
    KmsDecryptRequest { 1 ciphertext_blob bytes, 2 aad bytes }
    KmsDecryptResponse { 1 key_id text, 2 plaintext bytes, 3 request_id text }
    GenerateDataKeyRequest { 1 key_id text, 2 algorithm text, 3 number_of_bytes number, 4 aad bytes }
    GenerateDataKeyResponse {
        1 key_id text, 2 iv bytes, 3 plaintext bytes, 4 ciphertext_blob bytes, 5 request_id text, 6 algorithm text
    }
    AdvanceGenerateDataKeyRequest { 1 key_id text, 2 number_of_bytes number, 3 aad bytes }
    AdvanceGenerateDataKeyResponse {
        1 key_id text, 2 iv bytes, 3 plaintext bytes, 4 ciphertext_blob bytes, 5 request_id text, 6 algorithm text,
        7 key_version_id text
    }
    GenerateDataKeyPairRequest { 1 key_id text, 2 algorithm text, 3 key_pair_spec text, 4 key_format text, 5 aad bytes }
    GenerateDataKeyPairResponse {
        1 key_id text, 2 iv bytes, 3 key_pair_spec text, 4 private_key_plaintext bytes, 5 private_key_ciphertext_blob bytes,
        6 public_key bytes, 7 request_id text, 8 algorithm text
    }
    GenerateDataKeyPairWithoutPlaintextRequest {
        1 key_id text, 2 algorithm text, 3 key_pair_spec text, 4 key_format text, 5 aad bytes
    }
    GenerateDataKeyPairWithoutPlaintextResponse {
        1 key_id text, 2 iv bytes, 3 key_pair_spec text, 4 private_key_ciphertext_blob bytes, 5 public_key bytes,
        6 request_id text, 7 algorithm text
    }
    AdvanceGenerateDataKeyPairRequest { 1 key_id text, 2 key_pair_spec text, 3 key_format text, 4 aad bytes }
    AdvanceGenerateDataKeyPairResponse {
        1 key_id text, 2 iv bytes, 3 key_pair_spec text, 4 private_key_plaintext bytes, 5 private_key_ciphertext_blob bytes,
        6 public_key bytes, 7 request_id text, 8 algorithm text, 9 key_version_id text
    }
    AdvanceGenerateDataKeyPairWithoutPlaintextRequest {
        1 key_id text, 2 key_pair_spec text, 3 key_format text, 4 aad bytes
    }
    AdvanceGenerateDataKeyPairWithoutPlaintextResponse {
        1 key_id text, 2 iv bytes, 3 key_pair_spec text, 4 private_key_ciphertext_blob bytes, 5 public_key bytes,
        6 request_id text, 7 algorithm text, 8 key_version_id text
    }
    SignRequest { 1 key_id text, 2 digest bytes, 3 algorithm text, 4 message bytes, 5 message_type text }
    SignResponse { 1 key_id text, 2 signature bytes, 3 request_id text, 4 algorithm text, 5 message_type text }
    VerifyRequest {
        1 key_id text, 2 digest bytes, 3 signature bytes, 4 algorithm text, 5 message bytes, 6 message_type text
    }
    VerifyResponse { 1 key_id text, 2 value truth, 3 request_id text, 4 algorithm text, 5 message_type text }
    HmacRequest { 1 key_id text, 2 message bytes }
    HmacResponse { 1 key_id text, 2 signature bytes, 3 request_id text }
    GetPublicKeyRequest { 1 key_id text }
    GetPublicKeyResponse { 1 key_id text, 2 public_key text, 3 request_id text }
    GenerateRandomRequest { 1 length number }
    GenerateRandomResponse { 1 random bytes, 2 request_id text }
    GetSecretValueRequest { 1 secret_name text, 2 version_stage text, 3 version_id text, 4 fetch_extended_config truth }
    GetSecretValueResponse {
        1 secret_name text, 2 secret_type text, 3 secret_data text, 4 secret_data_type text, 5 version_stages texts,
        6 version_id text, 7 create_time text, 8 request_id text, 9 last_rotation_date text, 10 next_rotation_date text,
        11 extended_config text, 12 automatic_rotation text, 13 rotation_interval text
    }
    Error { 1 status_code number, 2 error_code text, 3 error_message text, 4 request_id text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// A field as it stands in a message, of any number and wire type.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let text = "[a-zA-Z0-9_/-]{0,20}".prop_map(String::into_bytes);
        let bytes = prop_oneof![text, prop::collection::vec(any::<u8>(), 0..40)];
        let number = prop_oneof![any::<i32>().prop_map(|n| i64::from(n) as u64), any::<u64>()];
        prop_oneof![
            4 => (1u8..9, bytes).prop_map(|(tag, bytes)| [&[tag << 3 | 2, bytes.len() as u8][..], &bytes].concat()),
            1 => (1u8..9, number).prop_map(|(tag, number)| {
                let mut field = vec![tag << 3];
                prost::encode_length_delimiter(number as usize, &mut field).unwrap();
                field
            }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_read_again_as_it_was_written(fields in prop::collection::vec(field(), 0..8)) {
            read_all(&Bytes::from(fields.concat()));
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read(body in prop::collection::vec(any::<u8>(), 0..200)) {
            read_all(&Bytes::from(body));
        }

        #[test]
        fn a_message_comes_back_and_its_bytes_are_those_of_the_body(
            key_id in "[ -~]{0,40}", plaintext in prop::collection::vec(any::<u8>(), 1..300), aad in prop::collection::vec(any::<u8>(), 0..20)
        ) {
            let message = EncryptRequest {
                key_id, plaintext: plaintext.into(), aad: aad.into(), ..EncryptRequest::default()
            };
            let body = Bytes::from(message.encode_to_vec());
            let back = EncryptRequest::decode(body.clone()).unwrap();
            prop_assert_eq!(&back, &message);
            prop_assert!(body.as_ptr_range().contains(&back.plaintext.as_ptr()));
        }
    }

    #[test]
    fn an_empty_body_is_every_message_and_of_doubled_fields_the_last_counts() {
        assert_eq!(read_all(&Bytes::new()), 37);
        let body = Bytes::from_static(b"\x0a\x01a\x0a\x01b\x7a\x03new");
        assert_eq!(GetPublicKeyRequest::decode(body).unwrap().key_id, "b");
    }

    #[test]
    fn a_wrong_wire_type_bad_text_and_a_cut_field_are_refused() {
        for body in [
            &b"\x08\x01"[..],
            b"\x0a\x02\xff\xff",
            b"\x0a\x05abc",
            b"\x0a",
            b"\x0b\x0b",
            b"\x00\x00",
            b"\x0f",
        ] {
            assert!(GetPublicKeyRequest::decode(body).is_err(), "{body:x?}");
        }
        // Groups that are not known are passed over, but not to any depth.
        let deep = [b"\x7b".repeat(200), b"\x7c".repeat(200)].concat();
        assert!(GetPublicKeyRequest::decode(&*deep).is_err());
    }

    #[test]
    fn nothing_of_a_message_is_shown() {
        let message = SignRequest { message: Bytes::from_static(b"SECRET"), ..SignRequest::default() };
        assert_eq!(format!("{message:?}"), "SignRequest");
    }
}
