//! nginx with several workers, under wrk, with every body compared; reloads in the middle; as a proxy.

use std::fs;
use std::process::Command;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::kit::pattern;
use convoy_tests::{Arena, Service};

/// The files that are served, by name and size.
const FILES: &[(&str, usize)] = &[("empty", 0), ("small", 1024), ("middle", 100_000), ("large", 5_000_000)];

struct Nginx<'a> {
    arena: &'a Arena,
    port: u16,
    server: Service<'a>,
}

impl<'a> Nginx<'a> {
    fn start(arena: &'a Arena, listen: &str) -> Self {
        let port = free_port();
        let root = arena.path("www");
        fs::create_dir_all(&root).unwrap();
        for (number, (name, size)) in FILES.iter().enumerate() {
            let mut bytes = vec![0; *size];
            pattern::fill(number as u64, 0, &mut bytes);
            fs::write(root.join(name), bytes).unwrap();
        }
        let (base, www) = (arena.path(""), root.display().to_string());
        let config = format!(
            "daemon off; user root; worker_processes 2; pid {base}/nginx.pid; error_log {base}/nginx.err warn;
             events {{ worker_connections 1000; }}
             http {{
               access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
               client_body_temp_path {base}/body; proxy_temp_path {base}/proxy; fastcgi_temp_path {base}/f;
               uwsgi_temp_path {base}/u; scgi_temp_path {base}/s;
               upstream back {{ server 127.0.0.1:{port}; keepalive 16; }}
               server {{
                 listen 127.0.0.1:{port} {listen};
                 root {www};
                 location /said {{ return 200 \"hello\\n\"; }}
                 location /copied/ {{ sendfile off; alias {www}/; }}
                 location /through/ {{
                   proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_pass http://back/;
                 }}
               }}
             }}",
            base = base.display()
        );
        let file = arena.file("nginx.conf", config);
        let prefix = base.display().to_string();
        let command = arena
            .command(find("nginx", "nginx"), &["-p", &prefix, "-e", "stderr", "-c", file.to_str().unwrap()]);
        let server = arena.start("nginx", command);
        arena.listening(port);
        Self { arena, port, server }
    }

    fn address(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Fetches every file in every way and compares the bodies with the files.
    fn bodies(&self) -> String {
        let mut said = Vec::new();
        for way in ["", "copied/", "through/"] {
            for (name, size) in FILES {
                let body = self.arena.path("body.bin");
                let address = self.address(&format!("{way}{name}"));
                let arguments = ["-sS", "--fail", "-o", body.to_str().unwrap(), &address];
                let arguments = [&arguments[..], &["-w", "%{http_code} %{size_download}"]].concat();
                let output = self.arena.run(self.arena.command(find("curl", "curl"), &arguments));
                let right = fs::read(&body).unwrap_or_default()
                    == fs::read(self.arena.path("www").join(name)).unwrap();
                assert!(right, "the body of {address}, {size} bytes");
                let _ = fs::remove_file(&body);
                said.push(format!("{way}{name} {}", output.stdout));
            }
        }
        said.join("\n")
    }

    fn wrk(&self, path: &str, seconds: &str) -> Command {
        let address = self.address(path);
        self.arena.command(find("wrk", "wrk"), &["-t", "2", "-c", "50", "-d", seconds, &address])
    }

    /// Puts it under load, and wants answers without any error.
    fn load(&self, path: &str) {
        let output = self.arena.run(self.wrk(path, "1")).stdout;
        let count = output.lines().find_map(|line| line.trim().split_once(" requests in "));
        let count: u64 = count.expect("wrk's number of requests").0.parse().unwrap();
        assert!(count > 100, "{output}");
        assert!(!output.contains("Non-2xx") && !output.contains("Socket errors"), "{output}");
    }

    fn end(self) -> String {
        self.server.end(libc::SIGQUIT).to_string()
    }
}

fn exercise(arena: &Arena, listen: &str) -> String {
    let nginx = Nginx::start(arena, listen);
    let mut said = vec![nginx.bodies()];
    for path in ["small", "said", "copied/middle", "through/small"] {
        nginx.load(path);
    }
    said.push(nginx.bodies());
    said.push(nginx.end());
    said.join("\n")
}

/// New workers take over in the middle of the load; afterwards everything is as before.
fn reload(arena: &Arena) -> String {
    let nginx = Nginx::start(arena, "reuseport");
    let load = arena.start("wrk", nginx.wrk("small", "3"));
    let pid = nginx.server.pid();
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for _ in 0..3 {
        let before = children();
        nginx.server.signal(libc::SIGHUP);
        arena.eventually("new workers", || {
            let now = children();
            let old: Vec<&str> = before.split_whitespace().collect();
            now.split_whitespace().filter(|worker| !old.contains(worker)).count() >= 2
        });
        nginx.bodies();
    }
    load.ended();
    nginx.load("small");
    let said = nginx.bodies();
    said + &nginx.end()
}

#[test]
fn nginx_shared_listener() {
    both(true, |arena| exercise(arena, ""));
}

#[test]
fn nginx_reuseport() {
    both(true, |arena| exercise(arena, "reuseport"));
}

#[test]
fn nginx_reload_under_load() {
    both(true, reload);
}
