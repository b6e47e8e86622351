//! A memcached client that checks what it gets: `cache_client PORT CONNECTIONS`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use convoy_tests::kit::pattern;

/// Threads, each with its share of the connections.
const THREADS: usize = 4;

struct Connection {
    number: usize,
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn new(port: u16, number: usize) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { number, stream: BufReader::new(stream) }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.stream.read_line(&mut line).unwrap(), 0, "memcached has closed the connection");
        line.trim_end().to_owned()
    }

    fn value(&self, round: usize, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        pattern::fill(self.number as u64, (round * 100_000) as u64, &mut bytes);
        bytes
    }

    fn set(&mut self, round: usize, size: usize) {
        let mut request = format!("set key-{}-{round} 7 0 {size}\r\n", self.number).into_bytes();
        request.extend(self.value(round, size));
        request.extend(b"\r\n");
        self.send(&request);
        assert_eq!(self.line(), "STORED");
    }

    /// Reads one value of an answer and checks it.
    fn take_value(&mut self, round: usize, size: usize) {
        assert_eq!(self.line(), format!("VALUE key-{}-{round} 7 {size}", self.number));
        let mut bytes = vec![0; size + 2];
        self.stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes[size..], b"\r\n");
        assert!(bytes[..size] == self.value(round, size), "the value of key-{}-{round}", self.number);
    }

    fn get(&mut self, round: usize, size: usize) {
        self.send(format!("get key-{}-{round}\r\n", self.number).as_bytes());
        self.take_value(round, size);
        assert_eq!(self.line(), "END");
    }

    /// Several requests at once, answered in order.
    fn pipelined(&mut self, rounds: usize) {
        let request: String =
            (0..rounds).map(|round| format!("get key-{}-{round}\r\n", self.number)).collect();
        self.send(request.as_bytes());
        for round in 0..rounds {
            self.take_value(round, size(round));
            assert_eq!(self.line(), "END");
        }
    }

    /// One request for several keys.
    fn several(&mut self, rounds: usize) {
        let keys: String = (0..rounds).map(|round| format!(" key-{}-{round}", self.number)).collect();
        self.send(format!("get{keys}\r\n").as_bytes());
        (0..rounds).for_each(|round| self.take_value(round, size(round)));
        assert_eq!(self.line(), "END");
    }

    fn delete(&mut self, round: usize) {
        self.send(format!("delete key-{}-{round}\r\n", self.number).as_bytes());
        assert_eq!(self.line(), "DELETED");
        self.send(format!("get key-{}-{round}\r\n", self.number).as_bytes());
        assert_eq!(self.line(), "END");
    }
}

/// Sizes from a byte to some kilobytes.
fn size(round: usize) -> usize {
    1 + (round * round * 37) % 9000
}

fn work(port: u16, numbers: Vec<usize>) {
    let mut connections: Vec<Connection> =
        numbers.into_iter().map(|number| Connection::new(port, number)).collect();
    for round in 0..12 {
        connections.iter_mut().for_each(|connection| connection.set(round, size(round)));
        connections.iter_mut().for_each(|connection| connection.get(round, size(round)));
    }
    for connection in &mut connections {
        connection.pipelined(12);
        connection.several(12);
        connection.delete(3);
    }
    if let Some(connection) = connections.first_mut() {
        connection.set(100, 1_500_000);
        connection.get(100, 1_500_000);
    }
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let (port, connections): (u16, usize) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let numbers = (thread..connections).step_by(THREADS).collect();
            scope.spawn(move || work(port, numbers));
        }
    });
    println!("{connections} connections, all values right");
}
