//! One connection's thread, from its first byte to its last. Not here: when it is started (`manager`), and
//! the steps it is made of (`settle`, `link`).

use super::link::{self, Link};
use super::net::{self, Timed};
use super::settle::Candidate;
use super::shared::{Pending, Shared};
use crate::lock::lock;
use crate::secure::handshake::{Role, handshake};
use crate::secure::{Fault, Opener, Refusal, Sealer, Security};
use crate::threads;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

/// Dials `address` and serves the connection.
pub(super) fn dial(shared: &Arc<Shared>, address: IpAddr) {
    match connect(shared, address).and_then(|stream| bring_up(shared, stream, address, true)) {
        Ok(connection) => serve(shared, connection),
        Err(fault) => {
            if fault.refusal == Refusal::Duplicate {
                // The connection that is used instead may not be up on this side yet.
                shared.await_up(address, shared.timings.dial);
            }
            shared.dial_failed(address, &fault);
        }
    }
}

/// Serves a connection that `address` made, pending as `number`.
pub(super) fn accepted(shared: &Arc<Shared>, stream: Arc<TcpStream>, number: u64, address: IpAddr) {
    let done = establish(shared, stream, number, address, false);
    lock(&shared.table).handshaking -= 1;
    // It may wait for that to take in more.
    net::signal(&shared.nudge);
    match done {
        Ok(connection) => serve(shared, connection),
        Err(fault) => refuse(shared, address, &fault),
    }
}

/// Counts a connection that was not wanted.
pub(super) fn refuse(shared: &Shared, address: IpAddr, fault: &Fault) {
    shared.refused.count(fault.refusal);
    tracing::debug!(%address, reason = fault.reason, "connection refused");
    if fault.refusal != Refusal::Duplicate {
        lock(&shared.table).last_refused = Some((address, fault.reason.clone()));
    }
}

type Connection = (Arc<Link>, Sealer, Opener);

fn connect(shared: &Shared, address: IpAddr) -> Result<TcpStream, Fault> {
    if matches!(shared.security, Security::Plain) && !shared.insecure && !address.is_loopback() {
        return Err(Fault::new(Refusal::Mode, "this agent has no key and may not connect to other hosts"));
    }
    let port = lock(&shared.table).dials.port(address, shared.dial_port);
    let mine = shared.local.ip().to_canonical();
    let source = Some(mine).filter(|mine| !mine.is_unspecified() && mine.is_ipv4() == address.is_ipv4());
    let target = SocketAddr::new(address, port);
    net::dial(target, source, shared.timings.dial, &shared.stop).map_err(|error| {
        let refusal = if error.kind() == io::ErrorKind::TimedOut { Refusal::Slow } else { Refusal::Closed };
        Fault::new(refusal, format!("no connection to {target}: {error}"))
    })
}

fn bring_up(
    shared: &Arc<Shared>,
    stream: TcpStream,
    address: IpAddr,
    dialed: bool,
) -> Result<Connection, Fault> {
    let stream = Arc::new(stream);
    let number = {
        let mut table = lock(&shared.table);
        if table.stopping {
            return Err(Fault::new(Refusal::Stopping, "this agent is shutting down"));
        }
        let number = table.number();
        table.pending.insert(number, Pending { stream: Arc::clone(&stream), address, dialed });
        number
    };
    establish(shared, stream, number, address, dialed)
}

/// Shakes hands and settles that the connection is used.
fn establish(
    shared: &Arc<Shared>,
    stream: Arc<TcpStream>,
    number: u64,
    remote: IpAddr,
    dialed: bool,
) -> Result<Connection, Fault> {
    let established = attempt(shared, &stream, number, remote, dialed);
    let mut table = lock(&shared.table);
    let evicted = table.pending.remove(&number).is_none();
    match established {
        Err(_) if table.stopping => Err(Fault::new(Refusal::Stopping, "this agent is shutting down")),
        // Its socket was shut down to make room, whatever that looked like here.
        Err(fault) if evicted && fault.refusal == Refusal::Closed => {
            Err(Fault::new(Refusal::Crowded, "too many connections at once"))
        }
        established => established,
    }
}

fn attempt(
    shared: &Arc<Shared>,
    stream: &Arc<TcpStream>,
    pending: u64,
    remote: IpAddr,
    dialed: bool,
) -> Result<Connection, Fault> {
    let system = |error: io::Error| Fault::new(Refusal::System, error.to_string());
    net::prepare(stream, shared.timings.dead).map_err(system)?;
    let local = stream.local_addr().map_err(system)?.ip().to_canonical();
    let mut timed = Timed { stream, deadline: Instant::now() + shared.timings.handshake };
    let role = if dialed { Role::Dialer } else { Role::Listener };
    let (sealer, opener) = handshake(&mut timed, &shared.security, role)?;
    Candidate { shared, stream, pending, timed, sealer, opener, local, remote, dialed }.settle()
}

/// Reads until the end of a connection in use, while a second thread writes.
fn serve(shared: &Arc<Shared>, (link, sealer, mut opener): Connection) {
    let reason = match start_writer(shared, &link, sealer) {
        Ok(writer) => {
            let reason = link::read(shared, &link, &mut opener);
            // Told before the link is cut, which the writer would take for a reason of its own.
            shared.fail(&link, &reason);
            link.cut();
            let _ = writer.join();
            reason
        }
        Err(error) => format!("its writer could not be started: {error}"),
    };
    shared.fail(&link, &reason);
    link.cut();
    lock(&shared.table).links.remove(&link.peer);
}

fn start_writer(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    sealer: Sealer,
) -> io::Result<std::thread::JoinHandle<()>> {
    link::prepare(link, shared.timings.dead)?;
    let (shared, link) = (Arc::clone(shared), Arc::clone(link));
    threads::spawn("cv-write", move || link::write(&shared, &link, sealer))
}
