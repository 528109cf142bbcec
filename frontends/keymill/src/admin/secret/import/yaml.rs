//! YAML as far as manifests use it: maps, lists and text. Anchors, aliases and tags are refused: nothing here needs them, and aliases of aliases
//! make a small file a large one.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use zeroize::Zeroizing;

use super::source::{MAX_ENTRIES, Unreadable};

/// How deep maps and lists may stand in each other.
const MAX_DEPTH: usize = 16;

/// A value of a document.
pub(super) struct Node {
    /// The line that it begins in.
    pub(super) line: usize,
    /// What it is.
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Text { text: Zeroizing<String>, is_plain: bool },
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
}

impl Node {
    /// Returns the value of a field, where it is a map that has it.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(fields) => fields.iter().find(|(field, _)| field == name).map(|(_, node)| node),
            Kind::Text { .. } | Kind::List(_) => None,
        }
    }

    /// Returns the text, where it is some.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text { text, .. } => Some(text),
            Kind::Map(_) | Kind::List(_) => None,
        }
    }

    /// Tells whether it stands for nothing.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Text { text, is_plain: true } if is_null(text))
    }

    /// Tells whether YAML takes the text for something else: a number, a boolean, nothing.
    pub(super) fn is_no_string(&self) -> bool {
        let Kind::Text { text, is_plain: true } = &self.kind else { return false };
        let is_word = ["true", "True", "TRUE", "false", "False", "FALSE"].contains(&text.as_str());
        let is_based = text.starts_with("0x") || text.starts_with("0o");
        let is_special = [".inf", "-.inf", "+.inf", ".nan"].contains(&text.to_ascii_lowercase().as_str());
        let is_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
            && text.parse::<f64>().is_ok();
        is_null(text) || is_word || is_based || is_special || is_number
    }
}

fn is_null(text: &str) -> bool {
    ["", "~", "null", "Null", "NULL"].contains(&text)
}

/// Reads the documents of a file; those that hold nothing are left out.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Unreadable> {
    let mut reader = Reader { parser: Parser::new_from_str(text), nodes: 0 };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(_), _) => {
                let event = reader.next()?;
                let node = reader.node(event, 0)?;
                if !node.is_null() {
                    documents.push(node);
                }
            }
            _ => {}
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Unreadable> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            // Its own words may hold a part of the file.
            Some(Err(error)) => Err(Unreadable::at(error.marker().line(), "no YAML that can be read")),
            None => Err(Unreadable::at(0, "the YAML ends before its end")),
        }
    }

    fn node(&mut self, (event, span): (Event<'t>, Span), depth: usize) -> Result<Node, Unreadable> {
        let line = span.start.line();
        let wrong = |why: &str| Err(Unreadable::at(line, why));
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > 8 * MAX_ENTRIES {
            return wrong("too deep, or too much of it");
        }
        let kind = match event {
            Event::Scalar(text, style, 0, None) => Kind::Text {
                text: Zeroizing::new(Cow::into_owned(text)),
                is_plain: style == ScalarStyle::Plain,
            },
            Event::MappingStart(0, None) => Kind::Map(self.map(depth)?),
            Event::SequenceStart(0, None) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Kind::List(items),
                        event => items.push(self.node(event, depth + 1)?),
                    }
                }
            }
            Event::Alias(_) | Event::Scalar(..) | Event::MappingStart(..) | Event::SequenceStart(..) => {
                return wrong("anchors, aliases and tags are not taken");
            }
            _ => return wrong("no YAML that can be read"),
        };
        Ok(Node { line, kind })
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(String, Node)>, Unreadable> {
        let mut fields: Vec<(String, Node)> = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.0, Event::MappingEnd) {
                return Ok(fields);
            }
            let key = self.node(event, depth + 1)?;
            let Some(name) = key.text() else {
                return Err(Unreadable::at(key.line, "a name that is no text"));
            };
            if fields.iter().any(|(field, _)| field == name) {
                return Err(Unreadable::at(key.line, "a name that is there twice"));
            }
            let event = self.next()?;
            let name = name.to_owned();
            fields.push((name, self.node(event, depth + 1)?));
        }
    }
}
