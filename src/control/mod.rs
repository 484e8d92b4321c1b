//! A control socket: through it the `exuvia` command looks at a running store and drives its migrations.
//!
//! What has to hold:
//!
//! 1. The store never waits for a client. A request is read whole, done, and only then answered; nothing of the store is
//!    held while anything is read or written.
//! 2. A client can do no more than cost one of [`CONNECTIONS_MAX`] threads for [`REQUEST_WAIT`]: lines are limited,
//!    every read and write has a deadline, and what is not understood is answered by a typed error.
//! 3. Only the owner (and root) gets in: the socket is made in a directory that is closed to others, has mode 0600
//!    before it gets its name, and the system is asked who the peer is where it can tell.
//! 4. The threads hold the store weakly: it closes with its last handle, and they end with it.

mod protocol;
mod socket;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::protocol::Refusal;
use self::socket::Bound;
use crate::caught::caught;
use crate::duty::Duty;
use crate::error::{Error, Result};
use crate::migration::core::{Lease, Service};
use crate::store::handle::Store;
use crate::threads::spawn;

/// Clients at a time; one more is told so and sent away.
const CONNECTIONS_MAX: usize = 8;
/// The longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take for a request, and for taking its answer.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// How long a system that cannot wake the acceptor lets a close wait.
const ACCEPT_WAIT: Duration = Duration::from_secs(1);

impl Store {
    /// Opens a Unix socket at `path`, through which the `exuvia` command of the same user shows the status of this
    /// running store and rolls its migrations back, resumes, pauses and retunes them. The command looks for it at
    /// `control.sock` in the store's directory, unless it is told another place.
    ///
    /// It goes when the store is closed; one that a killed process left is replaced. The protocol is in
    /// docs/control.md. Costs a thread, and one more for each client (8 at most).
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if the socket cannot be made there (another file or a live socket has the name, the path is longer
    /// than about 100 bytes); [`Error::State`] if the store has one already.
    pub fn control_socket(&self, path: impl AsRef<Path>) -> Result<()> {
        let core = self.core();
        let mut control = core.control.lock();
        core.shared.check_usable()?;
        if control.is_some() {
            return Err(Error::state("control socket", "the store has one already"));
        }
        *control = Some(Box::new(Control::start(path.as_ref(), self.weak())?));
        Ok(())
    }
}

/// The socket and its threads.
pub(crate) struct Control {
    bound: Bound,
    server: Arc<Server>,
    acceptor: JoinHandle<()>,
}

struct Server {
    store: Weak<Lease>,
    listener: UnixListener,
    stopped: AtomicBool,
    connections: Mutex<Vec<(JoinHandle<()>, UnixStream)>>,
}

impl Control {
    fn start(path: &Path, store: Weak<Lease>) -> Result<Self> {
        let (listener, bound) = socket::bind(path)?;
        socket::accept_wait(&listener, ACCEPT_WAIT).map_err(|e| socket::failed(path, e))?;
        let stopped = AtomicBool::new(false);
        let server = Arc::new(Server { store, listener, stopped, connections: Mutex::default() });
        let accepting = Arc::clone(&server);
        let acceptor = spawn("exuvia-control", move || accepting.accept()).inspect_err(|_| bound.remove())?;
        Ok(Self { bound, server, acceptor })
    }
}

impl Service for Control {
    /// Ends all threads and removes the socket. A client whose verb this is called by ends after that.
    fn stop(self: Box<Self>, clients: Duty) {
        self.bound.remove();
        self.server.stopped.store(true, Ordering::SeqCst);
        socket::wake(&self.server.listener);
        drop(self.acceptor.join());
        let awaiting = clients.await_one(String::new);
        let connections = std::mem::take(&mut *self.server.connections.lock());
        for (thread, stream) in connections {
            // Reads and writes end at once; a verb that is being done ends by itself.
            let _it_may_be_gone = stream.shutdown(Shutdown::Both);
            if awaiting.is_ok() {
                drop(thread.join());
            }
        }
    }
}

impl Server {
    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn accept(self: &Arc<Self>) {
        while !self.stopped() {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                // No descriptors left, or the system is waking this thread.
                Err(_) if !self.stopped() => std::thread::sleep(Duration::from_millis(50)),
                Err(_) => {}
            }
        }
    }

    fn admit(self: &Arc<Self>, mut stream: UnixStream) {
        let deadline = Instant::now() + REQUEST_WAIT;
        let uid = match socket::peer(&stream) {
            Ok(uid) => uid,
            Err(refusal) => return drop(answer(&mut stream, &Err(refusal), deadline)),
        };
        let mut connections = self.connections.lock();
        connections.retain(|(thread, _)| !thread.is_finished());
        if connections.len() >= CONNECTIONS_MAX {
            let busy = Refusal::new("busy", format!("{CONNECTIONS_MAX} clients are connected; try again"));
            // Fits the socket's buffer: it does not wait.
            let _it_may_be_gone =
                answer(&mut stream, &Err(busy), Instant::now() + Duration::from_millis(100));
            return;
        }
        let Ok(mut other) = stream.try_clone() else { return };
        let server = Arc::clone(self);
        match spawn("exuvia-client", move || server.serve(stream, uid)) {
            Ok(thread) => connections.push((thread, other)),
            Err(e) => {
                let deadline = Instant::now() + Duration::from_millis(100);
                let _it_may_be_gone = answer(&mut other, &Err(Refusal::new("busy", e.to_string())), deadline);
            }
        }
    }

    fn serve(&self, mut stream: UnixStream, uid: Option<u32>) {
        let mut unread = Vec::new();
        while !self.stopped() {
            let line = match read_line(&mut stream, &mut unread, Instant::now() + REQUEST_WAIT) {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(refusal) => {
                    let _it_may_be_gone = answer(&mut stream, &Err(refusal), Instant::now() + REQUEST_WAIT);
                    return;
                }
            };
            let done = self.perform(&line, uid);
            if answer(&mut stream, &done, Instant::now() + REQUEST_WAIT).is_err() {
                return;
            }
        }
    }

    /// Holds a handle of the store for as long as the verb takes, and not while its answer is taken.
    fn perform(&self, line: &[u8], uid: Option<u32>) -> Result<serde_json::Value, Refusal> {
        let request = protocol::parse(line)?;
        let closed = || Refusal::new("closed", "the store is being closed".to_owned());
        let store = Store::of(self.store.upgrade().ok_or_else(closed)?);
        // A close waits for this thread, unless it is called from here: also by the handle, if that is the last one.
        let on_duty = store.core().duties.control.begin();
        let done = caught(|| protocol::perform(&store, request, uid)).unwrap_or_else(|text| {
            Err(Refusal::new(
                "state",
                format!("what this asked for panicked in the program's own code: {text}"),
            ))
        });
        drop(store);
        drop(on_duty);
        done
    }
}

/// The next line, without its end; `None` if the client is gone.
fn read_line(
    stream: &mut UnixStream,
    unread: &mut Vec<u8>,
    deadline: Instant,
) -> Result<Option<Vec<u8>>, Refusal> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let rest = unread.split_off(end + 1);
            let mut line = std::mem::replace(unread, rest);
            line.truncate(end);
            return Ok(Some(line));
        }
        if unread.len() > REQUEST_BYTES_MAX {
            let reason = format!("a request is a line of at most {REQUEST_BYTES_MAX} bytes");
            return Err(Refusal::new("request", reason));
        }
        let late = || Refusal::new("timeout", format!("no request came within {} s", REQUEST_WAIT.as_secs()));
        let left = left(deadline).ok_or_else(late)?;
        if stream.set_read_timeout(Some(left)).is_err() {
            return Ok(None);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(read) => unread.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(late()),
            Err(_) => return Ok(None),
        }
    }
}

fn answer(
    stream: &mut UnixStream,
    done: &Result<serde_json::Value, Refusal>,
    deadline: Instant,
) -> std::io::Result<()> {
    let mut line = protocol::answer(done).to_string().into_bytes();
    line.push(b'\n');
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        let left = left(deadline).ok_or(ErrorKind::TimedOut)?;
        stream.set_write_timeout(Some(left))?;
        match stream.write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}
