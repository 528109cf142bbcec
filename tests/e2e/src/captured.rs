//! Somebody on the wire: what an HTTP client sends is taken down on its way to the server, and sent once more.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use keymill_client::{ClientError, Credentials, HttpClient};
use keymill_core::operation::{Reply, Request};
use keymill_harness::Live;
use keymill_runtime::Frontend;
use keymill_runtime::frontend::Stopper;
use keymill_tls::ServerTls;
use keymill_wire::answer::decode_json_error;

use crate::caller::Answered;

/// How long an answer may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP listener in front of a live engine.
pub struct Web {
    /// Where it listens.
    pub address: SocketAddr,
    stopper: Stopper,
    frontend: Option<JoinHandle<()>>,
}

impl Web {
    /// Starts the listener; it is to be dropped before the engine stops.
    pub fn over(live: &Live) -> Self {
        Self::with(live, None)
    }

    /// Starts the listener under TLS; it is to be dropped before the engine stops.
    pub fn with(live: &Live, tls: Option<ServerTls>) -> Self {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listen = keymill_http::Config { tls, ..keymill_http::Config::new(address) };
        let http = keymill_http::bind(listen).expect("the listener binds");
        let address = http.local_addr().expect("a bound listener has an address");
        let (stopper, stop) = Stopper::new();
        let gate = live.gate();
        let frontend =
            std::thread::spawn(move || Box::new(http).run(gate, stop).expect("the frontend serves"));
        Self { address, stopper, frontend: Some(frontend) }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(frontend) = self.frontend.take()
            && !std::thread::panicking()
        {
            frontend.join().expect("the frontend does not panic");
        }
    }
}

/// A signed request as it was on the wire.
pub struct Captured(Vec<u8>);

impl Captured {
    /// Sends a request to a server and takes it down; returns what was answered.
    pub fn send<'a, T>(
        server: SocketAddr,
        credentials: &Credentials,
        request: impl Into<Request<'a>>,
        take: impl FnOnce(Reply<'_>) -> T,
    ) -> (Answered<T>, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let tap = std::thread::spawn(move || pass_on(&listener, server).expect("the wire holds"));
        let client = HttpClient::new(&format!("http://{address}"), PATIENCE).expect("a good URL");
        let called = client.call(request, credentials);
        // Its connection ends with it, and so does what is taken down.
        drop(client);
        let answered = match called {
            Ok(reply) => Ok(take(reply.reply().expect("a reply of its form"))),
            Err(ClientError::Refused(error)) => Err(error),
            Err(other) => panic!("{other}"),
        };
        (answered, Self(tap.join().expect("the wire holds")))
    }

    /// Sends it again, byte for byte; returns the status and the code of the error, which is empty where there is none.
    pub fn replay(&self, server: SocketAddr) -> (u16, String) {
        let mut stream = TcpStream::connect(server).expect("the server is there");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        stream.write_all(&self.0).expect("it can be sent");
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).expect("there is an answer");
            line.trim_end().to_ascii_lowercase()
        };
        let status = line().split(' ').nth(1).expect("a status").parse().expect("a number");
        let mut length = 0;
        loop {
            let line = line();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().expect("a number"),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a whole body");
        let code = match status {
            200 => String::new(),
            _ => decode_json_error(&body).expect("an error in JSON").code,
        };
        (status, code)
    }
}

/// Passes one connection on to the server and back; returns what came from the client.
fn pass_on(listener: &TcpListener, server: SocketAddr) -> io::Result<Vec<u8>> {
    let (mut client, _) = listener.accept()?;
    let mut upstream = TcpStream::connect(server)?;
    let (mut answers, mut back) = (upstream.try_clone()?, client.try_clone()?);
    let returning = std::thread::spawn(move || io::copy(&mut answers, &mut back));
    let (mut taken, mut chunk) = (Vec::new(), [0; 4_096]);
    loop {
        let n = client.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        taken.extend_from_slice(&chunk[..n]);
        upstream.write_all(&chunk[..n])?;
    }
    upstream.shutdown(Shutdown::Write)?;
    let _gone = returning.join().expect("it does not panic");
    Ok(taken)
}
