//! Answers as XML, for who asks for `Format=XML`: the members of the JSON answer as elements, the entries of a list as an element each.

use serde_json::Value;

/// Writes an answer under its root element, `KMS` or `Error`. `None` where it is no JSON object, a member's name is none of the API's, or text holds what XML
/// 1.0 (§2.2) has no way to write.
pub fn write(root: &str, json: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(json).ok().filter(Value::is_object)?;
    let mut out = String::with_capacity(json.len() * 2);
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    element(root, &value, &mut out)?;
    Some(out)
}

fn element(name: &str, value: &Value, out: &mut String) -> Option<()> {
    if let Value::Array(entries) = value {
        return entries.iter().try_for_each(|entry| element(name, entry, out));
    }
    let is_sound = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_sound {
        return None;
    }
    out.extend(["<", name, ">"]);
    match value {
        Value::Object(members) => members.iter().try_for_each(|(name, member)| element(name, member, out))?,
        Value::String(text) => escape(text, out)?,
        Value::Null => {}
        other => out.push_str(&other.to_string()),
    }
    out.extend(["</", name, ">"]);
    Some(())
}

fn escape(text: &str, out: &mut String) -> Option<()> {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}' => return None,
            c => out.push(c),
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_become_elements_and_entries_an_element_each() {
        let json = br#"{"Keys":{"Key":[{"KeyId":"a"},{"KeyId":"<b>&\""}]},"None":null,"On":true,"RequestId":"r","TotalCount":2}"#;
        assert_eq!(
            write("KMS", json).unwrap(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<KMS><Keys><Key><KeyId>a</KeyId></Key><Key><KeyId>&lt;b&gt;&amp;&quot;</KeyId></Key></Keys><None></None><On>true</On><RequestId>r</RequestId><TotalCount>2</TotalCount></KMS>"
        );
        assert_eq!(write("KMS", b"[1]"), None);
        assert_eq!(write("KMS", b"{"), None);
        assert_eq!(write("KMS", br#"{"a><b":1}"#), None);
        assert_eq!(write("KMS", br#"{"a":"\u0000"}"#), None);
    }
}
