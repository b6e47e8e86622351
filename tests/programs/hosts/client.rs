//! The end that connects.

use std::net::TcpStream;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use convoy_tests::kit::{Stream, sys};
use convoy_tests::say;

use super::end::End;
use super::options::{Options, Random};

/// Bytes that came back between two words about progress.
const UNIT: u64 = 256 << 10;
/// Connections that are made at the same time, one after the other in each thread.
const SHORT_THREADS: u64 = 4;

pub fn run(options: &Options) {
    if options.scenario == "short" {
        return short(options);
    }
    let streams: Vec<Stream> = (0..options.connections).map(|number| connect(number, options)).collect();
    warm_up(&streams, options);
    streams.iter().for_each(|stream| End::prepare(stream.fd, options));
    match options.scenario.as_str() {
        "slow" => slow(&streams, options),
        "parting" => parting(&streams, options),
        "echo" => {
            let came = Arc::new(AtomicU64::new(0));
            all(&streams, options, move |stream, options| echo(stream, options, &came));
        }
        _ => all(&streams, options, one),
    }
}

/// Connects and says which connection this is.
fn connect(number: u64, options: &Options) -> Stream {
    let stream = TcpStream::connect(options.address).unwrap_or_else(|error| panic!("connect: {error}"));
    stream.set_nodelay(options.no_delay).unwrap();
    let stream = Stream::new(stream.into_raw_fd(), number, true);
    assert_eq!(sys::send(stream.fd, &number.to_le_bytes(), 0), Ok(8), "introduction of {number}");
    stream
}

/// Bytes go to and fro on all connections, until somebody says go.
fn warm_up(streams: &[Stream], options: &Options) {
    let exchange = |word: &[u8]| {
        for stream in streams {
            assert_eq!(sys::send(stream.fd, word, 0), Ok(1));
        }
        for stream in streams {
            let mut answer = [0];
            assert_eq!(sys::recv(stream.fd, &mut answer, 0), Ok(1));
            assert_eq!(&answer, word);
        }
    };
    exchange(b"p");
    say!("connected");
    while !options.may_go() {
        exchange(b"p");
        thread::sleep(Duration::from_millis(1));
    }
    exchange(b"g");
}

/// Does the same with all connections at once, and says in order what came of it.
fn all(streams: &[Stream], options: &Options, work: impl Fn(Stream, &Options) -> String + Send + Sync) {
    let results: Vec<String> = thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> =
            streams.iter().map(|stream| scope.spawn(move || work(*stream, options))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (number, result) in results.iter().enumerate() {
        say!("connection {number}: {result}");
    }
}

/// A result that the other end's death may have brought about.
fn checked(result: Result<(), String>, options: &Options) -> String {
    match result {
        Ok(()) => "all".into(),
        Err(error) if options.tolerant => error,
        Err(error) => panic!("the connection broke: {error}"),
    }
}

fn echo(stream: Stream, options: &Options, came: &AtomicU64) -> String {
    let (sent, sending) = thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut end = End::new(stream, options);
            let limit = if options.bytes > 0 { options.bytes } else { u64::MAX };
            let result = end.send_until(|sent| options.done(sent), limit);
            if result.is_ok() {
                sys::shutdown(stream.fd, libc::SHUT_WR).unwrap_or_else(|error| {
                    assert!(options.tolerant, "shutdown: {error}");
                    0
                });
            }
            (end.stream.out.position, checked(result, options))
        });
        let mut end = End::new(stream, options);
        let stop = loop {
            match end.receive() {
                Ok(0) => break "end".to_owned(),
                Ok(count) => {
                    let before = came.fetch_add(count as u64, Ordering::Relaxed);
                    let after = before + count as u64;
                    if options.bytes == 0 && before / UNIT != after / UNIT {
                        say!("progress {}", after / UNIT);
                    }
                }
                Err(error) => break error.to_string(),
            }
        };
        let (sent, sending) = sender.join().unwrap();
        let received = end.stream.inn.position;
        let whole = sent == received && stop == "end";
        assert!(whole || options.tolerant, "{sent} bytes sent, {received} came back, then {stop}");
        (sent, format!("{sending}, then {stop}"))
    });
    sys::close(stream.fd).unwrap();
    if options.bytes > 0 { format!("{sent} bytes and back, {sending}") } else { sending }
}

fn one(stream: Stream, options: &Options) -> String {
    let mut end = End::new(stream, options);
    let said = match options.scenario.as_str() {
        "pingpong" => {
            let mut sizes = Random::new(options.seed ^ stream.out.seed);
            let mut rounds = 0;
            while end.stream.out.position < options.bytes {
                let (ask, answer) = (sizes.size(11), sizes.size(11));
                // Nothing may become of it.
                assert_eq!(sys::send(stream.fd, &[], 0), Ok(0));
                end.send_all(ask).and_then(|()| end.receive_all(answer)).expect("ping");
                rounds += 1;
            }
            format!("{rounds} rounds")
        }
        "oneway" => checked(end.send_bytes(options.bytes), options),
        "halfclose" => {
            let said = checked(end.send_bytes(options.bytes), options);
            sys::shutdown(stream.fd, libc::SHUT_WR).unwrap();
            let stop = end.receive_to_end();
            format!("sent {said}, received {} then {stop}", end.stream.inn.position)
        }
        "exit" => {
            let stop = end.receive_to_end();
            format!("received {} then {stop}", end.stream.inn.position)
        }
        "unread" => {
            end.stream.await_bytes(usize::try_from(options.bytes).unwrap());
            format!("took {:?}", end.receive_most(1).map_err(|error| error.to_string()))
        }
        other => panic!("no scenario is called {other}"),
    };
    drop(end);
    sys::close(stream.fd).unwrap();
    said
}

/// All connections but the first are sent on and closed with the last byte; the server has the first until it knows of their ends.
fn parting(streams: &[Stream], options: &Options) {
    all(&streams[1..], options, |stream, options| {
        let mut end = End::new(stream, options);
        let said = checked(end.send_until(|sent| options.done(sent), u64::MAX), options);
        let sent = end.stream.out.position;
        drop(end);
        sys::close(stream.fd).unwrap();
        format!("sent {sent}, {said}")
    });
    all(&streams[..1], options, |stream, options| {
        let said = End::new(stream, options).receive_to_end();
        sys::close(stream.fd).unwrap();
        said
    });
}

/// The first connection is read from when all others have ended.
fn slow(streams: &[Stream], options: &Options) {
    let read = |stream: Stream, options: &Options| {
        let mut end = End::new(stream, options);
        let stop = end.receive_to_end();
        let said = format!("{} bytes then {stop}", end.stream.inn.position);
        drop(end);
        sys::close(stream.fd).unwrap();
        said
    };
    all(&streams[1..], options, read);
    say!("the others have ended");
    all(&streams[..1], options, read);
}

/// How many messages there are on a short connection.
pub fn short_rounds(number: u64) -> u64 {
    1 + number % 16
}

fn short(options: &Options) {
    say!("connected");
    while !options.may_go() {
        thread::sleep(Duration::from_millis(1));
    }
    thread::scope(|scope| {
        for first in 0..SHORT_THREADS {
            scope.spawn(move || {
                let step = usize::try_from(SHORT_THREADS).unwrap();
                for number in (first..options.connections).step_by(step) {
                    let stream = connect(number, options);
                    End::prepare(stream.fd, options);
                    let mut end = End::new(stream, options);
                    let mut sizes = Random::new(options.seed ^ stream.out.seed);
                    for round in 0..short_rounds(number) {
                        let (ask, answer) = (sizes.size(11), sizes.size(11));
                        let result = end.send_all(ask).and_then(|()| end.receive_all(answer));
                        result.unwrap_or_else(|error| panic!("connection {number} round {round}: {error}"));
                    }
                    drop(end);
                    sys::close(stream.fd).unwrap();
                }
            });
        }
    });
    say!("{} connections", options.connections);
}
