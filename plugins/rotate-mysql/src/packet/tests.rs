//! Packets as the manual has them, and some that are none.

use super::*;

fn sample(version: &str, able: u32, method: &str) -> Vec<u8> {
    let [a, b, c, d] = able.to_le_bytes();
    let mut body = vec![10];
    body.extend_from_slice(version.as_bytes());
    body.extend_from_slice(b"\0\x07\0\0\0abcdefgh\0");
    body.extend_from_slice(&[a, b, 45, 2, 0, c, d, 21]);
    body.extend_from_slice(&[0; 10]);
    body.extend_from_slice(b"ijklmnopqrst\0");
    body.extend_from_slice(method.as_bytes());
    body.push(0);
    body
}

#[test]
fn a_greeting_tells_which_server_it_is_and_what_it_has() {
    let body = sample("5.5.5-10.11.14-MariaDB-0+deb12u2", NEEDED | TLS, "mysql_native_password");
    let read = greeting(&body).unwrap();
    assert!(read.is_mariadb && read.has_tls && read.is_recent);
    assert_eq!((&read.nonce, read.method), (b"abcdefghijklmnopqrst", Some(Method::Native)));
    let read = greeting(&sample("8.4.3", NEEDED, "caching_sha2_password")).unwrap();
    assert!(!read.is_mariadb && !read.has_tls);
    assert_eq!(read.method, Some(Method::CachingSha2));
    assert!(!greeting(&sample("4.0", PROTOCOL_41, "")).unwrap().is_recent);
    for cut in 0..body.len() - 24 {
        assert_eq!(greeting(&body[..cut]), None, "{cut}");
    }
}

#[test]
fn what_a_server_answers_is_read() {
    assert_eq!(head(*b"\x07\0\0\x02"), Some((7, 2)));
    assert_eq!(head(*b"\0\0\0\x02"), None);
    assert_eq!(head(*b"\x01\0\x01\x02"), None);
    assert_eq!(read(b"\0\0\0\x02\0\0\0"), Some(Packet::Done { backslash_escapes: true }));
    assert_eq!(read(b"\0\0\0\x02\x02\0\0"), Some(Packet::Done { backslash_escapes: false }));
    assert_eq!(read(b"\xff\x15\x04#28000Access denied for user"), Some(Packet::Error(1045)));
    let switch = b"\xfemysql_native_password\0abcdefghijklmnopqrst\0";
    assert_eq!(read(switch), Some(Packet::Switch(Some((Method::Native, *b"abcdefghijklmnopqrst")))));
    assert_eq!(read(b"\xfeclient_ed25519\0abcdefghijklmnopqrst\0"), Some(Packet::Switch(None)));
    assert_eq!(read(b"\xfemysql_native_password\0short"), Some(Packet::Switch(None)));
    assert_eq!(read(b"\x01\x03"), Some(Packet::More(&[3])));
    for odd in [&b""[..], b"\0", b"\0\0\0\x02", b"\xff\x15", b"\xfeno end of it"] {
        assert_eq!(read(odd), None, "{odd:?}");
    }
}

#[test]
fn a_table_is_read() {
    assert_eq!(
        (columns(b"\x02"), columns(b"\0"), columns(b"\x11"), columns(b"\x02\0")),
        (Some(2), None, None, None)
    );
    assert!(is_end(b"\xfe\0\0\x02\0") && !is_end(b"\x01\x31"));
    assert_eq!(row(b"\x011\xfb", 2), Some(vec![Some(&b"1"[..]), None]));
    assert_eq!(row(b"\xfc\x01\0a", 1), Some(vec![Some(&b"a"[..])]));
    for odd in [&b"\x02a"[..], b"\x01ab", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffa", b"\xff", b""] {
        assert_eq!(row(odd, 1), None, "{odd:?}");
    }
}

#[test]
fn what_we_say_is_as_the_manual_has_it() {
    assert_eq!(query("SELECT 1"), b"\x09\0\0\0\x03SELECT 1");
    assert_eq!(quit(), b"\x01\0\0\0\x01");
    let said = hello(
        1,
        &Hello { user: "app", database: Some("shop"), tls: true, method: Method::Native, proof: &[7; 20] },
    );
    assert_eq!(said[..4], [(said.len() - 4) as u8, 0, 0, 1]);
    assert_eq!(said[36..40], *b"app\0");
    assert_eq!(said[40..41], [20]);
    assert_eq!(said[61..], *b"shop\0mysql_native_password\0");
    // Files of ours, several statements at once: neither is ever offered.
    let able = u32::from_le_bytes([said[4], said[5], said[6], said[7]]);
    assert_eq!(able & (1 << 7 | 1 << 16), 0);
    assert_eq!(tls_request(1, Some("shop"))[4..], said[4..36]);
}
