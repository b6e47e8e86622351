//! Nonsense at every door of an agent while traffic runs: the control port, and the socket for programs.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use convoy_tests::hosts::{Host, Pair, Plan, World};
use convoy_tests::kit::to_agent::{self, BELL, HELLO, OFFER, PING, VERSION, memory, message, send};
use convoy_tests::kit::{net, pattern, sys};

use crate::common::{Expect, TCP, check, convoy, job};

/// The port on which agents listen for each other.
const CONTROL_PORT: u16 = 4792;

/// Agents, and streams between their hosts that go on until they are stopped.
fn traffic(world: &World) -> Pair<'_> {
    world.start_agents();
    let mut pair = job("echo", 4, "--bytes 0 --pace 300").start(world.host(1), world.host(0));
    pair.connected();
    pair.accelerated();
    pair.go();
    pair.goes_on(1);
    pair
}

/// Runs nonsense beside traffic, which must not notice; nor may the agents end or lose their link.
fn beside_traffic(nonsense: impl Fn(&World, &mut Pair<'_>)) {
    convoy(TCP, &Plan::pair(), |world| {
        let mut pair = traffic(world);
        nonsense(world, &mut pair);
        pair.goes_on(2);
        pair.stop();
        pair.succeeds();
        (0..2).for_each(|host| world.host(host).agent_lives());
        world.check(world.links_up() == [1, 1], &format!("links of each host: {:?}", world.links_up()));
        check(world, Expect::Far);
        job("echo", 2, "--bytes 50000").port(7001).run(world.host(1), world.host(0));
    });
}

/// Sends bytes to a host's control port from another host, and reads until the agent hangs up.
fn say_to_control_port(world: &World, from: Host<'_>, to: Host<'_>, bytes: &[u8]) {
    let address = SocketAddr::new(to.address(), CONTROL_PORT);
    world.network().inside(from.number(), || {
        let mut stream = TcpStream::connect(address).expect("the control port");
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // The agent may hang up before it has everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    });
}

fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    pattern::fill(seed, 0, &mut bytes);
    bytes
}

/// Somebody at the place of a host's agent who hangs up on programs, so often. They come every 2 s.
fn hang_up(host: Host<'_>, times: usize) {
    let path = host.agent_socket();
    let _ = fs::remove_file(&path);
    let listener = to_agent::listen(&path);
    for _ in 0..times {
        assert_ne!(sys::poll_one(listener.as_raw_fd(), libc::POLLIN, 60_000), 0, "no program comes");
        let connection = net::accept(listener.as_raw_fd(), libc::SOCK_CLOEXEC).expect("a program");
        sys::close(connection).expect("close");
    }
    fs::remove_file(&path).expect("a socket");
}

/// What programs keep of such an agent must not get into the way of the next one, or of anything else they do.
#[test]
fn an_agent_that_hangs_up() {
    /// After that a program has closed what it had of an agent that is gone.
    const OVER: Duration = Duration::from_secs(13);
    convoy(TCP, &Plan::pair(), |world| {
        let mut pair = traffic(world);
        world.host(0).kill_agent();
        hang_up(world.host(0), 3);
        world.host(0).start_agent(&["--insecure"]);
        let far = || world.live(None).get("streams_far");
        world.eventually("the streams leave the kernel again", || far() >= 2 * 2 * 4);
        let (before, began) = (far(), Instant::now());
        while began.elapsed() < OVER {
            pair.goes_on(1);
        }
        world.check(far() == before, "they have lost the agent and found it again");
        pair.stop();
        pair.succeeds();
        world.host(0).agent_lives();
    });
}

#[test]
fn garbage_on_the_control_port() {
    beside_traffic(|world, pair| {
        let (one, two) = (world.host(0), world.host(1));
        let mut huge = vec![0xff, 0xff, 0xff, 0xff];
        huge.extend(random_bytes(9, 300_000));
        let mut long = 65_535_u32.to_le_bytes().to_vec();
        long.extend(random_bytes(10, 65_535));
        let requests = [
            b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n".to_vec(),
            random_bytes(1, 10),
            random_bytes(2, 100_000),
            vec![0; 200_000],
            huge,
            long,
        ];
        for bytes in &requests {
            say_to_control_port(world, one, two, bytes);
            say_to_control_port(world, two, one, bytes);
        }
        pair.goes_on(1);
    });
}

/// Connections that say nothing for ever, more than an agent looks after at one time.
#[test]
fn silent_connections_to_the_control_port() {
    beside_traffic(|world, pair| {
        let address = SocketAddr::new(world.host(1).address(), CONTROL_PORT);
        let silent: Vec<TcpStream> =
            world.network().inside(0, || (0..150).filter_map(|_| TcpStream::connect(address).ok()).collect());
        world.check(!silent.is_empty(), "nobody listens on the control port");
        pair.goes_on(2);
        drop(silent);
    });
}

/// A connection to the agent's socket for programs.
fn to_agent(world: &World, host: Host<'_>) -> OwnedFd {
    let socket = to_agent::connect(&host.agent_socket(), libc::SOCK_SEQPACKET);
    socket.unwrap_or_else(|| world.fail("the agent's socket"))
}

/// Waits until the agent has hung up.
fn hung_up(socket: &OwnedFd) {
    loop {
        let ready = sys::poll_one(socket.as_raw_fd(), libc::POLLIN, 60_000);
        assert!(ready != 0, "the agent neither answers nor hangs up");
        match sys::recv(socket.as_raw_fd(), &mut [0; 256], 0) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

#[test]
fn garbage_on_the_socket_for_programs() {
    beside_traffic(|world, pair| {
        let host = world.host(1);
        let file = fs::File::open("/dev/null").unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let odd = [file.as_raw_fd(), socket.as_raw_fd()];
        for size in [1, 31, 32, 33, 4000] {
            for seed in 0..20 {
                let to_agent = to_agent(world, host);
                send(&to_agent, &random_bytes(seed + 1, size), &odd[..(seed % 3) as usize]);
            }
        }
        // Every known kind of message, at the wrong time and with the wrong descriptors.
        for kind in 0..12 {
            for count in 0..3 {
                let to_agent = to_agent(world, host);
                send(&to_agent, &message(kind, VERSION, u64::MAX, u64::MAX), &odd[..count]);
                send(&to_agent, &message(kind, 0, 0, 0), &odd[..count]);
            }
        }
        // More descriptors than any message has.
        let to_agent = to_agent(world, host);
        send(&to_agent, &message(HELLO, VERSION, 0, 0), &[odd[0]; 20]);
        pair.goes_on(1);
    });
}

#[test]
fn hello_with_memory_that_cannot_be_used() {
    beside_traffic(|world, pair| {
        let host = world.host(1);
        let page = memory(4096, true);
        for (bytes, sealed) in [
            (0, false),
            (0, true),
            (100, true),
            (4096, false),
            (4096, true),
            (8 << 20, false),
            (64 << 20, true),
        ] {
            let (to_agent, segment) = (to_agent(world, host), memory(bytes, sealed));
            let passed = [segment.as_raw_fd(), page.as_raw_fd()];
            send(&to_agent, &message(HELLO, VERSION, 0, 77), &passed);
            // Memory that becomes smaller under the agent must not be able to hurt it.
            // SAFETY: no memory is involved.
            let _ = unsafe { libc::ftruncate(segment.as_raw_fd(), 0) };
            hung_up(&to_agent);
        }
        let (to_agent, file) = (to_agent(world, host), fs::File::open("/dev/null").unwrap());
        send(&to_agent, &message(HELLO, VERSION, 0, 77), &[file.as_raw_fd(), file.as_raw_fd()]);
        hung_up(&to_agent);
        pair.goes_on(1);
    });
}

/// A version that nobody speaks yet.
#[test]
fn hello_of_another_version() {
    beside_traffic(|world, _| {
        let (page, to_agent) = (memory(4096, true), to_agent(world, world.host(0)));
        send(&to_agent, &message(HELLO, 99, 0, 0), &[page.as_raw_fd(), page.as_raw_fd()]);
        hung_up(&to_agent);
    });
}

/// Programs that connect and say nothing, or offer sockets that are no connections.
#[test]
fn offers_of_nothing() {
    beside_traffic(|world, pair| {
        let host = world.host(1);
        let silent: Vec<OwnedFd> = (0..200).map(|_| to_agent(world, host)).collect();
        let file = fs::File::open("/dev/null").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Connected, but on another host.
        let elsewhere = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let odd = [file.as_raw_fd(), udp.as_raw_fd(), listener.as_raw_fd(), elsewhere.as_raw_fd()];
        let to_agent = to_agent(world, host);
        for (id, socket) in odd.iter().enumerate() {
            send(&to_agent, &message(OFFER, 0, id as u64, 0), &[*socket]);
        }
        for number in [0, 1, 1000, 65_535] {
            send(&to_agent, &message(BELL, number, 0, 0), &[file.as_raw_fd()]);
        }
        pair.goes_on(1);
        drop(silent);
    });
}

/// A connection whose last close lasts as long as its other end does not read, which comes with it.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let there = listener.accept().unwrap().0;
    let linger = libc::linger { l_onoff: 1, l_linger: 3600 };
    sys::setsockopt(here.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    here.set_nonblocking(true).unwrap();
    while (&here).write(&[0; 65536]).is_ok() {}
    (here, there)
}

/// Programs that leave the last copy of a lingering socket to the agent, with every kind of message, and end.
#[test]
fn sockets_that_linger() {
    beside_traffic(|world, pair| {
        let host = world.host(1);
        let mut others = Vec::new();
        for kind in [OFFER, HELLO, BELL, 2, 99] {
            let (to_agent, (here, there)) = (to_agent(world, host), lingering());
            let descriptors = vec![here.as_raw_fd(); if kind == OFFER { 1 } else { 100 }];
            send(&to_agent, &message(kind, 1, 1, 1), &descriptors);
            drop(here);
            others.push(there);
        }
        // Left in the socket's queue when the agent hangs up.
        let (to_agent, (here, there)) = (to_agent(world, host), lingering());
        for kind in [99, OFFER, OFFER] {
            send(&to_agent, &message(kind, 1, 1, 1), &[here.as_raw_fd()]);
        }
        drop(here);
        pair.goes_on(3);
        drop((others, there));
    });
}

/// A program that asks and asks and never listens.
#[test]
fn questions_without_end() {
    beside_traffic(|world, pair| {
        let to_agent = to_agent(world, world.host(1));
        std::thread::scope(|scope| {
            scope.spawn(|| while send(&to_agent, &message(PING, 0, 0, 0), &[]) {});
            pair.goes_on(2);
            // Until the agent has had enough; whatever was said before that ends the thread, too.
            sys::poll_one(to_agent.as_raw_fd(), 0, 60_000);
        });
    });
}
