//! memcached with clients of our own that check every value.

use convoy_tests::Arena;
use convoy_tests::arena::{both, find, free_port};

fn exercise(arena: &Arena, threads: &str) -> String {
    let number = free_port();
    let port = number.to_string();
    let arguments =
        ["-u", "root", "-l", "127.0.0.1", "-p", &port, "-U", "0", "-t", threads, "-m", "128", "-I", "4m"];
    let server = arena.start("memcached", arena.command(find("memcached", "memcached"), &arguments));
    arena.listening(number);
    let clients = ["20", "300"];
    let mut said = String::new();
    for connections in clients {
        let command = arena.command(convoy_tests::program!("cache_client"), &[&port, connections]);
        said.push_str(&arena.run(command).stdout);
    }
    server.end(libc::SIGTERM);
    said
}

#[test]
fn memcached_one_thread() {
    both(true, |arena| exercise(arena, "1"));
}

#[test]
fn memcached_four_threads() {
    both(true, |arena| exercise(arena, "4"));
}
