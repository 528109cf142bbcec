//! What the rotators of databases read: values of logins, and what servers say.

/// The value of a login: what is read is written again to what reads alike.
pub(crate) mod value {
    use keymill_rotate_database::Login;

    use crate::memory::{room, within};
    use crate::target::Seed;

    /// Reads one login, and several.
    pub(crate) fn check(bytes: &[u8]) {
        let read = within(room(bytes.len()), || (Login::read(bytes), Login::read_all(bytes)));
        for login in read.0.into_iter().chain(read.1.into_iter().flatten()) {
            let written = login.write();
            let again = Login::read(written.expose()).expect("what we write is what we read");
            assert_eq!((&again.name, again.password()), (&login.name, login.password()));
            // Neither leaves the quotes that a statement would put it in.
            assert!(login.name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.$".contains(&c)));
            assert!(login.password().bytes().all(|c| (b' '..=b'~').contains(&c)));
        }
    }

    pub(crate) fn seeds() -> Vec<Seed> {
        let one = br#"{"AccountName":"app_a","AccountPassword":"a'\"\\b"}"#;
        let all = [&br#"{"Accounts":["#[..], one, b",", one, b"]}"].concat();
        vec![("login", one.to_vec()), ("accounts", all)]
    }
}

/// What a PostgreSQL says: the kind of a message, and its body.
pub(crate) mod postgresql {
    use keymill_rotate_postgresql::message::{self, Challenge, Message};

    use crate::memory::{room, within};
    use crate::target::Seed;

    /// Reads the head of a message, a message, and a challenge.
    pub(crate) fn check(bytes: &[u8]) {
        if let Some((_, body)) = bytes.first_chunk().and_then(|head| message::head(*head)) {
            assert!(body <= message::MAX_BODY);
        }
        let Some((kind, body)) = bytes.split_first() else { return };
        within(room(bytes.len()), || {
            if let Some(Challenge { nonce, salt, iterations }) = Challenge::read(body) {
                assert!(nonce.len() + salt.len() < body.len() && iterations.get() <= 1_000_000);
            }
            match message::read(*kind, body) {
                Some(Message::Row(row)) => {
                    let told: usize = row.iter().map(|column| 4 + column.map_or(0, <[u8]>::len)).sum();
                    assert_eq!(2 + told, body.len());
                }
                Some(Message::Error(Some(state))) => {
                    assert!(state.len() == 5 && state.bytes().all(|c| c.is_ascii_alphanumeric()));
                }
                _ => {}
            }
        });
    }

    pub(crate) fn seeds() -> Vec<Seed> {
        vec![
            ("sasl", b"R\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0".to_vec()),
            ("challenge", b"Rr=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".to_vec()),
            ("error", b"ESFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0".to_vec()),
            ("row", b"D\0\x02\0\0\0\x011\0\0\0\x03app".to_vec()),
        ]
    }
}

/// What a MariaDB or MySQL says: the bodies of packets.
pub(crate) mod mysql {
    use keymill_rotate_mysql::packet::{self, Packet};

    use crate::memory::{room, within};
    use crate::target::Seed;

    /// Reads the head of a packet, and the rest as a greeting, an answer, a number of columns, and a row of as many as the first byte says.
    pub(crate) fn check(bytes: &[u8]) {
        if let Some((body, _)) = bytes.first_chunk().and_then(|head| packet::head(*head)) {
            assert!((1..=packet::MAX_BODY).contains(&body));
        }
        within(room(bytes.len()), || {
            let _greeting = packet::greeting(bytes);
            if let Some(Packet::More(rest) | Packet::Other(rest)) = packet::read(bytes) {
                assert!(rest.len() <= bytes.len());
            }
            let Some((columns, row)) = bytes.split_first() else { return };
            assert!(packet::columns(bytes).is_none_or(|columns| (1..=16).contains(&columns)));
            if let Some(columns) = packet::row(row, usize::from(*columns)) {
                let told: usize = columns.iter().map(|column| 1 + column.map_or(0, <[u8]>::len)).sum();
                assert!(told <= row.len());
            }
        });
    }

    pub(crate) fn seeds() -> Vec<Seed> {
        let mut greeting = b"\x0a5.5.5-10.11.14-MariaDB\0\x07\0\0\0abcdefgh\0".to_vec();
        greeting.extend_from_slice(&[0xfe, 0xff, 45, 2, 0, 0xff, 0x81, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        greeting.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
        vec![
            ("greeting", greeting),
            ("switch", b"\xfecaching_sha2_password\0abcdefghijklmnopqrst\0".to_vec()),
            ("error", b"\xff\x15\x04#28000Access denied".to_vec()),
            ("done", b"\0\0\0\x02\0\0\0".to_vec()),
            ("row", b"\x02\x011\x05app@%".to_vec()),
        ]
    }
}
