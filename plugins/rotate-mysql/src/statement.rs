//! The statements that set a password. MariaDB takes what it would keep of it, so that no log shows the password; MySQL takes that from
//! nobody but those who may make accounts, and leaves passwords out of its own logs instead.

use std::fmt::Write as _;

use keymill_core::Sensitive;
use zeroize::Zeroizing;

use crate::hash::native;

/// How a server is talked to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) is_mariadb: bool,
    pub(crate) backslash_escapes: bool,
}

/// An account in full, or the one that has logged in.
pub(crate) type Account<'a> = Option<(&'a str, &'a str)>;

/// Sets a password.
pub(crate) fn set(dialect: Dialect, account: Account<'_>, password: &Sensitive) -> Zeroizing<String> {
    let full = account.map(|(name, host)| format!("{}@{}", *quoted(dialect, name), *quoted(dialect, host)));
    if dialect.is_mariadb {
        let whose = full.map(|full| format!(" FOR {full}")).unwrap_or_default();
        return Zeroizing::new(format!("SET PASSWORD{whose} = '{}'", native(password)));
    }
    let password = quoted(dialect, std::str::from_utf8(password.expose()).expect("it is ASCII"));
    let whose = full.as_deref().unwrap_or("USER()");
    // With room for all of it there is one copy, which is wiped.
    let mut sql = Zeroizing::new(String::with_capacity(64 + whose.len() + password.len()));
    write!(sql, "ALTER USER {whose} IDENTIFIED BY {}", *password).expect("text is written to memory");
    sql
}

/// Quotes text of printable ASCII, which is the same in the server's encoding of the connection.
fn quoted(dialect: Dialect, text: &str) -> Zeroizing<String> {
    let mut quoted = Zeroizing::new(String::with_capacity(2 + 2 * text.len()));
    quoted.push('\'');
    for c in text.chars() {
        if c == '\'' || c == '\\' && dialect.backslash_escapes {
            quoted.push(c);
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(is_mariadb: bool, backslash_escapes: bool, account: Account<'_>, password: &str) -> String {
        set(Dialect { is_mariadb, backslash_escapes }, account, &Sensitive::copied(password.as_bytes()))
            .to_string()
    }

    #[test]
    fn mariadb_is_told_a_hash() {
        let hash = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19";
        assert_eq!(sql(true, true, None, "password"), format!("SET PASSWORD = '{hash}'"));
        let other = sql(true, true, Some(("app", "%")), "password");
        assert_eq!(other, format!("SET PASSWORD FOR 'app'@'%' = '{hash}'"));
    }

    #[test]
    fn mysql_is_told_a_password_that_cannot_leave_its_quotes() {
        assert_eq!(sql(false, true, None, r"a'\"), r"ALTER USER USER() IDENTIFIED BY 'a''\\'");
        assert_eq!(sql(false, false, None, r"a'\"), r"ALTER USER USER() IDENTIFIED BY 'a''\'");
        assert_eq!(sql(false, true, Some(("app", "10.%")), "p"), "ALTER USER 'app'@'10.%' IDENTIFIED BY 'p'");
    }
}
