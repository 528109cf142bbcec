//! Parameters as the cloud's SDKs send them: every value is text. Numbers and booleans are spelled, maps are JSON text or a parameter an
//! entry (`EncryptionContext.<key>`), lists are JSON text or a parameter an entry (`Tag.1.Key`). A parameter that the operation does
//! not have is passed over, as the cloud does; one that the cloud has for it, and this server does not, is refused.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::operation::{Bin, Class, Operation, Request};
use keymill_core::{Error, ErrorKind, Result};
use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::problem::Problem;
use crate::strict::{Encoding, Strict, Trace};

/// The parameters of a request, each once. Plaintexts and secrets are among them, so `Debug` tells their names alone.
pub struct Parameters<'p>(BTreeMap<&'p str, &'p str>);

impl std::fmt::Debug for Parameters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A request that was read from its parameters.
#[derive(Debug)]
pub struct Decoded<'p> {
    /// The request.
    pub request: Request<'p>,
    /// Whether the plaintext of `Encrypt` is no base64, but text that the caller wants back as it is.
    pub is_text: bool,
    /// Whether it is only to be tried.
    pub is_dry_run: bool,
}

/// Parameters that the cloud documents and this server has no meaning for yet: a caller who sets one counts on it. A value that asks for
/// nothing is let pass.
const UNSUPPORTED: &[(Operation, &[&str])] =
    &[(Operation::ReEncrypt, &["SourceEncryptionAlgorithm", "SourceKeyId", "SourceKeyVersionId"])];

impl<'p> Parameters<'p> {
    /// Gathers decoded parameters.
    ///
    /// # Errors
    /// `MalformedRequest` for one that comes twice: which of them was meant has no answer.
    pub fn gather(pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> Result<Self> {
        let mut gathered = BTreeMap::new();
        for (name, value) in pairs {
            if gathered.insert(name, value).is_some() {
                let message = format!("{}: the parameter comes twice", crate::frame::clip(name));
                return Err(Error::new(ErrorKind::MalformedRequest, message));
            }
        }
        Ok(Self(gathered))
    }

    /// Returns a parameter as it stands.
    pub fn get(&self, name: &str) -> Option<&'p str> {
        self.0.get(name).copied()
    }

    /// Lists them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'p str, &'p str)> {
        self.0.iter().map(|(name, value)| (*name, *value))
    }

    /// Reads the parameters of `operation`.
    ///
    /// # Errors
    /// `InvalidParameter` or `MissingParameter`, naming the parameter and never its value; `Unsupported` for one that is the cloud's and not
    /// ours.
    pub fn decode(&self, operation: Operation) -> Result<Decoded<'p>> {
        self.refuse_unsupported(operation)?;
        let is_dry_run = self.is_dry_run()?;
        if is_dry_run && operation.class() == Class::Management {
            let message = "DryRun: what changes something cannot be tried";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let text = match (operation, self.get("Plaintext")) {
            (Operation::Encrypt, Some(text)) if STANDARD.decode(text).is_err() => Some(text),
            _ => None,
        };
        let root = Root { parameters: &self.0, replaced: text.map(|_| ("Plaintext", "")) };
        let mut request = Request::deserialize(operation, root)
            .map_err(|problem| problem.into_error("the parameters are wrong"))?;
        if let (Request::Encrypt(request), Some(text)) = (&mut request, text) {
            request.plaintext = Bin::from(text.as_bytes());
        }
        Ok(Decoded { request, is_text: text.is_some(), is_dry_run })
    }

    /// Tells whether the request is only to be tried.
    ///
    /// # Errors
    /// `InvalidParameter` where that is not clear.
    pub fn is_dry_run(&self) -> Result<bool> {
        match self.get("DryRun") {
            None | Some("" | "false" | "False") => Ok(false),
            Some("true" | "True") => Ok(true),
            Some(_) => Err(Error::new(ErrorKind::InvalidParameter, "DryRun: expected true or false")),
        }
    }

    fn refuse_unsupported(&self, operation: Operation) -> Result<()> {
        let asks = |value: &str| !value.is_empty() && !value.eq_ignore_ascii_case("false");
        let of_operation =
            UNSUPPORTED.iter().find(|(of, _)| *of == operation).map_or(&[][..], |(_, names)| names);
        let is_given = |name: &str| {
            let entries = |(given, value): (&str, &str)| {
                let rest = given.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) && asks(value)
            };
            self.iter().any(entries)
        };
        // The answer would go to somebody else than the caller means.
        if is_given("Recipient") {
            let message = "Recipient: answers are sealed for nobody else here";
            return Err(Error::new(ErrorKind::InvalidParameter, message));
        }
        match of_operation.iter().find(|name| is_given(name)) {
            Some(name) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("{name}: this server does not know the parameter yet"),
            )),
            None => Ok(()),
        }
    }
}

/// All parameters, as the struct of an operation.
struct Root<'a, 'p> {
    parameters: &'a BTreeMap<&'p str, &'p str>,
    /// One that is read as another value.
    replaced: Option<(&'static str, &'static str)>,
}

impl<'p> Deserializer<'p> for Root<'_, 'p> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'p>>(self, _: V) -> Result<V::Value, Problem> {
        Err(Problem::expected("the parameters of an operation"))
    }

    fn deserialize_struct<V: Visitor<'p>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_map(Fields { root: self, fields: fields.iter(), field: "" })
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'p>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

/// The fields of an operation, of those that were given.
struct Fields<'a, 'p> {
    root: Root<'a, 'p>,
    fields: std::slice::Iter<'static, &'static str>,
    field: &'static str,
}

impl<'a, 'p> Fields<'a, 'p> {
    /// Returns the parameters that are entries of a field, without its name.
    fn entries(&self, field: &'static str) -> BTreeMap<&'p str, &'p str> {
        let all = self.root.parameters.range(field..).take_while(|(name, _)| name.starts_with(field));
        all.filter_map(|(name, value)| Some((name[field.len()..].strip_prefix('.')?, *value))).collect()
    }
}

impl<'p> MapAccess<'p> for Fields<'_, 'p> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'p>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        while let Some(field) = self.fields.next() {
            self.field = field;
            if self.root.parameters.contains_key(field) || !self.entries(field).is_empty() {
                let name: StrDeserializer<'_, Problem> = field.into_deserializer();
                return seed.deserialize(name).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'p>>(&mut self, seed: S) -> Result<S::Value, Problem> {
        let replaced = self.root.replaced.filter(|(name, _)| *name == self.field).map(|(_, value)| value);
        let whole = replaced.or(self.root.parameters.get(self.field).copied());
        let read = match (whole, self.entries(self.field)) {
            (Some(text), entries) if entries.is_empty() => seed.deserialize(Text(text)),
            (None, entries) => seed.deserialize(Entries(entries)),
            (Some(_), _) => Err(Problem::expected("one value, or one for each entry")),
        };
        read.map_err(|problem| problem.inside(self.field))
    }
}

/// One value.
struct Text<'p>(&'p str);

macro_rules! numbers {
    ($($method:ident $visit:ident $kind:ty;)*) => {
        $(
            fn $method<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
                match self.0.parse::<$kind>() {
                    // A sign or zeros before it would be a second spelling.
                    Ok(number) if number.to_string() == self.0 => visitor.$visit(number),
                    _ => Err(Problem::expected("a whole number")),
                }
            }
        )*
    };
}

impl<'p> Text<'p> {
    fn json<T>(
        self,
        read: impl FnOnce(
            Strict<'_, &mut serde_json::Deserializer<serde_json::de::StrRead<'p>>>,
        ) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let mut decoder = serde_json::Deserializer::from_str(self.0);
        let trace = Trace::new(Encoding::Json);
        let read = read(Strict::new(&mut decoder, &trace)).map_err(Problem::of_a_value)?;
        match decoder.end() {
            Ok(()) => Ok(read),
            Err(_) => Err(Problem::expected("JSON and nothing behind it")),
        }
    }
}

impl<'p> Deserializer<'p> for Text<'p> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_borrowed_str(self.0)
    }

    numbers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_bool<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            "true" | "True" => visitor.visit_bool(true),
            "false" | "False" => visitor.visit_bool(false),
            _ => Err(Problem::expected("true or false")),
        }
    }

    // An empty value is sent for one that was left out.
    fn deserialize_option<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
        if self.0.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'p>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'p>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_enum(self)
    }

    fn deserialize_map<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.json(|strict| strict.deserialize_map(visitor))
    }

    // Some lists of names come with commas between them.
    fn deserialize_seq<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0.trim_start().starts_with('[') {
            true => self.json(|strict| strict.deserialize_seq(visitor)),
            false => visitor.visit_seq(serde::de::value::SeqDeserializer::new(
                self.0.split(',').map(|name| Text(name.trim())),
            )),
        }
    }

    fn deserialize_struct<V: Visitor<'p>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.json(|strict| strict.deserialize_struct(name, fields, visitor))
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'p>>
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

impl<'p> EnumAccess<'p> for Text<'p> {
    type Error = Problem;
    type Variant = <BorrowedStrDeserializer<'p, Problem> as EnumAccess<'p>>::Variant;

    fn variant_seed<S: DeserializeSeed<'p>>(self, seed: S) -> Result<(S::Value, Self::Variant), Problem> {
        BorrowedStrDeserializer::new(self.0).variant_seed(seed)
    }
}

/// A value of which each entry is a parameter: of a map by its key, of a list by its number from 1.
struct Entries<'p>(BTreeMap<&'p str, &'p str>);

impl<'p> Entries<'p> {
    /// Splits a list into its entries: values, or what is under each number.
    fn listed(self) -> Result<Vec<Self>, Problem> {
        let mut entries: BTreeMap<u32, BTreeMap<&str, &str>> = BTreeMap::new();
        for (name, value) in self.0 {
            let (number, rest) = name.split_once('.').unwrap_or((name, ""));
            let parsed =
                number.parse::<u32>().ok().filter(|parsed| *parsed > 0 && parsed.to_string() == number);
            let number = parsed.ok_or_else(|| Problem::expected("entries that are numbered from 1"))?;
            entries.entry(number).or_default().insert(rest, value);
        }
        let gapless = entries.keys().zip(1..).all(|(number, at)| *number == at);
        match gapless {
            true => Ok(entries.into_values().map(Self).collect()),
            false => Err(Problem::expected("entries that are numbered from 1, without a gap")),
        }
    }
}

impl<'p> Deserializer<'p> for Entries<'p> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
        match (self.0.len(), self.0.get("")) {
            (1, Some(value)) => Text(value).deserialize_any(visitor),
            _ => Err(Problem::expected("one value")),
        }
    }

    fn deserialize_option<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_map<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_map(serde::de::value::MapDeserializer::new(
            self.0.into_iter().map(|(name, value)| (BorrowedStrDeserializer::new(name), Text(value))),
        ))
    }

    fn deserialize_struct<V: Visitor<'p>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let root = Root { parameters: &self.0, replaced: None };
        visitor.visit_map(Fields { root, fields: fields.iter(), field: "" })
    }

    fn deserialize_seq<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_seq(List(self.listed()?.into_iter()))
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'p>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct
        tuple tuple_struct enum identifier ignored_any
    }
}

impl<'p> IntoDeserializer<'p, Problem> for Text<'p> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

struct List<'p>(std::vec::IntoIter<Entries<'p>>);

impl<'p> SeqAccess<'p> for List<'p> {
    type Error = Problem;

    fn next_element_seed<S: DeserializeSeed<'p>>(&mut self, seed: S) -> Result<Option<S::Value>, Problem> {
        self.0.next().map(|entry| seed.deserialize(entry)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::EncryptionContext;
    use keymill_core::id::KeyRef;
    use keymill_core::operation::{CreateAccessKeyRequest, CreateKeyRequest, EncryptRequest};

    fn decoded<'p>(operation: Operation, pairs: &[(&'p str, &'p str)]) -> Result<Decoded<'p>> {
        Parameters::gather(pairs.iter().copied()).unwrap().decode(operation)
    }

    fn refused(operation: Operation, pairs: &[(&str, &str)]) -> (ErrorKind, String) {
        let error = decoded(operation, pairs).unwrap_err();
        (error.kind(), error.message().to_owned())
    }

    fn encrypt<'p>(pairs: &[(&'p str, &'p str)]) -> (EncryptRequest<'p>, bool) {
        let Decoded { request: Request::Encrypt(request), is_text, .. } =
            decoded(Operation::Encrypt, pairs).unwrap()
        else {
            panic!()
        };
        (request, is_text)
    }

    #[test]
    fn a_map_is_json_or_a_parameter_an_entry() {
        let context = EncryptionContext::from_pairs([("a", "1"), ("b.c d", "密 *")]).unwrap();
        let base = [
            ("KeyId", "alias/x"),
            ("Plaintext", "AAE="),
            ("RegionId", "cn-hangzhou"),
            ("EncryptionContexts", "?"),
        ];
        let json = encrypt(&[&base[..], &[("EncryptionContext", r#"{"b.c d":"密 *","a":"1"}"#)]].concat());
        let entries = [("EncryptionContext.a", "1"), ("EncryptionContext.b.c d", "密 *")];
        let flat = encrypt(&[&base[..], &entries].concat());
        for (request, is_text) in [json, flat] {
            assert_eq!(request.encryption_context, Some(context.clone()));
            assert_eq!(
                (&request.plaintext[..], request.key_id, is_text),
                (&[0, 1][..], KeyRef::parse("alias/x"), false)
            );
        }
        let none = encrypt(&[&base[..], &[("EncryptionContext", ""), ("TimeoutMs", "")]].concat()).0;
        assert_eq!((none.encryption_context, none.timeout_ms), (None, None));
        for bad in ["[1]", "{\"a\":1}", "{\"a\":\"b\"}x", "{", "{\"a\":\"b\",\"a\":\"c\"}", "a"] {
            let (kind, message) =
                refused(Operation::Encrypt, &[&base[..], &[("EncryptionContext", bad)]].concat());
            assert_eq!(kind, ErrorKind::InvalidParameter, "{bad}");
            assert!(message.starts_with("EncryptionContext: "), "{message}");
        }
        let both = [&base[..], &entries, &[("EncryptionContext", "{}")]].concat();
        assert_eq!(refused(Operation::Encrypt, &both).0, ErrorKind::InvalidParameter);
    }

    #[test]
    fn a_plaintext_that_is_no_base64_is_text() {
        for (text, bytes) in [
            ("aGk=", &b"hi"[..]),
            ("", b""),
            ("aGk", b"aGk"),
            ("a b", b"a b"),
            ("aGl=", b"aGl="),
            ("密", "密".as_bytes()),
        ] {
            let (request, is_text) = encrypt(&[("KeyId", "k"), ("Plaintext", text)]);
            assert_eq!(&request.plaintext[..], bytes, "{text}");
            assert_eq!(is_text, STANDARD.encode(bytes) != text);
        }
        // It is text of `Encrypt` alone.
        let (kind, message) = refused(Operation::Decrypt, &[("CiphertextBlob", "SECRET!")]);
        assert!(kind == ErrorKind::InvalidParameter && !message.contains("SECRET"), "{message}");
    }

    #[test]
    fn numbers_booleans_and_names_have_one_spelling() {
        let pages = |number| decoded(Operation::ListKeys, &[("PageNumber", number)]);
        let Request::ListKeys(request) = pages("17").unwrap().request else { panic!() };
        assert_eq!(request.page_number, Some(17));
        for bad in ["+1", "01", "1.0", "-1", " 1", "0x1", "4294967296", "SECRET"] {
            let error = pages(bad).unwrap_err();
            assert_eq!(
                (error.kind(), error.message()),
                (ErrorKind::InvalidParameter, "PageNumber: expected a whole number")
            );
        }
        let Request::CreateKey(CreateKeyRequest { key_spec, description, .. }) =
            decoded(Operation::CreateKey, &[("KeySpec", "Aliyun_AES_256"), ("Description", "7")])
                .unwrap()
                .request
        else {
            panic!()
        };
        assert_eq!(
            (key_spec.map(|spec| spec.name()), description.as_deref()),
            (Some("Aliyun_AES_256"), Some("7"))
        );
        assert_eq!(
            refused(Operation::CreateKey, &[("KeySpec", "aliyun_aes_256")]).0,
            ErrorKind::InvalidParameter
        );
        for (text, value) in [("True", true), ("true", true), ("False", false), ("false", false)] {
            let pairs = [("Count", "1"), ("KeyId", "k"), ("WithoutPlaintext", text)];
            let Request::BatchGenerateDataKey(request) =
                decoded(Operation::BatchGenerateDataKey, &pairs).unwrap().request
            else {
                panic!()
            };
            assert_eq!(request.without_plaintext, Some(value));
        }
    }

    #[test]
    fn lists_are_json_or_numbered() {
        let numbered = [
            ("Grants.1.Effect", "Allow"),
            ("Grants.1.Role", "Root"),
            ("Grants.1.Resources.1", "*"),
            ("Grants.2.Effect", "Deny"),
            ("Grants.2.Role", "Root"),
            ("Grants.2.Resources", r#"["*"]"#),
        ];
        let Request::CreateAccessKey(CreateAccessKeyRequest { grants: listed, .. }) =
            decoded(Operation::CreateAccessKey, &numbered).unwrap().request
        else {
            panic!()
        };
        let json = serde_json::to_string(&listed).unwrap();
        let Request::CreateAccessKey(CreateAccessKeyRequest { grants, .. }) =
            decoded(Operation::CreateAccessKey, &[("Grants", &json)]).unwrap().request
        else {
            panic!()
        };
        assert_eq!((listed.len(), &listed), (2, &grants));
        for bad in [&[("Grants.0.Effect", "Allow")], &[("Grants.x.Effect", "Allow")], &numbered[3..]] {
            assert!(decoded(Operation::CreateAccessKey, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_parameter_that_is_missing_doubled_or_not_known_yet_is_named() {
        assert_eq!(
            refused(Operation::Encrypt, &[("Plaintext", "")]),
            (ErrorKind::MissingParameter, "KeyId: the parameter is missing".into())
        );
        let doubled = Parameters::gather([("KeyId", "a"), ("KeyId", "a")]).unwrap_err();
        assert_eq!(
            (doubled.kind(), doubled.message()),
            (ErrorKind::MalformedRequest, "KeyId: the parameter comes twice")
        );
        let shown = format!("{:?}", Parameters::gather([("Plaintext", "SECRET")]).unwrap());
        assert!(shown.contains("Plaintext") && !shown.contains("SECRET"), "{shown}");
        let (kind, message) = refused(Operation::ReEncrypt, &[("SourceKeyId", "k")]);
        assert!(kind == ErrorKind::Unsupported && message.starts_with("SourceKeyId: "), "{message}");
        for recipient in ["Recipient", "Recipient.KeyEncryptionAlgorithm"] {
            let pairs = [("CiphertextBlob", "AA=="), (recipient, "x")];
            assert_eq!(refused(Operation::Decrypt, &pairs).0, ErrorKind::InvalidParameter, "{recipient}");
        }
        decoded(Operation::CreateKey, &[("DKMSInstanceId", ""), ("Tags", ""), ("Unheard", "of")]).unwrap();
    }
}
