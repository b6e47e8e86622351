//! The process at the other end is killed. It is this same program, told by its environment what to be.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use convoy_fabric::libfabric::{self, Local, Placement};
use convoy_fabric::{Access, Event, Fabric, LinkId, PostError, RemoteMemory, memory, shm};

use crate::harness::{Pair, write};

const KIND: &str = "FABRIC_TEST_KIND";
const PEER: &str = "FABRIC_TEST_PEER";
const TOKEN: u64 = 0x7777;

fn open(kind: &str) -> Box<dyn Fabric> {
    if kind == "shm" {
        return shm::open().unwrap();
    }
    libfabric::open(kind, Some(&Local::from("127.0.0.1")), Placement::Best).unwrap()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The other end: accepts a link, and polls until it is killed or its parent is gone.
#[test]
#[ignore = "a part of other tests"]
fn other_end() {
    let (Ok(kind), Ok(peer)) = (std::env::var(KIND), std::env::var(PEER)) else { return };
    // SAFETY: asks for a signal.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let mut fabric = open(&kind);
    let memory = fabric.allocate(4096, Access::Remote).unwrap();
    let remote = fabric.remote(memory).unwrap();
    fabric.accept(LinkId(1), &bytes(&peer), TOKEN).unwrap();
    println!("\npeer {} {} {}", hexadecimal(fabric.address()), remote.key, remote.base);
    let mut events: Vec<Event> = Vec::new();
    loop {
        fabric.poll(&mut events);
        std::thread::yield_now();
    }
}

fn start(kind: &str, own: &[u8]) -> (Child, Vec<u8>, RemoteMemory) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "dying::other_end", "--ignored", "--nocapture"])
        .env(KIND, kind)
        .env(PEER, hexadecimal(own))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with("peer ")).unwrap();
    let words: Vec<_> = line.split(' ').collect();
    let (key, base) = (words[2].parse().unwrap(), words[3].parse().unwrap());
    (child, bytes(words[1]), RemoteMemory { key, base, bytes: 4096 })
}

/// Writing to a process that is dead takes the link down, whether or not writes were outstanding when it died.
fn down_after_death(kind: &str) {
    for busy in [false, true] {
        let own = open(kind);
        let (mut child, address, remote) = start(kind, own.address());
        let nobody = memory::pair(memory::LIMITS, [memory::Faults::default(); 2]).unwrap().0;
        let mut pair = Pair::new(own, Box::new(nobody));
        let link = LinkId(1);
        pair.a.fabric.connect(link, &address, TOKEN).unwrap();
        pair.until("the link is connected", |pair| pair.a.connected == [link]);
        let source = pair.a.source(&[1; 4096]);
        let next = write(source, 0..4096, remote, 0, Some(1));
        pair.post(link, &next);
        pair.until("a write is done", |pair| pair.a.written(link) == 1);
        while busy && pair.a.fabric.post(link, &next).is_ok() {}
        child.kill().unwrap();
        child.wait().unwrap();
        pair.until("the link is down", |pair| {
            match pair.a.fabric.post(link, &next) {
                Ok(()) | Err(PostError::Full | PostError::Down) => {}
                Err(error) => panic!("{error:?}"),
            }
            pair.a.is_down(link)
        });
    }
}

#[test]
fn shared_memory() {
    down_after_death("shm");
}

#[test]
fn tcp() {
    down_after_death("tcp");
}

#[test]
fn tcp_rxm() {
    down_after_death("tcp;ofi_rxm");
}
