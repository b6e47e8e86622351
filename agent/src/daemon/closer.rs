//! Closes descriptors that programs have passed, on threads that do nothing else: the last close of a socket with SO_LINGER,
//! or of a file whose file system is the program's own, may take as long as the program likes. Each user has threads of its own.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads that may be stuck at a time; a new one begins when all others are busy, and one ends when another is idle.
const MOST_THREADS: usize = 32;
/// Descriptors that may wait for them. More are left open.
const MOST_WAITING: usize = 4096;

pub(super) struct Closer {
    queue: SyncSender<OwnedFd>,
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Receiver<OwnedFd>>,
    /// Descriptors that were given and are not closed.
    open: AtomicUsize,
    /// Threads there are. Whoever gives a descriptor counts it in `open` and looks here; a thread that ends counts itself out and
    /// looks there: all are SeqCst, so one of the two sees the other.
    threads: AtomicUsize,
}

impl Closer {
    pub(super) fn new() -> Self {
        let (queue, waiting) = sync_channel(MOST_WAITING);
        let shared =
            Shared { waiting: Mutex::new(waiting), open: AtomicUsize::new(0), threads: AtomicUsize::new(0) };
        Self { queue, shared: Arc::new(shared) }
    }

    /// Closes a descriptor some time, without waiting for it.
    pub(super) fn close(&mut self, descriptor: OwnedFd) {
        let open = self.shared.open.fetch_add(1, Ordering::SeqCst) + 1;
        let threads = self.shared.threads.load(Ordering::SeqCst);
        if open > threads && threads < MOST_THREADS {
            self.begin_thread();
        }
        if let Err(TrySendError::Full(rest) | TrySendError::Disconnected(rest)) =
            self.queue.try_send(descriptor)
        {
            // Better open for ever than closed by a thread that others wait for.
            core::mem::forget(rest);
        }
    }

    /// Descriptors that were given and are not closed yet.
    pub(super) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    fn begin_thread(&self) {
        let shared = Arc::clone(&self.shared);
        shared.threads.fetch_add(1, Ordering::SeqCst);
        let started = std::thread::Builder::new().name("convoy-closer".into()).spawn(move || shared.work());
        if started.is_err() {
            self.shared.threads.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Ok(descriptor) = self.next() {
            drop(descriptor);
            self.open.fetch_sub(1, Ordering::SeqCst);
            if self.ends_one() {
                return;
            }
        }
    }

    /// One thread waits for a descriptor, the others for their turn.
    fn next(&self) -> Result<OwnedFd, RecvError> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).recv()
    }

    /// Whether the calling thread, which is idle, is to end: it is counted out then.
    fn ends_one(&self) -> bool {
        let open = || self.open.load(Ordering::SeqCst);
        let one_less = |threads| if threads > open() + 1 { Some(threads - 1) } else { None };
        let Ok(before) = self.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) else {
            return false;
        };
        let missed = open() >= before;
        if missed {
            self.threads.fetch_add(1, Ordering::SeqCst);
        }
        !missed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// A connection whose last close lasts as long as the other end does not read.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let there = listener.accept().unwrap().0;
        rustix::net::sockopt::set_socket_linger(&here, Some(Duration::from_secs(60))).unwrap();
        here.set_nonblocking(true).unwrap();
        while std::io::Write::write(&mut &here, &[0; 65536]).is_ok() {}
        (here.into(), there)
    }

    #[test]
    fn nobody_waits_for_sockets_that_linger() {
        let mut closer = Closer::new();
        let began = Instant::now();
        let pairs: Vec<_> = (0..3).map(|_| lingering()).collect();
        let others: Vec<TcpStream> =
            pairs.into_iter().map(|(here, there)| (closer.close(here), there).1).collect();
        let (last, mut reader) = std::io::pipe().map(|(reader, writer)| (writer, reader)).unwrap();
        closer.close(last.into());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "closed although three threads are stuck");
        assert!(began.elapsed() < Duration::from_secs(50));
        drop(others);
    }

    #[test]
    fn of_many_threads_one_stays() {
        let mut closer = Closer::new();
        let (stuck, others): (Vec<_>, Vec<_>) = (0..8).map(|_| lingering()).unzip();
        stuck.into_iter().for_each(|socket| closer.close(socket));
        assert_eq!(closer.shared.threads.load(Ordering::SeqCst), 8);
        // What was not read: the close that waits for it ends with an error.
        drop(others);
        let began = Instant::now();
        while closer.shared.threads.load(Ordering::SeqCst) > 1 {
            assert!(began.elapsed() < Duration::from_secs(50));
            std::thread::sleep(Duration::from_millis(10));
        }
        let (mut reader, writer) = std::io::pipe().unwrap();
        closer.close(writer.into());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}
