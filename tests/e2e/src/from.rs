//! A way to a server from another address of this machine: it passes connections on, so that the server sees them come from there.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1 whose connections reach a server from another address. It is there as long as the test is.
pub struct From {
    /// Where it is.
    pub address: SocketAddr,
}

impl From {
    /// Opens a way from `source`, an address of loopback, to a server.
    pub fn address(source: &str, to: SocketAddr) -> Self {
        let source: IpAddr = source.parse().expect("the test's address is valid");
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // A server that is down hangs up.
                let Ok(far) = reach(source, to) else { continue };
                pass_both(near, far);
            }
        });
        Self { address }
    }
}

fn reach(source: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn pass_both(near: TcpStream, far: TcpStream) {
    let both = |a: &TcpStream, b: &TcpStream| Some((a.try_clone().ok()?, b.try_clone().ok()?));
    let (Some((from, to)), Some((back, forth))) = (both(&near, &far), both(&far, &near)) else { return };
    for (from, to) in [(from, to), (back, forth)] {
        std::thread::spawn(move || pass(from, to));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer)
        && read > 0
        && to.write_all(&buffer[..read]).is_ok()
    {}
    let _gone = to.shutdown(Shutdown::Write);
}
