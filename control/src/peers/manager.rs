//! The thread that accepts connections and starts dials when they are due. It waits for nothing else, so
//! nobody who connects can hold up anybody. Not here: what becomes of connections (`connection`).

use super::connection;
use super::net;
use super::shared::{Pending, Shared, Table};
use crate::lock::lock;
use crate::secure::{Fault, Refusal};
use rustix::event::{PollFd, PollFlags};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pause after the kernel had no descriptor or memory for a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before the clock is looked at again.
const BATCH: usize = 64;

/// Runs until the service stops.
pub(super) fn run(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut paused: Option<Instant> = None;
    loop {
        reap(shared);
        let (addresses, due, full) = {
            let mut table = lock(&shared.table);
            if table.stopping {
                return;
            }
            let addresses = table.dials.begin(Instant::now(), &shared.limits);
            (addresses, table.dials.next_due(), full(shared, &table))
        };
        for address in addresses {
            let begun = shared.spawn("cv-dial", move |shared| connection::dial(shared, address));
            if !begun {
                shared.dial_failed(address, &no_thread());
            }
        }
        paused = paused.filter(|until| Instant::now() < *until);
        let deadline = [due, paused].into_iter().flatten().min();
        let mut polled = [PollFd::new(&shared.nudge, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        let watched = if full || paused.is_some() { 1 } else { 2 };
        if let Err(error) = net::wait(&mut polled[..watched], deadline) {
            tracing::error!(%error, "waiting for connections failed");
            std::thread::sleep(PAUSE);
        }
        net::reset(&shared.nudge);
        if paused.is_none() && !accept(shared, listener) {
            paused = Some(Instant::now() + PAUSE);
        }
    }
}

/// Joins threads that have come to their end.
fn reap(shared: &Shared) {
    let ended: Vec<_> = lock(&shared.table).threads.extract_if(.., |thread| thread.is_finished()).collect();
    for thread in ended {
        let _ = thread.join();
    }
}

/// Whether so many handshakes have not ended that no more can begin, for the moment that those which had to
/// give way need to end. Who connects meanwhile waits in the kernel, and is not turned away for it.
fn full(shared: &Shared, table: &Table) -> bool {
    table.handshaking >= shared.limits.half_open.saturating_mul(2).max(1)
}

/// Takes in who has connected; false when the kernel cannot for want of something.
fn accept(shared: &Arc<Shared>, listener: &TcpListener) -> bool {
    for _ in 0..BATCH {
        if full(shared, &lock(&shared.table)) {
            return true;
        }
        match listener.accept() {
            Ok((stream, address)) => begin(shared, stream, address.ip().to_canonical()),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return true,
                // One that was gone before it was taken in.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                _ => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    return false;
                }
            },
        }
    }
    true
}

fn begin(shared: &Arc<Shared>, stream: TcpStream, address: IpAddr) {
    let stream = Arc::new(stream);
    let number = {
        let mut table = lock(&shared.table);
        make_room(&mut table, shared.limits.half_open);
        table.handshaking += 1;
        let number = table.number();
        table.pending.insert(number, Pending { stream: Arc::clone(&stream), address, dialed: false });
        number
    };
    let begun = shared.spawn("cv-peer", move |shared| connection::accepted(shared, stream, number, address));
    if !begun {
        let mut table = lock(&shared.table);
        table.handshaking -= 1;
        table.pending.remove(&number);
        drop(table);
        connection::refuse(shared, address, &no_thread());
    }
}

/// Leaves room for one more handshake: if there are `limit`, the oldest of the address that has most of
/// them gives way. An honest peer is through in no time and rarely the oldest; who holds many loses first.
fn make_room(table: &mut Table, limit: usize) {
    let mut held: HashMap<IpAddr, (usize, u64)> = HashMap::new();
    let mut count = 0;
    for (number, pending) in table.pending.iter().filter(|(_, pending)| !pending.dialed) {
        let (connections, oldest) = held.entry(pending.address).or_insert((0, *number));
        *connections += 1;
        *oldest = (*oldest).min(*number);
        count += 1;
    }
    if count < limit {
        return;
    }
    let most = held.into_values().max_by_key(|(connections, oldest)| (*connections, u64::MAX - oldest));
    if let Some(pending) = most.and_then(|(_, oldest)| table.pending.remove(&oldest)) {
        // It may be gone already.
        let _ = pending.stream.shutdown(Shutdown::Both);
    }
}

fn no_thread() -> Fault {
    Fault::new(Refusal::System, "no thread for the connection")
}
