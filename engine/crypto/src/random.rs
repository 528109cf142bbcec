//! Randomness for nonces, prefixes and keys: getrandom(2) XOR the library's generator, drawn for each call and never kept.
//! A resumed clone of the machine replays the library's state, which does not notice being cloned; the kernel's does.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use keymill_core::{Error, ErrorKind};
use zeroize::Zeroizing;

/// Bytes of the library's generator that are held at once, on the stack.
const SCRATCH_BYTES: usize = 512;

/// Fills `out` with random bytes of both sources.
///
/// # Errors
/// [`RandomFailed`] where either source fails; `out` is zero then.
pub fn draw(out: &mut [u8]) -> Result<(), RandomFailed> {
    draw_from(&operating_system, &library, out)
}

/// Draws `N` random bytes of both sources.
///
/// # Errors
/// [`RandomFailed`] where either source fails.
pub fn array<const N: usize>() -> Result<[u8; N], RandomFailed> {
    let mut out = [0; N];
    draw(&mut out)?;
    Ok(out)
}

/// A source of random bytes, so that tests can replay one of them.
pub(crate) type Source<'a> = &'a dyn Fn(&mut [u8]) -> Result<(), RandomFailed>;

/// Fills `out` with `os` XOR `lib`.
pub(crate) fn draw_from(os: Source<'_>, lib: Source<'_>, out: &mut [u8]) -> Result<(), RandomFailed> {
    let drawn = os(out).and_then(|()| {
        let mut scratch = Zeroizing::new([0; SCRATCH_BYTES]);
        out.chunks_mut(SCRATCH_BYTES).try_for_each(|chunk| {
            let scratch = &mut scratch[..chunk.len()];
            lib(scratch)?;
            chunk.iter_mut().zip(scratch.iter()).for_each(|(byte, other)| *byte ^= other);
            Ok(())
        })
    });
    if drawn.is_err() {
        // Half a draw is no draw: a caller that went on would have one source, or none.
        out.fill(0);
    }
    drawn
}

pub(crate) fn operating_system(out: &mut [u8]) -> Result<(), RandomFailed> {
    getrandom::fill(out).map_err(|_| RandomFailed::OperatingSystem)
}

fn library(out: &mut [u8]) -> Result<(), RandomFailed> {
    SystemRandom::new().fill(out).map_err(|_| RandomFailed::Library)
}

/// A source of randomness failed, so nothing may be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RandomFailed {
    /// getrandom(2).
    OperatingSystem,
    /// The generator of the cryptographic library.
    Library,
}

impl fmt::Display for RandomFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RandomFailed::OperatingSystem => "the operating system gave no random bytes",
            RandomFailed::Library => "the generator of the cryptographic library failed",
        })
    }
}

impl std::error::Error for RandomFailed {}

impl From<RandomFailed> for Error {
    fn from(error: RandomFailed) -> Self {
        Error::new(ErrorKind::Unavailable, "no randomness is available").caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sources_are_combined_over_every_length() {
        for len in [0, 1, 12, SCRATCH_BYTES - 1, SCRATCH_BYTES, SCRATCH_BYTES + 1, 3 * SCRATCH_BYTES + 5] {
            let mut out = vec![0xee; len];
            let os = |out: &mut [u8]| {
                out.fill(0x0f);
                Ok(())
            };
            let lib = |out: &mut [u8]| {
                out.fill(0xf5);
                Ok(())
            };
            draw_from(&os, &lib, &mut out).unwrap();
            assert_eq!(out, vec![0xfa; len]);
        }
    }

    #[test]
    fn failure_of_either_source_is_an_error_and_leaves_no_half_random_bytes() {
        for (os_fails, expected) in [(true, RandomFailed::OperatingSystem), (false, RandomFailed::Library)] {
            let os = |out: &mut [u8]| {
                out.fill(0x5a);
                if os_fails { Err(RandomFailed::OperatingSystem) } else { Ok(()) }
            };
            let lib = |_: &mut [u8]| Err(RandomFailed::Library);
            let mut out = [0xee; 40];
            assert_eq!(draw_from(&os, &lib, &mut out), Err(expected));
            assert_eq!(out, [0; 40]);
        }
    }

    #[test]
    fn each_source_alone_keeps_draws_apart_when_the_other_repeats() {
        let stuck = |out: &mut [u8]| {
            out.fill(7);
            Ok(())
        };
        let pair = |os: Source<'_>, lib: Source<'_>| {
            let mut pair = [[0; 16]; 2];
            pair.iter_mut().for_each(|out| draw_from(os, lib, out).unwrap());
            pair
        };
        for [a, b] in [pair(&stuck, &library), pair(&operating_system, &stuck)] {
            assert_ne!(a, b);
        }
        assert_ne!(array::<32>().unwrap(), array::<32>().unwrap());
    }
}
