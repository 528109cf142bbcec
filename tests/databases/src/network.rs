//! A network of this machine's own kernel: seats in namespaces of their own, joined by a bridge, between any two of which nothing passes once a test
//! has cut them. It needs root; where it cannot be had there is none.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};

/// A network.
pub struct Network {
    bridge: String,
    seats: Vec<Seat>,
    host: Ipv4Addr,
}

/// A place in a network that a process may have.
#[derive(Clone, Debug)]
pub struct Seat {
    namespace: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Seat {
    /// Has a command run at the seat; as root, so that a command which gives that up is to be wrapped itself.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("ip");
        wrapped.args(["netns", "exec", &self.namespace]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    }
}

fn ip(arguments: &[&str]) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Network {
    /// Makes one with so many seats, of 250 at most; none where this process may not.
    pub fn try_new(seats: usize) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Two networks at once are of two subnets, whichever processes they are of.
        let number = id().wrapping_mul(8).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, _, a, b] = number.to_be_bytes();
        let subnet = |last: u8| Ipv4Addr::new(10, 64 + a % 64, b, last);
        let name = |what: &str| format!("km{what}{:x}", number & 0xff_ffff);
        let bridge = name("b");
        let host = subnet(254);
        let mut network = Self { bridge, seats: Vec::new(), host };
        let made = ip(&["link", "add", &network.bridge, "type", "bridge"])
            && ip(&["addr", "add", &format!("{host}/24"), "dev", &network.bridge])
            && ip(&["link", "set", &network.bridge, "up"]);
        if !made {
            return None;
        }
        for seat in 0..seats {
            let namespace = name(&format!("n{seat}x"));
            let address = subnet(seat as u8 + 1);
            let outer = format!("{}{seat}", name("v"));
            let of = &["-n", &namespace][..];
            let inner = |arguments: &[&str]| ip(&[of, arguments].concat());
            let is_there = ip(&["netns", "add", &namespace]);
            network.seats.push(Seat { namespace: namespace.clone(), address });
            let made = is_there
                && ip(&["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &namespace])
                && ip(&["link", "set", &outer, "master", &network.bridge, "up"])
                && inner(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])
                && inner(&["link", "set", "eth0", "up"])
                && inner(&["link", "set", "lo", "up"]);
            if !made {
                return None;
            }
        }
        Some(network)
    }

    /// Returns a seat.
    pub fn seat(&self, number: usize) -> &Seat {
        &self.seats[number]
    }

    /// Cuts two seats off from each other, or mends that.
    pub fn cut(&self, one: usize, other: usize, is_cut: bool) {
        let (one, other) = (&self.seats[one], &self.seats[other]);
        route(one, other.address, is_cut);
        route(other, one.address, is_cut);
    }

    /// Cuts a seat off from the test itself, or mends that.
    pub fn cut_from_host(&self, seat: usize, is_cut: bool) {
        route(&self.seats[seat], self.host, is_cut);
    }
}

/// Has what a seat sends to an address come to nothing; so neither hears of the other.
fn route(from: &Seat, to: Ipv4Addr, is_cut: bool) {
    let what = if is_cut { "add" } else { "del" };
    assert!(
        ip(&["-n", &from.namespace, "route", what, "blackhole", &format!("{to}/32")]),
        "routes can be set"
    );
}

impl Drop for Network {
    fn drop(&mut self) {
        for seat in &self.seats {
            ip(&["netns", "del", &seat.namespace]);
        }
        ip(&["link", "del", &self.bridge]);
    }
}
