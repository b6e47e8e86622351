//! One end of a connection, told what to do line by line: `talker listen` prints its port and accepts, `talker connect PORT`
//! connects. Every order is answered by a line when it is done.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

fn main() {
    // Whoever waits for an answer gets none, and fails.
    // SAFETY: no memory is involved.
    unsafe { libc::alarm(300) };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut stream = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["listen"] => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            say(&listener.local_addr().unwrap().port().to_string());
            listener.accept().unwrap().0
        }
        ["connect", port] => TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap(),
        _ => panic!("talker listen, or talker connect PORT"),
    };
    stream.set_nodelay(true).unwrap();
    say(&format!("{} {}", stream.local_addr().unwrap(), stream.peer_addr().unwrap()));
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let (order, number) = (words.next().unwrap(), words.next().map(|word| word.parse().unwrap()));
        say(&obey(&mut stream, order, number.unwrap_or(0)));
    }
}

fn obey(stream: &mut TcpStream, order: &str, number: usize) -> String {
    match order {
        // One message.
        "send" => stream.write_all(&vec![b'x'; number]).unwrap(),
        // So many messages of one byte.
        "spam" => (0..number).for_each(|_| stream.write_all(b"y").unwrap()),
        "take" => {
            let mut bytes = vec![0; number];
            stream.read_exact(&mut bytes).unwrap();
        }
        // Says how a read ends.
        "try" => {
            return match stream.read(&mut [0; 16]) {
                Ok(count) => format!("read {count}"),
                Err(error) => format!("{:?}", error.kind()),
            };
        }
        "shut" => stream.shutdown(Shutdown::Write).unwrap(),
        "fdopen" => {
            // SAFETY: a descriptor that stays open; the stream of stdio is left alone.
            assert!(!unsafe { libc::fdopen(stream.as_raw_fd(), c"r".as_ptr()) }.is_null());
        }
        // The program wants that number for itself.
        "seize" => {
            // SAFETY: whatever is behind that number is not used here.
            assert_eq!(unsafe { libc::dup2(2, number as i32) }, number as i32);
        }
        // A child that talks for a while, until the number of bytes has come.
        "child" => {
            // SAFETY: one thread; the child ends without a word.
            let child = unsafe { libc::fork() };
            if child == 0 {
                stream.write_all(b"child").unwrap();
                stream.read_exact(&mut vec![0; number]).unwrap();
                // SAFETY: the end.
                unsafe { libc::_exit(0) };
            }
            // SAFETY: a place that is not wanted.
            assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
        }
        // The program goes on without the connection.
        "close" => {
            // SAFETY: the descriptor is not used any more.
            unsafe { libc::close(stream.as_raw_fd()) };
        }
        "end" => std::process::exit(0),
        _ => panic!("no such order: {order}"),
    }
    "done".to_owned()
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}
