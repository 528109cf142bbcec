//! The file of a client key as a client reads it: JSON around PKCS #12 (RFC 7292), whose private key is taken out by a password. What is no JSON is
//! taken for the PKCS #12 itself, so that what is inside the base64 is reached.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_client::Credentials;

use crate::memory::{room, within};
use crate::target::Seed;

const ID: &str = "KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";
const PASSWORD: &str = "password-1";
/// What a key takes that is opened, whatever its file: blocks of key derivation, a key pair.
const KEY_BYTES: usize = 256 * 1024;

/// On P-256, encrypted under PBES2, and with a MAC; one iteration each.
const WITH_MAC: &str = "MIID9gIBAzCCA7AGCSqGSIb3DQEHAaCCA6EEggOdMIIDmTCCAlEGCSqGSIb3DQEHBqCCAkIwggI+AgEAMIICNwYJKoZIhvcNAQcBMFYGCSqGSI\
b3DQEFDTBJMCgGCSqGSIb3DQEFDDAbBAgJ2bSjBI1SUwIBATAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQyJ7f3Kf5nrCDrwZ1Qn2204CC\
AdD7jMpYKte1AKEIPtsN23up79YBCEU5ci0m0VJc6Xb0XCGVgSniVYP+s21HuxGvEKUbRTCQ2RQWMpeRGUaxpA6NcPleFpdmmnCTeLIqx60PMi\
x5xfQK1NHkhC9A4yfruIZBP564MBcMkVUX7aadWfHcqQlIpntloTYWnbUNzqOc80zuG8YTN/EKEH+/i4ms2RFbBxK7bp2zL09AmWvk0vtOkldY\
fO1BONAXcuzUu55stTYvQW8SjEwvN9ouAm5B53cx63kbublTKe3nJcfyHlqmkM3LGQWR1PSYuIOeQO6vr3+sOaVIniW6wLsNYiU/gJ9gobv3/y\
JT72D+Zl6lrTofE3F0K+3psshaWzeFcllroRnaMRTTkyJkahKlzcgJBa5e/FlF8vj70GyAjFWct1i5X1q1QMb7/dj3aj7+ztyJaNPTZxQOydkw\
g/ygim16UzsBoqrS1iT7ZLE2prgABUp5BXDgOL7jdfhvFhgmm9i7SJpxuG4sOrISowhEJtEiRAAuLmqLgvgJZmReyL1T9sDXlFyQHNMMaeB3wN\
69ev3c7vaBmx3rIJLQhCOTgpYeifLqxQU2YrZik66LCjIDNuMVZ/+u8tn+3JPLzCbhrnIf7DCCAUAGCSqGSIb3DQEHAaCCATEEggEtMIIBKTCC\
ASUGCyqGSIb3DQEMCgECoIHuMIHrMFYGCSqGSIb3DQEFDTBJMCgGCSqGSIb3DQEFDDAbBAhC8dV+9HYRiQIBATAMBggqhkiG9w0CCQUAMB0GCW\
CGSAFlAwQBKgQQlNtPhDZ9WIScGpXYmZTyogSBkMY0Ok25ziB7YKqGUk4pGbwzbT4hlwy8jMUkVxfJR83SIUoOBImUBBTtInFu2J075uMkD++g\
ohjdTfQLg5eAQPHTTN7s4RjBey99jyjQvwS1aJSZApbWg0j30A2FYyYVlMnx7aEa2tGzBXtIVm6IoIXBP0DIMoU2DgHgPSnGqFnRB5USu+GV80\
WYzpezoa38TDElMCMGCSqGSIb3DQEJFTEWBBS65ow8gSmR2an4V09vx1PW4yQ3CDA9MDEwDQYJYIZIAWUDBAIBBQAEIAPLHThYpZEDWBYILu76\
QZroeyiTSPmHwJhpSTQiobo7BAiiRjLj8x5xlw==";

/// The same without a MAC, so that what is changed is still read.
const WITHOUT_MAC: &str = "MIIDQQIBAzCCAzoGCSqGSIb3DQEHAaCCAysEggMnMIIDIzCCAdsGCSqGSIb3DQEHAaCCAcwEggHIMIIBxDCCAcAGCyqGSIb3DQEMCgEDoIIBiD\
CCAYQGCiqGSIb3DQEJFgGgggF0BIIBcDCCAWwwggEToAMCAQICFEuXKRK1sWWJ8nn5qwma1b9yEf5uMAoGCCqGSM49BAMCMAwxCjAIBgNVBAMM\
AWEwHhcNMjYxMTI5MTgwMjMxWhcNMzYxMTI2MTgwMjMxWjAMMQowCAYDVQQDDAFhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYMljsCOvgu\
busimb1EWZQdd8OGeriXwktXgoMF1UVefZhwzSi3pbFfJJqRSWlTMwNIUqOI7rFE8TuiP4HKervqNTMFEwHQYDVR0OBBYEFIupACv3zlNh5cha\
0ZuSrjWQ1SI6MB8GA1UdIwQYMBaAFIupACv3zlNh5cha0ZuSrjWQ1SI6MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgYX3HIm\
1LsCgT7igMufQuW+BdcEIULQJgEdoR3JwQIJYCIH/p3VGVmB2400gqA6kvtAT4ErfubH6zfo+Jbw/ASR2iMSUwIwYJKoZIhvcNAQkVMRYEFLrm\
jDyBKZHZqfhXT2/HU9bjJDcIMIIBQAYJKoZIhvcNAQcBoIIBMQSCAS0wggEpMIIBJQYLKoZIhvcNAQwKAQKgge4wgeswVgYJKoZIhvcNAQUNME\
kwKAYJKoZIhvcNAQUMMBsECLOnrnm8SuK5AgEBMAwGCCqGSIb3DQIJBQAwHQYJYIZIAWUDBAEqBBCKcwi5OQCefaKM1zF0T2ltBIGQ/idTyYWL\
4a/HNUnP9sxFChU5bUs/t1UyqaUZvbnzKvLOXGdN6WpnXpHE3WIDdJbvlwvbzNkPnumrVOGy/ssI0evCgNFKq1DN3unPhx1X7bOjjs0nZNFGle\
N/2E6moPJG00v+56pqq9DXHOx9jQdns1tpxMfgPJa80C+ut8Lw/o4u0FK0JM/Czxuecrw2VsRIMSUwIwYJKoZIhvcNAQkVMRYEFLrmjDyBKZHZ\
qfhXT2/HU9bjJDcI";

/// The same in clear.
const PLAIN: &str = "MIIC2AIBAzCCAtEGCSqGSIb3DQEHAaCCAsIEggK+MIICujCCAdsGCSqGSIb3DQEHAaCCAcwEggHIMIIBxDCCAcAGCyqGSIb3DQEMCgEDoIIBiD\
CCAYQGCiqGSIb3DQEJFgGgggF0BIIBcDCCAWwwggEToAMCAQICFEuXKRK1sWWJ8nn5qwma1b9yEf5uMAoGCCqGSM49BAMCMAwxCjAIBgNVBAMM\
AWEwHhcNMjYxMTI5MTgwMjMxWhcNMzYxMTI2MTgwMjMxWjAMMQowCAYDVQQDDAFhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYMljsCOvgu\
busimb1EWZQdd8OGeriXwktXgoMF1UVefZhwzSi3pbFfJJqRSWlTMwNIUqOI7rFE8TuiP4HKervqNTMFEwHQYDVR0OBBYEFIupACv3zlNh5cha\
0ZuSrjWQ1SI6MB8GA1UdIwQYMBaAFIupACv3zlNh5cha0ZuSrjWQ1SI6MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgYX3HIm\
1LsCgT7igMufQuW+BdcEIULQJgEdoR3JwQIJYCIH/p3VGVmB2400gqA6kvtAT4ErfubH6zfo+Jbw/ASR2iMSUwIwYJKoZIhvcNAQkVMRYEFLrm\
jDyBKZHZqfhXT2/HU9bjJDcIMIHYBgkqhkiG9w0BBwGggcoEgccwgcQwgcEGCyqGSIb3DQEMCgEBoIGKMIGHAgEAMBMGByqGSM49AgEGCCqGSM\
49AwEHBG0wawIBAQQghiXVP/40n7kQZCblYiP31DtxnNB18ONjxmA1+iThEuuhRANCAARgyWOwI6+C5u6yKZvURZlB13w4Z6uJfCS1eCgwXVRV\
59mHDNKLelsV8kmpFJaVMzA0hSo4jusUTxO6I/gcp6u+MSUwIwYJKoZIhvcNAQkVMRYEFLrmjDyBKZHZqfhXT2/HU9bjJDcI";

/// Reads the file.
pub(crate) fn check(bytes: &[u8]) {
    let is_json = bytes.first() == Some(&b'{');
    let file = match is_json {
        true => bytes.to_vec(),
        false => format!(r#"{{"KeyId":"{ID}","PrivateKeyData":"{}"}}"#, STANDARD.encode(bytes)).into_bytes(),
    };
    let read = within(KEY_BYTES + room(file.len()), || Credentials::of_client_key_file(&file, PASSWORD));
    match read {
        Ok(credentials) => assert!(credentials.access_key_id().as_str().starts_with("KAAP.")),
        Err(error) => assert!(error.to_string().len() < 200 && !error.to_string().contains(PASSWORD)),
    }
}

/// Returns files of each kind, and what they hold.
pub(crate) fn seeds() -> Vec<Seed> {
    let der = |text| STANDARD.decode(text).expect("it is base64");
    let file = format!(r#"{{"KeyId":"{ID}","PrivateKeyData":"{WITHOUT_MAC}"}}"#).into_bytes();
    vec![("mac", der(WITH_MAC)), ("no-mac", der(WITHOUT_MAC)), ("plain", der(PLAIN)), ("file", file)]
}
