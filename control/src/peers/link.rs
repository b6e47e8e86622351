//! The two directions of a connection in use: the queue to be sent and its writer, the reader, and how far
//! the reader may run ahead of the agent. Not here: which links there are (`shared`).

use super::net;
use super::shared::Shared;
use super::{PeerId, SendError};
use crate::lock::{lock, wait, wait_for};
use crate::secure::channel::Assembler;
use crate::secure::handshake::{read_some, send};
use crate::secure::wire::{Kind, MAX_BODY};
use crate::secure::{Fault, Opener, Refusal, Sealer};
use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Bytes read, and about as many written, with one call.
const CHUNK: usize = 64 << 10;
/// Messages written with one call: encrypting very many small ones would look like silence meanwhile.
const BATCH: usize = 128;
/// How long the other end may take to close the connection after a goodbye.
const LINGER: Duration = Duration::from_millis(500);
/// The longest reason of a goodbye that is sent or believed, in characters.
const MAX_REASON: usize = 200;

/// What went over a link.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) messages_in: AtomicU64,
    pub(super) messages_out: AtomicU64,
}

/// How much of a link's messages waits to be taken out of the events.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    room: Mutex<Room>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Room {
    unread: usize,
    /// Nobody wants more of it: the reader need not wait.
    released: bool,
}

impl Inbox {
    /// A message of `bytes` was taken out of the events.
    pub(super) fn taken(&self, bytes: usize) {
        lock(&self.room).unread -= bytes;
        self.changed.notify_all();
    }

    fn release(&self) {
        lock(&self.room).released = true;
        self.changed.notify_all();
    }

    /// Waits until `bytes` more may wait. A single message may always.
    fn reserve(&self, bytes: usize, limit: usize) {
        let mut room = lock(&self.room);
        while !room.released && room.unread > 0 && room.unread + bytes > limit {
            room = wait(&self.changed, room);
        }
        room.unread += bytes;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Open,
    /// To be ended after what is queued, with a goodbye for this reason.
    Closing(String),
    Ended,
}

#[derive(Debug)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    state: State,
}

/// A connection in use.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: PeerId,
    pub(super) inbox: Arc<Inbox>,
    pub(super) traffic: Traffic,
    stream: Arc<TcpStream>,
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Link {
    pub(super) fn new(peer: PeerId, stream: Arc<TcpStream>) -> Link {
        Link {
            peer,
            inbox: Arc::default(),
            traffic: Traffic::default(),
            stream,
            queue: Mutex::new(Queue { messages: VecDeque::new(), bytes: 0, state: State::Open }),
            ready: Condvar::new(),
        }
    }

    /// Queues a message, up to `messages` of them with together `bytes`.
    pub(super) fn queue(&self, message: Vec<u8>, messages: usize, bytes: usize) -> Result<(), SendError> {
        let mut queue = lock(&self.queue);
        if queue.state != State::Open {
            return Err(SendError::Down);
        }
        // A single message may always wait.
        let full = !queue.messages.is_empty() && queue.bytes + message.len() > bytes;
        if full || queue.messages.len() >= messages {
            return Err(SendError::Overflow);
        }
        queue.bytes += message.len();
        queue.messages.push_back(message);
        drop(queue);
        self.ready.notify_all();
        Ok(())
    }

    /// Messages and bytes waiting to be sent.
    pub(super) fn queued(&self) -> (usize, usize) {
        let queue = lock(&self.queue);
        (queue.messages.len(), queue.bytes)
    }

    /// Ends the link after what is queued and a goodbye. What still arrives is read and dropped, so that
    /// the kernel delivers the goodbye.
    pub(super) fn close(&self, reason: &str) {
        let mut queue = lock(&self.queue);
        if queue.state == State::Open {
            queue.state = State::Closing(reason.chars().take(MAX_REASON).collect());
        }
        drop(queue);
        self.ready.notify_all();
        self.inbox.release();
    }

    /// Ends the link at once.
    pub(super) fn cut(&self) {
        let mut queue = lock(&self.queue);
        queue.state = State::Ended;
        queue.messages.clear();
        queue.bytes = 0;
        drop(queue);
        self.ready.notify_all();
        self.inbox.release();
        // It may be gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// What the writer shall do next.
    fn next(&self, beat: Instant) -> Work {
        let mut queue = lock(&self.queue);
        loop {
            if queue.state == State::Ended {
                return Work::End;
            }
            if !queue.messages.is_empty() {
                let mut batch = Vec::new();
                let mut bytes = 0;
                while bytes < CHUNK
                    && batch.len() < BATCH
                    && let Some(message) = queue.messages.pop_front()
                {
                    bytes += message.len();
                    batch.push(message);
                }
                queue.bytes -= bytes;
                return Work::Send(batch);
            }
            if let State::Closing(reason) = &queue.state {
                return Work::Goodbye(reason.clone());
            }
            let left = beat.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Work::Heartbeat;
            }
            queue = wait_for(&self.ready, queue, left);
        }
    }

    /// Waits until the link has ended, at most for [`LINGER`].
    fn linger(&self) {
        let until = Instant::now() + LINGER;
        let mut queue = lock(&self.queue);
        while queue.state != State::Ended && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            queue = wait_for(&self.ready, queue, left);
        }
    }
}

enum Work {
    Send(Vec<Vec<u8>>),
    Heartbeat,
    Goodbye(String),
    End,
}

/// The writer's thread: sends what is queued, and heartbeats in between, until the link ends.
pub(super) fn write(shared: &Shared, link: &Link, mut sealer: Sealer) {
    if let Err(fault) = write_until_end(link, &mut sealer, shared.timings.heartbeat) {
        let reason = match fault.refusal {
            Refusal::Slow => format!("the peer took nothing for {:?}", shared.timings.dead),
            _ => fault.reason,
        };
        shared.fail(link, &reason);
    }
    link.cut();
}

fn write_until_end(link: &Link, sealer: &mut Sealer, heartbeat: Duration) -> Result<(), Fault> {
    let mut out = Vec::with_capacity(CHUNK);
    let mut beat = Instant::now() + heartbeat;
    loop {
        let work = link.next(beat);
        out.clear();
        let mut messages = 0;
        match &work {
            Work::Send(batch) => {
                for message in batch {
                    sealer.seal_message(message, &mut out)?;
                    messages += 1;
                }
            }
            Work::Heartbeat => sealer.seal(Kind::Heartbeat, &[], &mut out)?,
            Work::Goodbye(reason) => sealer.seal(Kind::Goodbye, reason.as_bytes(), &mut out)?,
            Work::End => return Ok(()),
        }
        // Before they are sent, so that who sees an answer sees them counted.
        link.traffic.bytes_out.fetch_add(out.len() as u64, Ordering::Relaxed);
        link.traffic.messages_out.fetch_add(messages, Ordering::Relaxed);
        send(&mut &*link.stream, &out)?;
        if matches!(work, Work::Goodbye(_)) {
            // It may be gone already.
            let _ = link.stream.shutdown(Shutdown::Write);
            link.linger();
            return Ok(());
        }
        beat = Instant::now() + heartbeat;
    }
}

/// Reads until the connection ends, and says why it did.
pub(super) fn read(shared: &Shared, link: &Arc<Link>, opener: &mut Opener) -> String {
    let mut assembler = Assembler::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        match take(shared, link, opener, &mut assembler) {
            Ok(None) => {}
            Ok(Some(reason)) => return reason,
            Err(fault) => return fault.reason,
        }
        match read_some(&mut &*link.stream, &mut chunk) {
            Ok(count) => {
                link.traffic.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
                opener.push(&chunk[..count]);
            }
            Err(fault) if fault.refusal == Refusal::Slow => {
                return format!("nothing was received for {:?}", shared.timings.dead);
            }
            Err(fault) => return fault.reason,
        }
    }
}

/// Takes all whole records; the reason for which the connection ends, if one says so.
fn take(
    shared: &Shared,
    link: &Arc<Link>,
    opener: &mut Opener,
    assembler: &mut Assembler,
) -> Result<Option<String>, Fault> {
    while let Some((kind, body)) = opener.record()? {
        match kind {
            Kind::Heartbeat => {}
            Kind::Part | Kind::Last => {
                if let Some(message) = assembler.add(body, kind == Kind::Last)? {
                    link.traffic.messages_in.fetch_add(1, Ordering::Relaxed);
                    link.inbox.reserve(message.len(), shared.limits.unread_bytes);
                    shared.deliver(link, message);
                }
            }
            Kind::Goodbye => return Ok(Some(format!("the peer closed the connection: {}", readable(body)))),
            Kind::Hello | Kind::Refuse | Kind::Propose | Kind::Accept => {
                let reason = format!("a record of kind {kind:?} in the middle of a connection");
                return Err(Fault::new(Refusal::Malformed, reason));
            }
        }
    }
    Ok(None)
}

/// Text from a peer as one line of bounded length, for events and logs.
pub(super) fn readable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_BODY)]);
    text.chars().take(MAX_REASON).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Sets the times after which a connection in use counts as dead.
pub(super) fn prepare(link: &Link, dead: Duration) -> std::io::Result<()> {
    link.stream.set_read_timeout(Some(dead))?;
    link.stream.set_write_timeout(Some(dead))?;
    net::prepare(&link.stream, dead)
}
