use super::*;
use crate::key::generate;

/// Returns what is wrong with a key.
fn refusal(spec: KeySpec, usage: KeyUsage, pkcs8: &[u8]) -> String {
    match pair(spec, usage, &Sensitive::copied(pkcs8)) {
        Ok(_) => panic!("{} took it", spec.name()),
        Err(why) => why,
    }
}

/// Writes one element of DER.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match content.len() {
        short @ 0..0x80 => vec![short as u8],
        long @ 0x80..0x100 => vec![0x81, long as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [&[tag][..], &length, &content].concat()
}

/// Writes a number of bytes without leading zeroes.
fn integer(number: &[u8]) -> Vec<u8> {
    let sign = if number.first().is_none_or(|first| *first >= 0x80) { &[0][..] } else { &[] };
    element(2, &[sign, number])
}

fn pkcs8(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    element(0x30, &[&[2, 1, 0], algorithm, &element(4, &[key])])
}

/// rsaEncryption, and its NULL.
const RSA: [u8; 15] = [0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];

fn rsa_of(numbers: &[Vec<u8>; 8]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| integer(number)).collect();
    pkcs8(&RSA, &element(0x30, &[&[2, 1, 0], &numbers]))
}

/// The numbers of a new key of RSA-2048.
fn rsa_numbers() -> [Vec<u8>; 8] {
    let (material, _) = generate(KeySpec::Rsa2048).unwrap();
    let info = PrivateKeyInfoRef::from_der(material.expose()).unwrap();
    numbers(info.private_key.as_bytes()).unwrap().map(<[u8]>::to_vec)
}

#[test]
fn a_key_of_rsa_is_taken_as_it_is_and_refused_for_each_number_that_is_not_as_it_must_be() {
    let whole = rsa_numbers();
    let usage = KeyUsage::SignVerify;
    let (material, _) = pair(KeySpec::Rsa2048, usage, &Sensitive::new(rsa_of(&whole))).unwrap();
    assert_eq!(material.expose(), rsa_of(&whole));

    let change = |at: usize, number: Vec<u8>| {
        let mut numbers = whole.clone();
        numbers[at] = number;
        refusal(KeySpec::Rsa2048, usage, &rsa_of(&numbers))
    };
    let (n, e, d, p, q) = (0, 1, 2, 3, 4);
    let other = |number: &[u8]| {
        let mut number = number.to_vec();
        number[40] ^= 1;
        number
    };
    assert_eq!(change(n, whole[n][..128].to_vec()), "a modulus of 1024 bits is none of RSA_2048");
    let short = [&[whole[n][0] & 0x7f | 0x40], &whole[n][1..]].concat();
    assert_eq!(change(n, short), "a modulus of 2047 bits is none of RSA_2048");
    assert_eq!(
        refusal(KeySpec::Rsa3072, usage, &rsa_of(&whole)),
        "a modulus of 2048 bits is none of RSA_3072"
    );
    let exponent = "its public exponent is not an odd number of 17 to 33 bits";
    for small in [vec![], vec![1], vec![2], vec![3], vec![0xff, 0xff], vec![1, 0, 0], vec![3, 0, 0, 0, 1]] {
        assert_eq!(change(e, small), exponent);
    }
    assert_eq!(change(q, whole[p].clone()), "its primes are not two of 1024 bits");
    assert_eq!(change(p, vec![1]), "its primes are not two of 1024 bits");
    assert_eq!(change(p, whole[n].clone()), "its primes are not two of 1024 bits");
    for short in [vec![], vec![3], whole[d][..128].to_vec(), [&[1][..], &whole[n]].concat()] {
        assert_eq!(change(d, short), "its private exponent does not have 1025 to 2048 bits");
    }
    let apart = "the parts of a key of RSA_2048 are out of range, or do not belong together";
    assert_eq!(change(e, vec![1, 0, 3]), apart);
    for at in [n, d, p, q, 5, 6, 7] {
        assert_eq!(change(at, other(&whole[at])), apart, "number {at}");
    }
    // d mod p - 1 and the others may not be left out, nor the primes.
    assert_eq!(change(7, vec![]), apart);
    let mut bare = whole.clone();
    bare[3..].fill(Vec::new());
    assert_eq!(refusal(KeySpec::Rsa2048, usage, &rsa_of(&bare)), "its primes are not two of 1024 bits");
    let cut = pkcs8(&RSA, &element(0x30, &[&[2, 1, 0], &integer(&whole[n]), &integer(&whole[e])]));
    let none = "it holds no private key of RSA with two primes";
    assert_eq!(refusal(KeySpec::Rsa2048, usage, &cut), none);
    // Version 1 is of more than two primes.
    let numbers: Vec<u8> = whole.iter().flat_map(|number| integer(number)).collect();
    let several = pkcs8(&RSA, &element(0x30, &[&[2, 1, 1], &numbers]));
    assert_eq!(refusal(KeySpec::Rsa2048, usage, &several), none);
}

#[test]
fn a_scalar_is_in_its_range_and_the_point_beside_it_is_its_own() {
    // The names of the algorithm and the curve, and the order of its group (SEC 2; GB/T 32918.5).
    let curves: [(KeySpec, &[u8], &str); 4] = [
        (
            KeySpec::EcP256,
            &[
                0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3,
                1, 7,
            ],
            "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        ),
        (
            KeySpec::EcP384,
            &[0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22],
            concat!(
                "ffffffffffffffffffffffffffffffffffffffffffffffff",
                "c7634d81f4372ddf581a0db248b0a77aecec196accc52973"
            ),
        ),
        (
            KeySpec::EcP256K,
            &[0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x0a],
            "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        ),
        (
            KeySpec::EcSm2,
            &[
                0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 1,
                0x82, 0x2d,
            ],
            "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123",
        ),
    ];
    let digits = |hex: &str| -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..][..2], 16).unwrap()).collect()
    };
    for (spec, algorithm, order) in curves {
        let usage = KeyUsage::SignVerify;
        let apart =
            format!("the parts of a key of {} are out of range, or do not belong together", spec.name());
        // RFC 5915, with the public key or without.
        let bare = |scalar: &[u8]| pkcs8(algorithm, &element(0x30, &[&[2, 1, 1], &element(4, &[scalar])]));
        let order = digits(order);
        let bytes = order.len();
        let less = |by: u8| [&order[..bytes - 1], &[order[bytes - 1] - by]].concat();
        let mut five = vec![0; bytes];
        five[bytes - 1] = 5;
        let (material, public) = pair(spec, usage, &Sensitive::new(bare(&five))).unwrap();
        // The point of 5 and that of n - 5 are each other's negative: they have one x.
        let (_, negative) = pair(spec, usage, &Sensitive::new(bare(&less(5)))).expect("n - 5 is a key");
        let x = public.as_der().len() - 2 * bytes..public.as_der().len() - bytes;
        assert_eq!(public.as_der()[x.clone()], negative.as_der()[x], "{}", spec.name());
        assert_ne!(public, negative);
        let again = pair(spec, usage, &material).expect("what was taken is taken again");
        assert_eq!((again.0.expose(), again.1), (material.expose(), public.clone()));

        for out in [vec![0; bytes], order.clone(), vec![0xff; bytes]] {
            assert_eq!(refusal(spec, usage, &bare(&out)), apart, "{}", spec.name());
        }
        if spec == KeySpec::EcSm2 {
            // With n - 1 there is no signature.
            assert_eq!(refusal(spec, usage, &bare(&less(1))), apart);
        }
        let beside = |point: &[u8]| {
            let point = element(0xa1, &[&element(3, &[&[0], point])]);
            pkcs8(algorithm, &element(0x30, &[&[2, 1, 1], &element(4, &[&five]), &point]))
        };
        let point = |public: &PublicKey| public.as_der()[public.as_der().len() - 2 * bytes - 1..].to_vec();
        assert_eq!(pair(spec, usage, &Sensitive::new(beside(&point(&public)))).unwrap().1, public);
        let mut off = point(&public);
        off[2 * bytes] ^= 1;
        for wrong in [point(&negative), off, vec![0]] {
            assert_eq!(refusal(spec, usage, &beside(&wrong)), apart, "{}", spec.name());
        }
    }
}

#[test]
fn what_is_no_pkcs8_of_the_specification_is_refused_and_nothing_of_it_is_said() {
    let specs = KeySpec::ALL.into_iter().filter(|spec| spec.is_key_pair());
    let keys: Vec<_> = specs.map(|spec| (spec, generate(spec).unwrap().0)).collect();
    for (spec, key) in &keys {
        for usage in spec.usages() {
            pair(*spec, *usage, key).unwrap();
            let whole = key.expose();
            let longer = [whole, &[0]].concat();
            let cuts = (0..whole.len()).step_by(whole.len() / 30 + 1).map(|length| &whole[..length]);
            for bad in cuts.chain([&whole[..whole.len() - 1], &longer, &[0x30, 0x80], &[0x30, 0]]) {
                let why = format!("{} bytes are not the PKCS #8 of one private key, in DER", bad.len());
                assert_eq!(refusal(*spec, *usage, bad), why);
            }
            let many = vec![0x30; MAX_BYTES + 1];
            assert_eq!(refusal(*spec, *usage, &many), "8193 bytes are more than the 8192 of any private key");
            for (other, foreign) in keys.iter().filter(|(other, _)| other != spec) {
                let why = refusal(*spec, *usage, foreign.expose());
                let said = match (spec.modulus_bytes(), other.modulus_bytes()) {
                    (Some(_), Some(modulus)) => {
                        format!("a modulus of {} bits is none of {}", 8 * modulus, spec.name())
                    }
                    _ if names(*spec).unwrap().0 == names(*other).unwrap().0 => {
                        format!("it is a key of another curve than {}", spec.name())
                    }
                    _ => format!("it is a key of another algorithm than {}", spec.name()),
                };
                assert_eq!(why, said);
            }
        }
    }
}

#[test]
fn the_seed_of_ml_dsa_is_enough_and_its_key_alone_is_not() {
    let usage = KeyUsage::SignVerify;
    let algorithm = [0x30, 0x0b, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 0x12];
    // RFC 9881, 6: the seed under tag 0, the expanded key as an octet string, or both.
    let seed = element(0x80, &[&[0x2a; 32]]);
    let (material, public) =
        pair(KeySpec::MlDsa65, usage, &Sensitive::new(pkcs8(&algorithm, &seed))).unwrap();
    assert_eq!(material.expose(), pkcs8(&algorithm, &seed));
    let pair_of_library =
        aws_lc_rs::signature::PqdsaKeyPair::from_seed(&aws_lc_rs::signature::ML_DSA_65_SIGNING, &[0x2a; 32])
            .unwrap();
    let expanded = aws_lc_rs::encoding::AsRawBytes::as_raw_bytes(&pair_of_library.private_key()).unwrap();
    let expanded = element(4, &[expanded.as_ref()]);
    let both = |seed: u8| {
        let parts = [element(4, &[&[seed; 32]]), expanded.clone()].concat();
        pkcs8(&algorithm, &element(0x30, &[&parts]))
    };
    assert_eq!(pair(KeySpec::MlDsa65, usage, &Sensitive::new(both(0x2a))).unwrap().1, public);
    let apart =
        "the parts of a key of ML_DSA_65 are out of range, or do not belong together, or lack the seed";
    assert_eq!(refusal(KeySpec::MlDsa65, usage, &both(0x2b)), apart);
    assert_eq!(refusal(KeySpec::MlDsa65, usage, &pkcs8(&algorithm, &expanded)), apart);
}
