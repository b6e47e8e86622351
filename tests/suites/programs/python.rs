//! Python: http.server under curl, and asyncio on both ends.

use std::fs;

use convoy_tests::Arena;
use convoy_tests::arena::{both, find, free_port};
use convoy_tests::kit::pattern;

use crate::scripts::{python, script};

fn http_server(arena: &Arena) -> String {
    let number = free_port();
    let port = number.to_string();
    let root = arena.path("www");
    fs::create_dir(&root).unwrap();
    let sizes = [0, 1, 1000, 65_536, 3_000_000];
    for size in sizes {
        let mut bytes = vec![0; size];
        pattern::fill(size as u64, 0, &mut bytes);
        fs::write(root.join(size.to_string()), bytes).unwrap();
    }
    let arguments =
        ["-m", "http.server", &port, "--bind", "127.0.0.1", "--directory", root.to_str().unwrap()];
    let server = arena.start("python", arena.command(python(), &arguments));
    arena.listening(number);
    let mut said = Vec::new();
    for round in 0..6 {
        for size in sizes {
            let body = arena.path("body.bin");
            let address = format!("http://127.0.0.1:{port}/{size}");
            let arguments =
                ["-sS", "--fail", "-o", body.to_str().unwrap(), "-w", "%{size_download}", &address];
            let output = arena.run(arena.command(find("curl", "curl"), &arguments));
            let right = fs::read(&body).unwrap_or_default() == fs::read(root.join(size.to_string())).unwrap();
            assert!(right, "{:?}: round {round}, the body of {size} bytes", arena.mode());
            let _ = fs::remove_file(&body);
            said.push(output.stdout);
        }
    }
    server.end(libc::SIGTERM);
    said.join("\n")
}

fn asyncio(arena: &Arena) -> String {
    let number = free_port();
    let port = number.to_string();
    let server = arena.start("python", arena.command(python(), &[&script("python/echo_server.py"), &port]));
    arena.listening(number);
    let said =
        arena.run(arena.command(python(), &[&script("python/echo_client.py"), &port, "60", "60"])).stdout;
    let status = server.end(libc::SIGTERM);
    format!("{said}{status}")
}

/// Both ends, threads and processes inside one interpreter.
fn modules(arena: &Arena) -> String {
    arena.run(arena.command(python(), &[&script("python/modules.py")])).stdout
}

#[test]
fn python_http_server() {
    // curl makes one short connection for each file: whether any of them moves is a matter of luck.
    both(false, http_server);
}

#[test]
fn python_asyncio() {
    both(true, asyncio);
}

#[test]
fn python_modules() {
    both(true, modules);
}
