//! A secret typed at the terminal, unseen. Keys are read one by one, so that an interrupt can put the terminal right before it ends
//! the command.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use keymill_core::Sensitive;
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};

use super::deadline::Waiting;
use crate::failure::{Failure, Result};

/// Bytes of a typed secret, at most.
const MAX_BYTES: usize = 256;

/// Tells whether there is somebody to ask.
pub(super) fn possible() -> bool {
    io::stdin().is_terminal()
}

/// Asks for a secret; `twice` where nobody else knows it yet and a slip would be kept.
pub(super) fn ask(what: &str, twice: bool) -> Result<Sensitive> {
    let first = ask_once(what)?;
    if twice && ask_once(&format!("{what}, once more"))?.expose() != first.expose() {
        return Err(Failure::new(format!("{what}: the two are not the same")).next("run the command again"));
    }
    Ok(first)
}

/// Asks for a line that may be seen.
pub(super) fn line(question: &str) -> Result<String> {
    let failed = |error: io::Error| Failure::new(format!("the terminal: {error}"));
    let _waiting = Waiting::begin();
    let mut out = io::stderr();
    write!(out, "{question}: ").and_then(|()| out.flush()).map_err(failed)?;
    let mut typed = String::new();
    match io::stdin().read_line(&mut typed).map_err(failed)? {
        0 => Err(Failure::new("interrupted, and nothing was done")),
        _ => Ok(typed.trim_end_matches(['\r', '\n']).to_owned()),
    }
}

fn ask_once(what: &str) -> Result<Sensitive> {
    let _waiting = Waiting::begin();
    let failed = |error: io::Error| Failure::new(format!("the terminal: {error}"));
    // A file of its own: standard input's buffer would keep what was typed.
    let terminal = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let mut out = io::stderr();
    let typed = {
        let _quiet = Quiet::make(&terminal).map_err(|errno| failed(errno.into()))?;
        write!(out, "{what}: ").and_then(|()| out.flush()).map_err(failed)?;
        keys(&mut &terminal)
    };
    let _ = writeln!(out);
    typed.map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Failure::new("interrupted, and nothing was done"),
        _ => failed(error),
    })
}

/// A terminal that shows nothing and sends each key as it is, until this is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn make(terminal: &'a File) -> nix::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        quiet.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        quiet.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        // What was typed before the prompt was typed for something else.
        tcsetattr(terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Where it fails, the terminal is gone.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

/// Reads keys up to the one that ends the line.
fn keys(keys: &mut impl Read) -> io::Result<Sensitive> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACE: u8 = 8;
    const CLEAR: u8 = 21;
    const DELETE: u8 = 127;
    let mut typed = Sensitive::zeroed(MAX_BYTES);
    let mut length = 0;
    let mut key = [0];
    loop {
        if keys.read(&mut key)? == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match key[0] {
            b'\r' | b'\n' => return Ok(Sensitive::copied(&typed.expose()[..length])),
            INTERRUPT | END => return Err(io::ErrorKind::Interrupted.into()),
            CLEAR => length = 0,
            BACKSPACE | DELETE => {
                // A character of UTF-8 goes as a whole.
                while length > 0 {
                    length -= 1;
                    if typed.expose()[length] & 0xc0 != 0x80 {
                        break;
                    }
                }
            }
            control if control < b' ' => {}
            _ if length == MAX_BYTES => return Err(io::Error::other(format!("more than {MAX_BYTES} bytes"))),
            byte => {
                typed.expose_mut()[length] = byte;
                length += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> io::Result<Vec<u8>> {
        super::keys(&mut &keys[..]).map(|line| line.expose().to_vec())
    }

    #[test]
    fn keys_are_taken_back_and_the_line_ends_at_return() {
        assert_eq!(typed(b"12x\x7f34\r56\r").unwrap(), b"1234");
        assert_eq!(typed(b"wrong\x15right\n").unwrap(), b"right");
        assert_eq!(typed("aé\x08b\n".as_bytes()).unwrap(), b"ab");
        assert_eq!(typed(b"\x7f\x7fa\x1b\n").unwrap(), b"a");
    }

    #[test]
    fn an_interrupt_the_end_and_a_cat_on_the_keyboard_give_no_secret() {
        for keys in [&b"12\x03\n"[..], b"12\x04\n", b"12"] {
            assert_eq!(typed(keys).unwrap_err().kind(), io::ErrorKind::Interrupted);
        }
        let mut long = vec![b'x'; MAX_BYTES + 1];
        long.push(b'\n');
        assert!(typed(&long).unwrap_err().to_string().contains("256"));
        assert_eq!(typed(&long[1..]).unwrap().len(), MAX_BYTES);
    }
}
