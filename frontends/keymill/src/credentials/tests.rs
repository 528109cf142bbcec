use super::*;
use std::os::unix::fs::PermissionsExt;

const FILE: &str =
    r#"{"AccessKeyId":"KMfile00001","AccessKeySecret":"file-secret","Tcp":"file:1","Url":"http://file:2"}"#;

fn find(args: ServerArgs, variables: &[(&str, &str)], file: Option<&Path>) -> Result<Target> {
    let variable =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Target::of_file(&resolve_in(
        &args,
        &Surroundings { variable: &variable, file: file.map(Path::to_owned) },
    )?)
}

fn tcp(target: &Target) -> Option<String> {
    target.tcp.as_ref().map(|tcp| tcp.addresses.to_string())
}

fn url(target: &Target) -> Option<String> {
    target.url.as_ref().map(Addresses::to_string)
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("credentials.json");
    private::create(&path, FILE.as_bytes()).unwrap();
    (directory, path)
}

const KEY: [(&str, &str); 2] =
    [("KEYMILL_ACCESS_KEY_ID", "KMenv000001"), ("KEYMILL_ACCESS_KEY_SECRET", "env-secret")];

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let (_directory, path) = file();
    let target = find(ServerArgs::default(), &[], Some(&path)).unwrap();
    assert_eq!((tcp(&target).as_deref(), url(&target).as_deref()), (Some("file:1"), Some("http://file:2")));
    assert_eq!(target.credentials.access_key_id().as_str(), "KMfile00001");

    let target = find(ServerArgs::default(), &[("KEYMILL_URL", "http://env:3")], Some(&path)).unwrap();
    assert_eq!(
        (tcp(&target).as_deref(), url(&target).as_deref()),
        (None, Some("http://env:3")),
        "addresses are not mixed"
    );

    let args = ServerArgs { tcp: vec!["flag:4".into()], ..ServerArgs::default() };
    let variables = [KEY[0], KEY[1], ("KEYMILL_TCP", "env:5")];
    let target = find(args, &variables, Some(&path)).unwrap();
    assert_eq!((tcp(&target).as_deref(), url(&target).as_deref()), (Some("flag:4"), None));
    assert_eq!(target.credentials.access_key_id().as_str(), "KMenv000001");
}

#[test]
fn a_server_on_this_machine_is_the_default() {
    let target = find(ServerArgs::default(), &KEY, None).unwrap();
    assert_eq!(target.tcp_only().unwrap().addresses.to_string(), DEFAULT_TCP);
}

#[test]
fn half_an_access_key_and_none_at_all_are_told_apart() {
    let half = find(ServerArgs::default(), &KEY[..1], None).err().unwrap().to_string();
    assert!(half.contains("go together"), "{half}");
    let none = find(ServerArgs::default(), &[], None).err().unwrap().to_string();
    assert!(none.contains("no access key") && none.contains("keymill login"), "{none}");
}

#[test]
fn a_file_that_others_can_read_is_refused_unless_it_is_not_needed() {
    let (_directory, path) = file();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = find(ServerArgs::default(), &[], Some(&path)).err().unwrap().to_string();
    assert!(refused.contains("open to others"), "{refused}");
    assert!(find(ServerArgs::default(), &KEY, Some(&path)).is_ok());
}

#[test]
fn a_malformed_file_is_told_without_what_is_in_it() {
    let (_directory, path) = file();
    private::replace(&path, br#"{"AccessKeyId":"KMfile00001","AccessKeySecret":"marked","Tpc":"x"}"#)
        .unwrap();
    let refused = find(ServerArgs::default(), &[], Some(&path)).err().unwrap().to_string();
    assert!(refused.contains("not an access key") && !refused.contains("marked"), "{refused}");
}

#[test]
fn the_file_reads_back_as_it_was_written() {
    let (_directory, path) = file();
    let read = CredentialsFile::read(&path).unwrap().unwrap();
    private::replace(&path, read.encode().expose()).unwrap();
    let again = CredentialsFile::read(&path).unwrap().unwrap();
    assert_eq!(again.access_key_secret, "file-secret");
    assert_eq!(again.tcp.as_deref(), Some("file:1"));
}

#[test]
fn an_address_with_tls_needs_a_ca_and_a_ca_needs_such_an_address() {
    let told = |args| find(args, &KEY, None).err().unwrap().to_string();
    for (tcp, url) in [(Some("tls://h:1"), None), (None, Some("https://h:1"))] {
        let list = |address: Option<&str>| address.map(str::to_owned).into_iter().collect();
        let args = ServerArgs { tcp: list(tcp), url: list(url), ..ServerArgs::default() };
        assert!(told(args.clone()).contains("--ca FILE"));
        let directory = tempfile::tempdir().unwrap();
        let (ca, key) = (directory.path().join("ca.pem"), directory.path().join("key.pem"));
        let pair = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        std::fs::write(&ca, pair.cert.pem()).unwrap();
        private::create(&key, pair.signing_key.serialize_pem().as_bytes()).unwrap();
        let args = ServerArgs { ca: Some(ca.clone()), ..args };
        let target = find(args.clone(), &KEY, None).unwrap();
        assert!(target.tls.is_some());
        if let Ok(Tcp { addresses, tls }) = target.tcp_only() {
            assert_eq!((addresses.to_string().as_str(), &tls.as_ref().unwrap().host), ("h:1", &None));
        }
        let shown = ServerArgs { client_certificate: Some(ca), client_key: Some(key.clone()), ..args };
        assert!(find(shown.clone(), &KEY, None).is_ok());
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(told(shown).contains("open to others"));
    }
    let args = ServerArgs { tcp: vec!["h:1".into()], ca: Some("ca.pem".into()), ..ServerArgs::default() };
    assert!(told(args).contains("without TLS"));
    // One that comes from elsewhere is not needed, and not in the way.
    let variables = [KEY[0], KEY[1], ("KEYMILL_CA", "/absent/ca.pem")];
    assert!(find(ServerArgs::default(), &variables, None).is_ok());
}

#[test]
fn a_file_may_hold_a_token_or_a_client_key_as_well() {
    let (_directory, path) = file();
    let args = ServerArgs { credentials: Some(path.clone()), ..ServerArgs::default() };
    let token = r#"{"Token":"KLT.AQ","Secret":"marked","NotAfter":"2026-11-29T18:00:00Z"}"#;
    private::replace(&path, token.as_bytes()).unwrap();
    let target = find(args.clone(), &[], None).unwrap();
    assert_eq!(target.credentials.access_key_id().as_str(), "login-token");
    let key = r#"{"KeyId":"KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9","PrivateKeyData":"bWFya2Vk"}"#;
    private::replace(&path, key.as_bytes()).unwrap();
    let told = find(args.clone(), &[], None).err().unwrap().to_string();
    assert!(told.contains("client key") && !told.contains("bWFya2Vk"), "{told}");
    private::replace(&path, br#"{"Token":"KLT.AQ","Secret":"marked"}"#).unwrap();
    let told = find(args, &[], None).err().unwrap().to_string();
    assert!(told.contains("not an access key") && !told.contains("marked"), "{told}");
}

#[test]
fn a_login_by_certificate_needs_one_and_no_access_key() {
    let args = ServerArgs { by_certificate: true, tcp: vec!["tls://h:1".into()], ..ServerArgs::default() };
    let told = find(args.clone(), &[], None).err().unwrap().to_string();
    assert!(told.contains("--client-certificate"), "{told}");
    let directory = tempfile::tempdir().unwrap();
    let (ca, key) = (directory.path().join("ca.pem"), directory.path().join("key.pem"));
    let pair = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
    std::fs::write(&ca, pair.cert.pem()).unwrap();
    private::create(&key, pair.signing_key.serialize_pem().as_bytes()).unwrap();
    let (ca, certificate, client_key) = (Some(ca.clone()), Some(ca), Some(key));
    let args = ServerArgs { ca, client_certificate: certificate, client_key, ..args };
    for variables in [&[][..], &KEY] {
        let target = find(args.clone(), variables, None).unwrap();
        assert_eq!(target.credentials.access_key_id().as_str(), "tls-certificate");
    }
    let by_variable = ServerArgs { by_certificate: false, ..args };
    let target = find(by_variable, &[("KEYMILL_BY_CERTIFICATE", "1")], None).unwrap();
    assert_eq!(target.credentials.access_key_id().as_str(), "tls-certificate");
}

#[test]
fn a_command_that_needs_tcp_says_so() {
    let args = ServerArgs { url: vec!["http://flag:1".into()], ..ServerArgs::default() };
    let told = find(args, &KEY, None).unwrap().tcp_only().unwrap_err().to_string();
    assert!(told.contains("KEYMILL_TCP"), "{told}");
}

#[test]
fn several_addresses_come_from_each_place_and_are_with_tls_all_or_none() {
    let args = ServerArgs { tcp: vec!["a:1".into(), "b:2".into()], ..ServerArgs::default() };
    let target = find(args, &KEY, None).unwrap();
    assert_eq!(tcp(&target).unwrap(), "a:1,b:2");
    let variables = [KEY[0], KEY[1], ("KEYMILL_URL", "http://a:1, http://b:2")];
    assert_eq!(
        url(&find(ServerArgs::default(), &variables, None).unwrap()).unwrap(),
        "http://a:1,http://b:2"
    );
    for (list, why) in
        [("a:1,,b:2", "is empty"), ("a:1,a:1", "twice"), ("a:1,tls://b:2", "some are with TLS")]
    {
        let variables = [KEY[0], KEY[1], ("KEYMILL_TCP", list)];
        let told = find(ServerArgs::default(), &variables, None).err().unwrap().to_string();
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_name_for_all_nodes_is_taken_in_the_place_of_their_hosts() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.pem()).unwrap();
    let args = ServerArgs {
        tcp: vec!["tls://a:1".into(), "tls://b:2".into()],
        ca: Some(ca),
        server_name: Some("cluster".into()),
        ..ServerArgs::default()
    };
    let Tcp { addresses, tls } = find(args, &KEY, None).unwrap().tcp_only().unwrap().clone();
    assert_eq!((addresses.to_string().as_str(), tls.unwrap().host.as_deref()), ("a:1,b:2", Some("cluster")));
    let args = ServerArgs { tcp: vec!["a:1".into()], server_name: Some("n".into()), ..ServerArgs::default() };
    assert!(find(args, &KEY, None).err().unwrap().to_string().contains("without TLS"));
}
