//! Shamir's secret sharing over GF(256): any `threshold` shares give the secret, fewer give nothing at all (Shamir 1979). Ours, since
//! the crates at hand look secret bytes up in tables, whose cache lines tell of them, or bring sixty crates for these few lines.
//! Nothing here branches or indexes on a secret; the numbers of shares are public.

use keymill_core::Sensitive;

/// Shares of a secret, at most: more custodians than that are no ceremony.
pub(super) const MAX_SHARES: u8 = 32;

/// One share: the value of each byte's polynomial at `at`.
pub(super) struct Share {
    /// From 1: at 0 stands the secret.
    pub(super) at: u8,
    /// As many bytes as the secret has.
    pub(super) values: Sensitive,
}

/// Splits `secret` into `count` shares of which any `threshold` give it back. `draw` fills with random bytes; each coefficient may
/// be any value, zero included, or shares would tell something (RUSTSEC-2024-0398).
pub(super) fn split<E>(
    secret: &Sensitive,
    threshold: u8,
    count: u8,
    draw: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Vec<Share>, E> {
    assert!((1..=count).contains(&threshold) && count <= MAX_SHARES, "checked by whoever asks");
    let length = secret.len();
    // The coefficients of x, x², …, each as many bytes as the secret has.
    let mut coefficients = Sensitive::zeroed(length * usize::from(threshold - 1));
    draw(coefficients.expose_mut())?;
    let share = |at| {
        let mut values = Sensitive::zeroed(length);
        for (index, value) in values.expose_mut().iter_mut().enumerate() {
            let of_x = coefficients.expose().chunks_exact(length).rev().map(|each| each[index]);
            // Horner's rule, from the highest coefficient down to the secret.
            *value = of_x.fold(0, |sum, coefficient| multiplied(sum ^ coefficient, at));
            *value ^= secret.expose()[index];
        }
        Share { at, values }
    };
    Ok((1..=count).map(share).collect())
}

/// Returns the secret of shares of one length, all different.
pub(super) fn combine(shares: &[Share]) -> Sensitive {
    interpolate(shares, 0)
}

/// Returns what the polynomials through the shares have at `at` (Lagrange).
fn interpolate(shares: &[Share], at: u8) -> Sensitive {
    let mut out = Sensitive::zeroed(shares.first().map_or(0, |share| share.values.len()));
    for share in shares {
        let others = shares.iter().filter(|other| other.at != share.at);
        let weight = others.fold(1, |product, other| {
            multiplied(product, multiplied(at ^ other.at, inverted(share.at ^ other.at)))
        });
        for (sum, value) in out.expose_mut().iter_mut().zip(share.values.expose()) {
            *sum ^= multiplied(*value, weight);
        }
    }
    out
}

/// Multiplies in GF(2^8) modulo x⁸ + x⁴ + x³ + x + 1 (FIPS 197 §4.2), the same steps whatever the numbers.
fn multiplied(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    for _ in 0..8 {
        product ^= a & 0u8.wrapping_sub(b & 1);
        a = (a << 1) ^ (0x1b & 0u8.wrapping_sub(a >> 7));
        b >>= 1;
    }
    product
}

/// Returns 1/a, which is a^254; 0 of 0.
fn inverted(a: u8) -> u8 {
    // 254 = 2 + 4 + 8 + … + 128.
    let (mut square, mut inverse) = (a, 1);
    for _ in 0..7 {
        square = multiplied(square, square);
        inverse = multiplied(inverse, square);
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn bytes(digits: &str) -> Sensitive {
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        Sensitive::new((0..digits.len()).step_by(2).map(byte).collect())
    }

    fn share(at: u8, digits: &str) -> Share {
        Share { at, values: bytes(digits) }
    }

    #[test]
    fn the_field_is_that_of_fips_197() {
        // §4.2 and §4.2.1.
        assert_eq!(multiplied(0x57, 0x83), 0xc1);
        assert_eq!(multiplied(0x57, 0x13), 0xfe);
        for a in 1..=255 {
            assert_eq!(multiplied(a, inverted(a)), 1, "{a}");
            assert_eq!((multiplied(a, 0), multiplied(a, 1)), (0, a));
        }
        assert_eq!(inverted(0), 0);
    }

    /// SLIP-0039 shares in the same field, with the secret at 255 and a digest of it at 254. These are its test vectors 23 (2 of 3) and
    /// 37 (3 of 5, from a group), the words turned into bytes.
    #[test]
    fn published_shares_give_their_published_secret() {
        let shares = [
            share(2, "81e5473f4b7f66094f888d2f98fe0ded6a692dc72c65dc498d6e28bee6ebdfcc"),
            share(1, "19e366e9b2e34851e52132c31c2b2c957321bf5ce6c9c1410ea1ddf5fef92c27"),
        ];
        let secret = bytes("0204622ff84267b5dae0ca4e0c1328d6611b96b92b11692e5a7542314f7a54ee");
        let digest = bytes("83067d94af367d74bc8756e370a937fe9f2311396d7562dfd2301108477405b7");
        assert_eq!(interpolate(&shares, 255).expose(), secret.expose());
        assert_eq!(interpolate(&shares, 254).expose(), digest.expose());
        // Shares number 0 there; here that is the secret, and the field does not mind.
        let shares = [
            share(0, "82a363ed145a49a4e37311253c105846c0afb13b74e5ddda9cc25d7aae49bc89"),
            share(1, "d127f1f9bc12e3856fb3983104783b71480d249d80101568def4a41100177dfb"),
            share(4, "4bde8a604105f3a6c32f2f547131aafea756725a28e80a14d59d8f05c4adcca5"),
        ];
        let secret = bytes("09555b11c4d1cc8fc96163c81b110bbbd46c1bcb4c8488632de2dbb5c4bd9299");
        assert_eq!(interpolate(&shares, 255).expose(), secret.expose());
        assert_eq!(combine(&shares).expose(), shares[0].values.expose());
    }

    #[test]
    fn any_threshold_of_shares_gives_the_secret_and_fewer_do_not() {
        let secret = bytes("00ff10200102a5c3");
        let mut state = 1u8;
        let draw = |out: &mut [u8]| {
            out.iter_mut().for_each(|byte| {
                state = state.wrapping_mul(141).wrapping_add(3);
                *byte = state;
            });
            Ok::<_, Infallible>(())
        };
        let Ok(shares) = split(&secret, 3, 5, draw);
        let chosen = |which: &[usize]| -> Vec<Share> {
            which
                .iter()
                .map(|index| Share {
                    at: shares[*index].at,
                    values: Sensitive::copied(shares[*index].values.expose()),
                })
                .collect()
        };
        for which in [[0, 1, 2], [4, 2, 0], [1, 3, 4], [3, 2, 1]] {
            assert_eq!(combine(&chosen(&which)).expose(), secret.expose(), "{which:?}");
        }
        assert_eq!(combine(&chosen(&[0, 1, 2, 3, 4])).expose(), secret.expose());
        for which in [[0, 1], [2, 4]] {
            assert_ne!(combine(&chosen(&which)).expose(), secret.expose(), "{which:?}");
        }
    }

    /// Two shares of a threshold of three fit every secret: for each there is a third share that gives it.
    #[test]
    fn fewer_shares_than_the_threshold_fit_every_secret_alike() {
        for secret in 0..=255u8 {
            let points =
                [share(1, "5a"), share(2, "c3"), Share { at: 0, values: Sensitive::new(vec![secret]) }];
            let third = Share { at: 3, values: interpolate(&points, 3) };
            let back = combine(&[share(1, "5a"), share(2, "c3"), third]);
            assert_eq!(back.expose(), [secret]);
        }
    }
}
