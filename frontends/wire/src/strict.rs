//! A serde adapter that makes a decoder strict and its errors fit to send. Decoders are lenient where one value would have
//! two spellings (an array for a map, bytes or a number for a name), quote the value that they refuse, and forget where it
//! stood; behind [`Strict`] each value has one type, an error names the parameter, and no value is ever quoted.

use std::cell::{Cell, RefCell};
use std::fmt;

use keymill_core::error::Limit;
use keymill_core::{ErrorKind, limit};
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Expected, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::problem::Problem;

/// Carries what the error types of decoders cannot: the problem on its way out, and the name of the field being read.
pub(crate) struct Trace {
    problem: RefCell<Option<Problem>>,
    field: Cell<Option<&'static str>>,
    encoding: Encoding,
}

/// What an error means that no visitor caused.
#[derive(Clone, Copy)]
pub(crate) enum Encoding {
    /// The text is not JSON.
    Json,
    /// The structure was checked before, so it is a value of the wrong type.
    MessagePack,
}

impl Trace {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { problem: RefCell::new(None), field: Cell::new(None), encoding }
    }

    fn keep<E: de::Error>(&self, problem: Problem) -> E {
        self.problem.replace(Some(problem));
        E::custom("")
    }

    fn take<E: de::Error>(&self, error: E) -> Problem {
        self.problem.take().unwrap_or_else(|| match self.encoding {
            // Of its own errors the decoder tells the place alone; values are quoted in those of visitors.
            Encoding::Json => Problem::new(ErrorKind::MalformedRequest, error.to_string()),
            Encoding::MessagePack => {
                Problem::new(ErrorKind::InvalidParameter, "the value is of the wrong type")
            }
        })
    }
}

/// A decoder behind the adapter.
pub(crate) struct Strict<'t, D> {
    inner: D,
    trace: &'t Trace,
    /// The fields of the struct, where the name of one is read.
    fields: &'static [&'static str],
}

impl<'t, D> Strict<'t, D> {
    pub(crate) fn new(inner: D, trace: &'t Trace) -> Self {
        Self { inner, trace, fields: &[] }
    }
}

macro_rules! forward {
    ($($method:ident by $inner:ident as $guard:ident;)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
                let Self { inner, trace, .. } = self;
                inner.$inner($guard { visitor, trace }).map_err(|error| trace.take(error))
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = Problem;

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    // By `deserialize_any` where rmp-serde would refuse a value without asking the visitor what it expects, or, asked for
    // a sequence, take bytes for one.
    forward! {
        deserialize_bool by deserialize_any as Scalar;
        deserialize_i8 by deserialize_any as Scalar;
        deserialize_i16 by deserialize_any as Scalar;
        deserialize_i32 by deserialize_any as Scalar;
        deserialize_i64 by deserialize_any as Scalar;
        deserialize_u8 by deserialize_any as Scalar;
        deserialize_u16 by deserialize_any as Scalar;
        deserialize_u32 by deserialize_any as Scalar;
        deserialize_u64 by deserialize_any as Scalar;
        deserialize_unit by deserialize_any as Scalar;
        deserialize_char by deserialize_str as Text;
        deserialize_str by deserialize_str as Text;
        deserialize_string by deserialize_str as Text;
        deserialize_bytes by deserialize_bytes as Bytes;
        deserialize_byte_buf by deserialize_bytes as Bytes;
        deserialize_option by deserialize_option as Maybe;
        deserialize_seq by deserialize_any as Seq;
        deserialize_map by deserialize_map as Map;
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let Self { inner, trace, fields } = self;
        inner.deserialize_str(FieldName { visitor, trace, fields }).map_err(|error| trace.take(error))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let Self { inner, trace, .. } = self;
        inner.deserialize_map(Fields { visitor, trace, fields }).map_err(|error| trace.take(error))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    // Enums are names alone here; decoders also take maps and, in MessagePack, numbers.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let Self { inner, trace, .. } = self;
        inner.deserialize_str(Variant { visitor, trace }).map_err(|error| trace.take(error))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let Self { inner, trace, .. } = self;
        inner.deserialize_ignored_any(IgnoredAny).map_err(|error| trace.take(error))?;
        visitor.visit_unit()
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Problem> {
        Err(Problem::new(ErrorKind::Internal, "a request type reads values of any type"))
    }

    serde::forward_to_deserialize_any! { i128 u128 f32 f64 }
}

// The visitors that stand between the decoder and a type. Each takes one family of values and refuses the rest, by the
// default methods of `Visitor`. A decoder that refuses by itself asks `expecting`; the problem is kept there.
macro_rules! guard {
    ($name:ident { $($field:ident: $type:ty)? } $($body:tt)*) => {
        struct $name<'t, V> {
            visitor: V,
            trace: &'t Trace,
            $($field: $type,)?
        }

        impl<'de, V: Visitor<'de>> Visitor<'de> for $name<'_, V> {
            type Value = V::Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let what: &dyn Expected = &self.visitor;
                self.trace.problem.replace(Some(Problem::expected(what)));
                write!(f, "{what}")
            }

            $($body)*
        }
    };
}

macro_rules! visit {
    ($($method:ident($type:ty))*) => {
        $(
            fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
                self.visitor.$method(value).map_err(|problem| self.trace.keep(problem))
            }
        )*
    };
}

guard! { Scalar {}
    visit! {
        visit_bool(bool)
        visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64)
    }
    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit().map_err(|problem| self.trace.keep(problem))
    }
}

guard! { Text {}
    visit! { visit_str(&str) visit_borrowed_str(&'de str) visit_string(String) }
}

guard! { Bytes {}
    visit! { visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>) }
}

guard! { Maybe {}
    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none().map_err(|problem| self.trace.keep(problem))
    }
    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.visit_none()
    }
    fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<V::Value, D::Error> {
        let Self { visitor, trace } = self;
        visitor.visit_some(Strict::new(some, trace)).map_err(|problem| trace.keep(problem))
    }
}

guard! { Seq {}
    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Self { visitor, trace } = self;
        visitor.visit_seq(Values { inner, trace, index: 0 }).map_err(|problem| trace.keep(problem))
    }
}

guard! { Map {}
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Self { visitor, trace } = self;
        let entries = Entries { inner, trace, fields: &[], field: None, index: 0 };
        visitor.visit_map(entries).map_err(|problem| trace.keep(problem))
    }
}

guard! { Fields { fields: &'static [&'static str] }
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Self { visitor, trace, fields } = self;
        let entries = Entries { inner, trace, fields, field: None, index: 0 };
        visitor.visit_map(entries).map_err(|problem| trace.keep(problem))
    }
}

guard! { FieldName { fields: &'static [&'static str] }
    fn visit_str<E: de::Error>(self, name: &str) -> Result<V::Value, E> {
        self.trace.field.set(self.fields.iter().copied().find(|field| *field == name));
        self.visitor.visit_str(name).map_err(|problem| self.trace.keep(problem))
    }
}

guard! { Variant {}
    fn visit_str<E: de::Error>(self, name: &str) -> Result<V::Value, E> {
        self.visitor
            .visit_enum(StrDeserializer::<Problem>::new(name))
            .map_err(|problem| self.trace.keep(problem))
    }
}

/// The values of a sequence; more than a batch may hold are refused before they take memory.
struct Values<'t, A> {
    inner: A,
    trace: &'t Trace,
    index: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Values<'_, A> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        if self.index == limit::BATCH_ITEMS {
            let more = self.inner.next_element::<IgnoredAny>().map_err(|error| self.trace.take(error))?;
            return match more {
                None => Ok(None),
                Some(_) => Err(Problem::new(
                    ErrorKind::LimitExceeded(Limit::BatchItems),
                    format!("the batch exceeds the limit of {} items", limit::BATCH_ITEMS),
                )),
            };
        }
        match self.inner.next_element_seed(Inner { seed, trace: self.trace, fields: &[] }) {
            Ok(value) => {
                self.index += 1;
                Ok(value)
            }
            Err(error) => Err(self.trace.take(error).inside(&format!("[{}]", self.index))),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The entries of a map; of a struct, where it has fields.
struct Entries<'t, A> {
    inner: A,
    trace: &'t Trace,
    fields: &'static [&'static str],
    field: Option<&'static str>,
    index: usize,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        // Each pair of a context takes at least five characters, so more pairs than characters are too many.
        if self.index == limit::CONTEXT_CHARACTERS {
            return Err(Problem::new(
                ErrorKind::LimitExceeded(Limit::ContextCharacters),
                format!(
                    "the encryption context exceeds the limit of {} characters",
                    limit::CONTEXT_CHARACTERS
                ),
            ));
        }
        self.index += 1;
        let key = Inner { seed, trace: self.trace, fields: self.fields };
        let key = self.inner.next_key_seed(key).map_err(|error| self.trace.take(error));
        self.field = self.trace.field.take();
        key
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Problem> {
        let value = Inner { seed, trace: self.trace, fields: &[] };
        self.inner.next_value_seed(value).map_err(|error| {
            let problem = self.trace.take(error);
            // The keys of a context are the caller's data: the path ends before them.
            match self.field {
                Some(field) => problem.inside(field),
                None => problem,
            }
        })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// Puts the adapter around whatever decoder a seed is given.
struct Inner<'t, S> {
    seed: S,
    trace: &'t Trace,
    fields: &'static [&'static str],
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Inner<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let Self { seed, trace, fields } = self;
        seed.deserialize(Strict { inner, trace, fields }).map_err(|problem| trace.keep(problem))
    }
}
