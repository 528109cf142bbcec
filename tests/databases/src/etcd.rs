//! etcd: one member, or a cluster of several.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::keeper::Keeper;
use crate::network::Seat;
use crate::place::{Place, free_port};

/// What a member says once it serves.
const READY: &str = "ready to serve client requests";
const PATIENCE: Duration = Duration::from_secs(60);

/// How an etcd is started.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// How many members it has.
    pub members: usize,
    /// Whether clients come over TLS, with a certificate of their own.
    pub is_tls: bool,
    /// Further flags of each member.
    pub flags: Vec<String>,
    /// Where its members are in a network; on 127.0.0.1 where there is none.
    pub seats: Vec<Seat>,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self { members: 1, is_tls: false, flags: Vec::new(), seats: Vec::new() }
    }
}

/// An etcd.
pub struct Etcd {
    members: Vec<Option<Keeper>>,
    clients: Vec<u16>,
    peers: Vec<u16>,
    options: EtcdOptions,
    prefixes: AtomicU64,
    place: Place,
}

impl Etcd {
    /// Starts one of one member.
    pub fn start() -> Self {
        Self::start_with(EtcdOptions::default())
    }

    /// Starts one.
    pub fn start_with(options: EtcdOptions) -> Self {
        let ports = || (0..options.members).map(|_| free_port()).collect::<Vec<_>>();
        let (clients, peers) = (ports(), ports());
        let members = (0..options.members).map(|_| None).collect();
        let (prefixes, place) = (AtomicU64::new(0), Place::new("etcd"));
        let mut etcd = Self { members, clients, peers, options, prefixes, place };
        // None of them serves before most of them are there.
        let kept = std::thread::scope(|scope| {
            let etcd = &etcd;
            let started: Vec<_> =
                (0..etcd.members.len()).map(|member| scope.spawn(move || etcd.run(member))).collect();
            started.into_iter().map(|started| started.join().expect("it is started")).collect::<Vec<_>>()
        });
        etcd.members = kept.into_iter().map(Some).collect();
        etcd
    }

    /// Returns where its members are.
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.options.is_tls { "https" } else { "http" };
        let at = |(member, port): (usize, &u16)| format!("{scheme}://{}:{port}", self.host(member));
        self.clients.iter().enumerate().map(at).collect()
    }

    fn host(&self, member: usize) -> Ipv4Addr {
        self.options.seats.get(member).map_or(Ipv4Addr::LOCALHOST, |seat| seat.address)
    }

    /// Returns the port at which a member takes clients.
    pub fn port(&self, member: usize) -> u16 {
        self.clients[member]
    }

    /// Returns a prefix that nobody has had.
    pub fn fresh_prefix(&self) -> String {
        format!("test-{}", self.prefixes.fetch_add(1, Ordering::Relaxed))
    }

    /// Has etcd's own client do something, by all members that run; what it said.
    ///
    /// # Errors
    /// What it said, where that went wrong.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let of = |(endpoint, member): (String, &Option<Keeper>)| member.is_some().then_some(endpoint);
        let endpoints: Vec<_> = self.endpoints().into_iter().zip(&self.members).filter_map(of).collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoints.join(","));
        if self.options.is_tls {
            let file = |name: &str| self.place.at(name);
            command.arg("--cacert").arg(file("ca.pem"));
            command.arg("--cert").arg(file("server.pem")).arg("--key").arg(file("server.key"));
        }
        let output = command.args(arguments).output().expect("etcdctl is there: etcd-client");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// Returns the member that leads; it waits until there is one.
    pub fn leader(&self) -> usize {
        let patience = Instant::now() + PATIENCE;
        loop {
            // endpoint, id, version, size, whether it leads, …
            let status = self.ctl(&["endpoint", "status"]).unwrap_or_default();
            let leads = |line: &&str| line.split(", ").nth(4) == Some("true");
            if let Some(line) = status.lines().find(leads) {
                let leads = |port: &u16| line.contains(&format!(":{port},"));
                return self.clients.iter().position(leads).expect("it is one of ours");
            }
            assert!(Instant::now() < patience, "nobody leads: {status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the revision of the whole of it.
    pub fn revision(&self) -> u64 {
        let status = self.ctl(&["endpoint", "status", "--write-out=fields"]).expect("it answers");
        let line = status.lines().find_map(|line| line.strip_prefix("\"Revision\" : "));
        line.and_then(|text| text.parse().ok()).expect("a status has a revision")
    }

    /// Kills a member at once.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut keeper) = self.members[member].take() {
            keeper.end(Signal::SIGKILL);
        }
    }

    /// Stops a member where it is, without ending it, or has it go on.
    pub fn pause(&self, member: usize, is_paused: bool) {
        let signal = if is_paused { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.members[member].as_ref().expect("it runs").signal(signal);
    }

    /// Starts a member again that was killed.
    pub fn start_again(&mut self, member: usize) {
        self.members[member] = Some(self.run(member));
    }

    /// Saves all that it holds now.
    pub fn save(&self) {
        let file = self.place.at("snapshot");
        let _of_the_last_time = fs::remove_file(&file);
        self.ctl(&["snapshot", "save", &file.display().to_string()]).expect("it saves");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("our own file");
    }

    /// Kills every member, and starts all again with what was saved.
    pub fn put_back(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
            let data = self.place.at(&format!("m{member}"));
            fs::remove_dir_all(&data).expect("root may, and so may whoever made it");
            let peer = self.peer(member);
            let restored = self
                .place
                .command("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore", "snapshot", "--name", &format!("m{member}"), "--data-dir"])
                .arg(&data)
                .args(["--initial-cluster", &self.all_peers(), "--initial-advertise-peer-urls", &peer])
                .output()
                .expect("setpriv is there: util-linux");
            assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        }
        let kept = std::thread::scope(|scope| {
            let etcd = &*self;
            let started: Vec<_> =
                (0..etcd.members.len()).map(|member| scope.spawn(move || etcd.run(member))).collect();
            started.into_iter().map(|started| started.join().expect("it is started")).collect::<Vec<_>>()
        });
        self.members = kept.into_iter().map(Some).collect();
    }

    fn peer(&self, member: usize) -> String {
        format!("http://{}:{}", self.host(member), self.peers[member])
    }

    fn all_peers(&self) -> String {
        let all: Vec<_> = (0..self.peers.len()).map(|at| format!("m{at}={}", self.peer(at))).collect();
        all.join(",")
    }

    /// Returns the file with the certificate that has signed its own.
    pub fn ca_file(&self) -> PathBuf {
        self.place.at("ca.pem")
    }

    /// Returns a file with a certificate that has signed nothing.
    pub fn other_ca_file(&self) -> PathBuf {
        self.place.at("other-ca.pem")
    }

    /// Returns the files of a certificate that it takes from clients, and of its key.
    pub fn identity(&self) -> (PathBuf, PathBuf) {
        (self.place.at("server.pem"), self.place.at("server.key"))
    }

    fn run(&self, member: usize) -> Keeper {
        let client = &self.endpoints()[member];
        let (peer, all) = (self.peer(member), self.all_peers());
        let data = self.place.at(&format!("m{member}"));
        let state = if data.join("member").exists() { "existing" } else { "new" };
        let mut command = self.place.command("etcd");
        command
            .args(["--name", &format!("m{member}"), "--data-dir"])
            .arg(&data)
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &all, "--initial-cluster-state", state]);
        if self.options.is_tls {
            let file = |name: &str| self.place.at(name);
            command.arg("--cert-file").arg(file("server.pem")).arg("--key-file").arg(file("server.key"));
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file("ca.pem"));
        }
        command.args(&self.options.flags);
        if let Some(seat) = self.options.seats.get(member) {
            command = seat.wrap(&command);
        }
        let log = self.place.at(&format!("m{member}.log"));
        let _of_the_last_start = fs::remove_file(&log);
        Keeper::start_logged(command, log, READY)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
        }
    }
}
