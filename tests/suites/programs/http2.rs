//! HTTP/2 without TLS: nghttpd and nginx under h2load, curl and httpx, with every body compared.

use std::fs;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::kit::pattern;
use convoy_tests::{Arena, Service};

use crate::scripts::{python_with, script};

/// The files that are served, by name and size.
const FILES: &[(&str, usize)] = &[("empty", 0), ("small", 900), ("middle", 60_000), ("large", 3_000_000)];

fn files(arena: &Arena) -> String {
    let root = arena.path("www");
    fs::create_dir(&root).unwrap();
    for (number, (name, size)) in FILES.iter().enumerate() {
        let mut bytes = vec![0; *size];
        pattern::fill(number as u64, 0, &mut bytes);
        fs::write(root.join(name), bytes).unwrap();
    }
    root.display().to_string()
}

fn nghttpd(arena: &Arena, port: u16) -> Service<'_> {
    let (root, port) = (files(arena), port.to_string());
    let arguments = ["--no-tls", "--address=127.0.0.1", "--echo-upload", "-n", "2", "-d", &root, &port];
    arena.start("nghttpd", arena.command(find("nghttpd", "nghttp2-server"), &arguments))
}

fn nginx(arena: &Arena, port: u16) -> Service<'_> {
    let (root, base) = (files(arena), arena.path("").display().to_string());
    let config = format!(
        "daemon off; user root; worker_processes 2; pid {base}/nginx.pid; error_log {base}/nginx.err warn;
         events {{ worker_connections 1000; }}
         http {{
           access_log off; sendfile on; keepalive_requests 100000;
           client_body_temp_path {base}/body; proxy_temp_path {base}/proxy; fastcgi_temp_path {base}/f;
           uwsgi_temp_path {base}/u; scgi_temp_path {base}/s;
           server {{ listen 127.0.0.1:{port} http2; root {root}; }}
         }}"
    );
    let file = arena.file("nginx.conf", config);
    let arguments = ["-p", &base, "-e", "stderr", "-c", file.to_str().unwrap()];
    arena.start("nginx", arena.command(find("nginx", "nginx"), &arguments))
}

/// Fetches every file, each by a connection of its own (this curl cannot use such a connection twice).
fn curl(arena: &Arena, address: &str) {
    for (name, _) in FILES {
        let (body, address) = (arena.path("body.bin"), format!("{address}/{name}"));
        let arguments = ["-sS", "--fail", "--http2-prior-knowledge", "-o", body.to_str().unwrap(), &address];
        arena.run(arena.command(find("curl", "curl"), &arguments));
        let right = fs::read(&body).unwrap_or_default() == fs::read(arena.path("www").join(name)).unwrap();
        assert!(right, "{:?}: the body of {address}", arena.mode());
        let _ = fs::remove_file(body);
    }
}

/// Load with many streams of several connections; gives what was answered.
fn h2load(arena: &Arena, address: &str, arguments: &[&str]) -> String {
    let output =
        arena.run(arena.command(find("h2load", "nghttp2-client"), &[arguments, &[address]].concat()));
    let said: Vec<&str> = output.stdout.lines().filter(|line| line.starts_with("requests:")).collect();
    assert_eq!(said.len(), 1, "{}", output.stdout);
    said[0].to_owned()
}

fn exercise(arena: &Arena, serve: fn(&Arena, u16) -> Service<'_>, uploads: bool) -> String {
    let python = python_with(&[("httpx", "python3-httpx"), ("h2", "python3-h2")]);
    let port = free_port();
    let address = format!("http://127.0.0.1:{port}");
    let server = serve(arena, port);
    arena.listening(port);
    let mut said = Vec::new();
    let small = format!("{address}/small");
    said.push(h2load(arena, &small, &["-n", "20000", "-c", "20", "-m", "32"]));
    said.push(h2load(arena, &small, &["-n", "2000", "-c", "50", "-m", "1", "-t", "2"]));
    said.push(h2load(arena, &format!("{address}/large"), &["-n", "60", "-c", "4", "-m", "5"]));
    curl(arena, &address);
    let script = script("python/http2_client.py");
    let mut arguments = vec![script.as_str(), &address];
    arguments.extend(FILES.iter().map(|(name, _)| *name));
    arguments.extend(uploads.then_some("upload"));
    said.push(arena.run(arena.command(&python, &arguments)).stdout);
    said.push(server.end(libc::SIGTERM).to_string());
    said.join("\n")
}

#[test]
fn http2_nghttpd() {
    both(true, |arena| exercise(arena, nghttpd, true));
}

#[test]
fn http2_nginx() {
    both(true, |arena| exercise(arena, nginx, false));
}
