//! Ceiling *HTTP echo*: a bare actix-web server, as many workers as asked, that reads the whole body of any POST
//! and answers the same bytes, or a fixed body of the length that the real answer has. It parses no JSON.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;

use actix_web::dev::ServerHandle;
use actix_web::http::header::ContentType;
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpResponse, HttpServer};

/// A running echo on a loopback port; dropping it stops its workers and joins its thread.
pub struct HttpEcho {
    /// Where it listens.
    pub addr: SocketAddr,
    handle: ServerHandle,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl HttpEcho {
    /// Starts an echo that answers each body with itself.
    ///
    /// # Errors
    /// If the port cannot be bound or a thread not be started.
    pub fn start(workers: usize) -> io::Result<Self> {
        Self::launch(workers, None)
    }

    /// Starts an echo that reads each body and answers `reply`.
    ///
    /// # Errors
    /// If the port cannot be bound or a thread not be started.
    pub fn start_answering(workers: usize, reply: impl Into<Bytes>) -> io::Result<Self> {
        Self::launch(workers, Some(reply.into()))
    }

    fn launch(workers: usize, reply: Option<Bytes>) -> io::Result<Self> {
        let (started, start) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("http-echo".into()).spawn(move || {
            actix_rt::System::new().block_on(async move {
                let server = HttpServer::new(move || {
                    let reply = reply.clone();
                    App::new().app_data(web::PayloadConfig::new(16 << 20)).default_service(
                        web::post()
                            .to(move |body: Bytes| std::future::ready(answer(reply.clone().unwrap_or(body)))),
                    )
                })
                .workers(workers)
                .disable_signals()
                .bind((Ipv4Addr::LOCALHOST, 0))?;
                let addr = server.addrs()[0];
                let server = server.run();
                // The receiver waits in `launch` until this or the end of the thread.
                drop(started.send((addr, server.handle())));
                server.await
            })
        })?;
        match start.recv() {
            Ok((addr, handle)) => Ok(Self { addr, handle, thread: Some(thread) }),
            Err(_) => Err(match thread.join() {
                Ok(Err(error)) => error,
                _ => io::Error::other("http echo ended before it listened"),
            }),
        }
    }
}

impl Drop for HttpEcho {
    fn drop(&mut self) {
        // The command is sent by the call; its future only awaits the end, which the join does too.
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(body: Bytes) -> HttpResponse {
    HttpResponse::Ok().insert_header(ContentType::json()).body(body)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn post(addr: SocketAddr, body: &str) -> String {
        let mut stream = TcpStream::connect(addr).unwrap();
        let head =
            "POST /v1/Encrypt HTTP/1.1\r\nHost: echo\r\nConnection: close\r\nContent-Type: application/json";
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_posted_body_comes_back_as_json() {
        let echo = HttpEcho::start(1).unwrap();
        let answer = post(echo.addr, r#"{"KeyId":"alias/people"}"#);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n{\"KeyId\":\"alias/people\"}"), "{answer}");
    }

    #[test]
    fn a_fixed_reply_has_the_length_it_was_given() {
        let echo = HttpEcho::start_answering(2, "x".repeat(1500)).unwrap();
        let answer = post(echo.addr, "{}");
        assert!(answer.ends_with(&format!("\r\n\r\n{}", "x".repeat(1500))), "{answer}");
    }

    #[test]
    fn a_dropped_echo_no_longer_listens() {
        let echo = HttpEcho::start(1).unwrap();
        let addr = echo.addr;
        drop(echo);
        assert!(TcpStream::connect(addr).is_err());
    }
}
