//! A process with a thread that keeps it: what it says is read as it comes, and it is ended by its id.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A server that comes up in more than this does not.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that is kept.
pub(crate) struct Keeper {
    pid: Pid,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts a process, and waits until a line of its standard error has `ready` in it. All of it goes to the end of a file.
    pub(crate) fn start_logged(mut command: Command, log: PathBuf, ready: &'static str) -> Self {
        let (tell, told) = channel();
        let (end, ending) = channel();
        let thread = std::thread::spawn(move || {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("setpriv is there: util-linux");
            let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
            let pid = Pid::from_raw(child.id() as i32);
            // The thread that reads ends with what it reads.
            let reading = std::thread::spawn(move || {
                let mut file = File::options()
                    .create(true)
                    .append(true)
                    .open(&log)
                    .expect("a scratch folder can be written");
                for line in stderr.split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    writeln!(file, "{line}").expect("a scratch folder can be written");
                    if line.contains(ready) {
                        let _known = tell.send(Ok(pid));
                    }
                }
                let _nobody_waits = tell.send(Err(std::fs::read_to_string(&log).unwrap_or_default()));
            });
            wait(&mut child, &ending);
            let _ended = reading.join();
        });
        let pid = match told.recv_timeout(PATIENCE).expect("the server comes up") {
            Ok(pid) => pid,
            Err(said) => panic!("the server ended: {said}"),
        };
        Self { pid, end: Some(end), thread: Some(thread) }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("our own process");
    }

    /// Kills it and the processes that it started, and waits for its end.
    pub(crate) fn kill_all(&mut self) {
        let list = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(list).unwrap_or_default();
        // Itself first, so that it has no time to mourn its children.
        let _gone = kill(self.pid, Signal::SIGKILL);
        for child in children.split_whitespace().filter_map(|text| text.parse().ok()) {
            let _gone = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        self.end(Signal::SIGKILL);
    }

    /// Ends it by a signal, and waits for its end.
    pub(crate) fn end(&mut self, by: Signal) {
        let Some(thread) = self.thread.take() else { return };
        let _gone = kill(self.pid, by);
        drop(self.end.take());
        let _ended = thread.join();
    }
}

/// Waits for the word to end, and then for the end; a process that does not end is killed.
fn wait(child: &mut Child, ending: &Receiver<()>) {
    let _ = ending.recv();
    for _ in 0..1_000 {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            _ => return,
        }
    }
    let _gone = child.kill();
    let _reaped = child.wait();
}
