//! At the socket of an agent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use convoy_tests::kit::sys;
use convoy_tests::kit::to_agent::{self, BELL, DECLINED, HELLO, OFFER, VERSION};

/// How long the agent may take for an answer, in milliseconds.
const PATIENCE: i32 = 60_000;

/// Offers a connection of this network namespace, made here between addresses that somebody else's connection has in another.
pub fn offer(agent: &Path, local: SocketAddr, remote: SocketAddr) {
    let listener = TcpListener::bind(remote).unwrap();
    let socket = sys::descriptor(
        // SAFETY: no memory is involved.
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) },
    );
    let (mut own, mut other) = (address_of(local), address_of(remote));
    let length = size_of::<libc::sockaddr_in>() as u32;
    // SAFETY: valid addresses with their length; the descriptor is new.
    let stream = unsafe {
        assert_eq!(libc::bind(socket, (&raw mut own).cast(), length), 0, "bind");
        assert_eq!(libc::connect(socket, (&raw mut other).cast(), length), 0, "connect");
        TcpStream::from(OwnedFd::from_raw_fd(socket))
    };
    let _there = listener.accept().unwrap();
    assert_eq!((stream.local_addr().unwrap(), stream.peer_addr().unwrap()), (local, remote));
    let to_agent = to_agent::connect(agent, libc::SOCK_SEQPACKET).expect("the agent's socket");
    assert!(to_agent::send(&to_agent, &to_agent::message(OFFER, 0, 4711, 0), &[stream.as_raw_fd()]));
    let mut answer = [0; 256];
    assert_ne!(sys::poll_one(to_agent.as_raw_fd(), libc::POLLIN, PATIENCE), 0, "no answer");
    let count = sys::recv(to_agent.as_raw_fd(), &mut answer, 0).unwrap_or(0) as usize;
    let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
    match count {
        0 => println!("got hung up on"),
        _ if word(0) == DECLINED => println!("declined {}", word(4)),
        _ => println!("got answer {}", word(0)),
    }
}

fn address_of(address: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(address) = address else { panic!("IPv4") };
    // SAFETY: all zeros is a valid address.
    let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    raw.sin_family = libc::AF_INET as u16;
    raw.sin_port = address.port().to_be();
    raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
    raw
}

/// Everything that a user can make an agent hold or do, again and again.
pub fn flood(agent: &Path, kind: &str) {
    let most_held = sys::raise_nofile() / 2;
    let mut held: Vec<OwnedFd> = Vec::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut announced = false;
    loop {
        let Some(socket) = to_agent::connect(agent, libc::SOCK_SEQPACKET) else {
            // No room in the backlog, or no descriptors left: both are what was wanted.
            std::thread::yield_now();
            continue;
        };
        match kind {
            "connections" => held.push(socket),
            "hellos" => {
                let (segment, bells) = (to_agent::memory(16 << 20, true), to_agent::memory(4096, true));
                let passed = [segment.as_raw_fd(), bells.as_raw_fd()];
                to_agent::send(&socket, &to_agent::message(HELLO, VERSION, 0, 1), &passed);
                held.push(socket);
            }
            "offers" => {
                for id in 0..10_000 {
                    if !to_agent::send(
                        &socket,
                        &to_agent::message(OFFER, 0, id, 0),
                        &[connection.as_raw_fd()],
                    ) {
                        break;
                    }
                }
            }
            "nonsense" => {
                to_agent::send(&socket, &to_agent::message(BELL, 1, 1, 1), &[connection.as_raw_fd(); 100]);
            }
            _ => panic!("no such kind"),
        }
        // What it cannot hold any more it gives back, and begins anew.
        if held.len() > most_held {
            held.clear();
        }
        if !announced {
            println!("floods");
            std::io::stdout().flush().unwrap();
            announced = true;
        }
    }
}

/// Listens where programs look for their agent.
pub fn pose(path: &Path) {
    let mut address: libc::sockaddr_un =
        // SAFETY: all zeros is a valid address.
        unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (place, byte) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *place = *byte as libc::c_char;
    }
    // SAFETY: a valid address with its length; the descriptor is new.
    let listener = unsafe {
        let socket = sys::descriptor(libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0));
        let length = size_of::<libc::sockaddr_un>() as u32;
        assert_eq!(libc::bind(socket, (&raw const address).cast(), length), 0, "bind");
        assert_eq!(libc::listen(socket, 16), 0, "listen");
        OwnedFd::from_raw_fd(socket)
    };
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    println!("poses");
    loop {
        // SAFETY: no address is wanted.
        let program =
            unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
        // SAFETY: a new descriptor.
        let mut program = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(sys::descriptor(program)) });
        println!("a program connects");
        let mut message = [0; 256];
        match program.read(&mut message) {
            Ok(count) if count > 0 => println!("got message {}", message[0]),
            _ => println!("it says nothing"),
        }
    }
}
